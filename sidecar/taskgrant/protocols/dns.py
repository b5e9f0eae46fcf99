"""Name look-ups (RFC 1035), answered from a fixed list: query bytes in, answer bytes out. Pure.

Every name that is known leads to the same address, at which nobody is, or to those that were written down for it;
nobody is ever asked, so that a name can carry nothing out and no answer can be changed by others.

    A, AAAA of a known name           the address of that family
    any other type of a known name    NOERROR without an answer: so too HTTPS and SVCB (RFC 9460), which could
                                      bring keys for ECH or another port
    another name                      NXDOMAIN, with "Blocked" (RFC 8914) for clients that speak EDNS
    zone transfers, other classes     REFUSED
    other opcodes, meta types         NOTIMP
    no query of one question          FORMERR
    a response, or less than a head   nothing

NXDOMAIN and not REFUSED for unknown names: after it resolvers go on with the next name of their search list, while
REFUSED makes glibc report a failure that may pass and musl wait for its time-out.
"""

import hashlib
import ipaddress
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from taskgrant.model.call import Refusal
from taskgrant.model.codes import Code

#: Bytes. Names have at most 255; what is longer than any question with EDNS carries something else.
MAX_QUERY = 512
MAX_ANSWER = 512
#: Seconds. Short, since a name can leave the catalogue; the address itself never changes.
TTL = 5

_HEAD = struct.Struct(">HHHHHH")
_OPCODE = 0x7800
_TRANSFERS = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)
#: What can be shown of an unknown name: its last two labels, if they are ordinary ones.
_ORDINARY = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)?", re.ASCII)
_MAX_SHOWN = 32


class Outcome(StrEnum):
    """What became of a look-up, for whoever counts."""

    ADDRESS = "address"
    EMPTY = "empty"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    MALFORMED = "malformed"


class Answered(NamedTuple):
    """``wire`` is None when nothing is to be sent. ``shown`` is what may be kept of a name that was refused."""

    wire: bytes | None
    outcome: Outcome
    refusal: Refusal | None = None
    shown: str = ""


@dataclass(frozen=True, slots=True)
class Names:
    """What is known, and where it leads."""

    known: frozenset[dns.name.Name]
    address: ipaddress.IPv4Address
    address6: ipaddress.IPv6Address
    pinned: Mapping[dns.name.Name, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        hosts: Iterable[str],
        address: ipaddress.IPv4Address,
        address6: ipaddress.IPv6Address,
        pinned: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> "Names":
        """``hosts`` with or without a port; what is an address, or no name of DNS, is left out. Those of ``pinned``
        lead to their own addresses.
        """
        named = (_name(host.partition(":")[0]) for host in hosts)
        own = {_name(host.partition(":")[0]): tuple(addresses) for host, addresses in pinned.items()}
        return cls(
            frozenset(name for name in named if name is not None),
            address,
            address6,
            {name: addresses for name, addresses in own.items() if name is not None},
        )

    def answer(self, query: bytes) -> Answered:
        """Never raises; an answer has at most ``MAX_ANSWER`` bytes."""
        if len(query) < _HEAD.size:
            return _silent("shorter than a head")
        _, flags, questions, answers, authorities, additional = _HEAD.unpack_from(query)
        if flags & dns.flags.QR:
            return _silent("a response")
        if flags & _OPCODE:
            refusal = Refusal(Code.UNSUPPORTED, "only queries are answered")
            return Answered(_bare(query, dns.rcode.NOTIMP), Outcome.REFUSED, refusal)
        if len(query) > MAX_QUERY or flags & dns.flags.TC:
            return _malformed(query)
        if (questions, answers, authorities) != (1, 0, 0) or additional > 1:
            return _malformed(query)
        try:
            asked = dns.message.from_wire(query)
            return self._answer(asked, query)
        except (dns.exception.DNSException, ValueError):
            return _malformed(query)

    def _answer(self, asked: dns.message.Message, query: bytes) -> Answered:
        if asked.additional or asked.had_tsig:
            return _malformed(query)  # what comes besides a question is EDNS, or nothing
        question = asked.question[0]
        if asked.edns > 0:
            refusal = Refusal(Code.UNSUPPORTED, "a version of EDNS that is not known")
            return Answered(_wire(asked, dns.rcode.BADVERS), Outcome.REFUSED, refusal)
        if question.rdtype in _TRANSFERS or question.rdclass != dns.rdataclass.IN:
            refusal = Refusal(Code.FORBIDDEN, "no zone is transferred, and there is no class but IN")
            return Answered(_wire(asked, dns.rcode.REFUSED), Outcome.REFUSED, refusal)
        if dns.rdatatype.is_metatype(question.rdtype) and question.rdtype != dns.rdatatype.ANY:
            refusal = Refusal(Code.UNSUPPORTED, "no type of a question")
            return Answered(_wire(asked, dns.rcode.NOTIMP), Outcome.REFUSED, refusal)
        if question.name not in self.known:
            refusal = Refusal(Code.UNKNOWN_SERVER, "this name is not in the sidecar's catalogue")
            return Answered(_wire(asked, dns.rcode.NXDOMAIN), Outcome.UNKNOWN, refusal, _shown(question.name))
        addresses = self._addresses(question.name, question.rdtype)
        if not addresses:
            return Answered(_wire(asked, dns.rcode.NOERROR), Outcome.EMPTY)
        found = dns.rrset.from_text(question.name, TTL, question.rdclass, question.rdtype, *addresses)
        return Answered(_wire(asked, dns.rcode.NOERROR, found), Outcome.ADDRESS)

    def _addresses(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> list[str]:
        version = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}.get(kind)
        return [
            address
            for address in self.pinned.get(name, (str(self.address), str(self.address6)))
            if ipaddress.ip_address(address).version == version
        ]


def _wire(asked: dns.message.Message, code: dns.rcode.Rcode, found: dns.rrset.RRset | None = None) -> bytes:
    """Recursion is said to be available: a stub that hears otherwise takes an empty answer for a lame one."""
    answer = dns.message.make_response(asked, recursion_available=True, our_payload=MAX_ANSWER)
    answer.set_rcode(code)
    if found is not None:
        answer.answer.append(found)
    if code == dns.rcode.NXDOMAIN and asked.edns == 0:
        answer.use_edns(0, 0, MAX_ANSWER, options=[dns.edns.EDEOption(dns.edns.EDECode.BLOCKED)])
    return answer.to_wire(max_size=MAX_ANSWER)


def _malformed(query: bytes) -> Answered:
    refusal = Refusal(Code.MALFORMED, "no query of one question")
    return Answered(_bare(query, dns.rcode.FORMERR), Outcome.MALFORMED, refusal)


def _silent(what: str) -> Answered:
    return Answered(None, Outcome.MALFORMED, Refusal(Code.MALFORMED, f"no query: {what}"))


def _bare(query: bytes, code: dns.rcode.Rcode) -> bytes:
    """A head alone: nothing of what could not be read is repeated but its id, opcode and RD."""
    number, flags = struct.unpack_from(">HH", query)
    kept = flags & (_OPCODE | dns.flags.RD)
    return _HEAD.pack(number, dns.flags.QR | kept | code, 0, 0, 0, 0)


def _name(host: str) -> dns.name.Name | None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return None
    try:
        return dns.name.from_text(host)
    except dns.exception.DNSException:
        return None


def _shown(name: dns.name.Name) -> str:
    """What may be written down of a name that the agent has chosen, so that the record is no letter box either: the
    last two labels if they are short and ordinary, and a digest by which equal names are known.

    ``tunnel.4f2a….example.org`` → ``….example.org (sha256:…)``
    """
    canonical = name.canonicalize()
    labels = canonical.labels[:-1]
    ending = b".".join(labels[-2:]).decode("latin-1")
    if len(ending) > _MAX_SHOWN or not _ORDINARY.fullmatch(ending):
        ending = ""
    elif len(labels) > 2:
        ending = f"….{ending}"
    digest = hashlib.sha256(canonical.to_text().encode()).hexdigest()[:16]
    return f"{ending} (sha256:{digest})".strip()
