"""Look-ups: what is answered, what is refused and how, and that nothing but the list ever comes out."""

import struct
from ipaddress import IPv4Address, IPv6Address

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.update
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskgrant.model.codes import Code
from taskgrant.protocols.dns import MAX_ANSWER, MAX_QUERY, TTL, Names, Outcome

HOSTS = ["desk.internal", "desk.internal:8080", "pinned.example", "192.0.2.9", "a..b", "x" * 64 + ".example"]
NAMES = Names.of(HOSTS, IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))


def ask(name, kind="A", **options):
    query = dns.message.make_query(name, kind, **options)
    answered = NAMES.answer(query.to_wire())
    assert answered.wire is not None
    answer = dns.message.from_wire(answered.wire)
    assert query.is_response(answer)
    return answered, answer


def test_only_names_are_known_each_once():
    assert {str(name) for name in NAMES.known} == {"desk.internal.", "pinned.example."}


@pytest.mark.parametrize("name", ["desk.internal", "desk.internal.", "DeSk.InTeRnAl", "pinned.example"])
@pytest.mark.parametrize("kind, address", [("A", "192.0.2.1"), ("AAAA", "2001:db8::1")])
def test_a_known_name_leads_to_nowhere(name, kind, address):
    answered, answer = ask(name, kind)
    assert answered[1:] == (Outcome.ADDRESS, None, "")
    (found,) = answer.answer
    assert [str(one) for one in found] == [address]
    assert found.ttl == TTL
    assert found.name.labels == dns.name.from_text(name).labels  # as it was asked, letter by letter
    assert answer.flags & dns.flags.RA


@pytest.mark.parametrize(
    "kind", ["HTTPS", "SVCB", "MX", "TXT", "CNAME", "NS", "SOA", "SRV", "PTR", "ANY", "TYPE65280"]
)
def test_a_known_name_has_nothing_but_addresses(kind):
    answered, answer = ask("desk.internal", kind)
    assert answered.outcome is Outcome.EMPTY
    assert answer.rcode() == dns.rcode.NOERROR
    assert answer.answer == answer.authority == answer.additional == []


UNKNOWN = [
    "x.desk.internal",
    "internal",
    ".",
    "desk.internal.example",
    "192.0.2.9",
    r"desk\.internal",
    "xdesk.internal",
]


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("kind", ["A", "AAAA", "TXT", "HTTPS"])
def test_any_other_name_does_not_exist(name, kind):
    answered, answer = ask(name, kind)
    assert answered.outcome is Outcome.UNKNOWN
    assert answered.refusal is not None
    assert answered.refusal.code is Code.UNKNOWN_SERVER
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert answer.answer == answer.authority == []


def test_who_speaks_edns_hears_that_it_is_blocked():
    _, answer = ask("elsewhere.example", use_edns=0)
    assert [option.code for option in answer.options if isinstance(option, dns.edns.EDEOption)] == [15]
    assert ask("elsewhere.example")[1].edns == -1


@pytest.mark.parametrize(
    "name, shown",
    [
        ("elsewhere.example", "elsewhere.example "),
        ("api.ELSEWHERE.example", "….elsewhere.example "),
        ("c2VjcmV0.t.elsewhere.example", "….elsewhere.example "),
        ("x" * 40 + ".example", ""),
        (r"\008\027[31m.example", ""),
        (".", ""),
    ],
)
def test_of_an_unknown_name_little_is_kept(name, shown):
    kept = ask(name)[0].shown
    assert kept.startswith(f"{shown}(sha256:")
    assert len(kept) <= 64
    assert kept.isprintable()
    assert kept == ask(name.upper())[0].shown


@pytest.mark.parametrize(
    "kind, options, rcode",
    [
        ("AXFR", {}, dns.rcode.REFUSED),
        ("IXFR", {}, dns.rcode.REFUSED),
        ("A", {"rdclass": "CH"}, dns.rcode.REFUSED),
        ("A", {"rdclass": "ANY"}, dns.rcode.REFUSED),
        ("TSIG", {}, dns.rcode.NOTIMP),
        ("MAILB", {}, dns.rcode.NOTIMP),
        ("A", {"use_edns": 1}, dns.rcode.BADVERS),
    ],
)
def test_what_is_no_ordinary_question_is_refused(kind, options, rcode):
    query = dns.message.make_query("desk.internal", kind, **options)
    answered = NAMES.answer(query.to_wire())
    assert answered.outcome is Outcome.REFUSED
    assert answered.wire is not None
    answer = dns.message.from_wire(answered.wire)
    assert answer.rcode() == rcode
    assert answer.answer == []


HEAD = struct.Struct(">HHHHHH")
QUESTION = b"\4desk\10internal\0\0\1\0\1"


@pytest.mark.parametrize("opcode", [1, 2, 3, 4, 5, 6, 15])
def test_there_is_no_opcode_but_query(opcode):
    answered = NAMES.answer(HEAD.pack(7, opcode << 11, 1, 0, 0, 0) + QUESTION)
    assert answered.wire == HEAD.pack(7, 0x8000 | opcode << 11 | dns.rcode.NOTIMP, 0, 0, 0, 0)


def test_a_dynamic_update_is_not_implemented():
    update = dns.update.UpdateMessage("internal")
    update.add("desk", 300, "A", "198.51.100.66")
    wire = NAMES.answer(update.to_wire()).wire
    assert wire is not None
    assert wire[3] & 0xF == dns.rcode.NOTIMP


MALFORMED = {
    "no question": HEAD.pack(7, 0, 0, 0, 0, 0),
    "two questions": HEAD.pack(7, 0, 2, 0, 0, 0) + QUESTION * 2,
    "an answer": HEAD.pack(7, 0, 1, 1, 0, 0) + QUESTION + b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\1\2\3\4",
    "an authority": HEAD.pack(7, 0, 1, 0, 1, 0) + QUESTION,
    "a record that is no EDNS": HEAD.pack(7, 0, 1, 0, 0, 1) + QUESTION + b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\1\2\3\4",
    "two of EDNS": HEAD.pack(7, 0, 1, 0, 0, 2) + QUESTION + b"\0\0\x29\x04\xd0\0\0\0\0\0\0" * 2,
    "EDNS of another name": HEAD.pack(7, 0, 1, 0, 0, 1) + QUESTION + b"\1x\0\0\x29\x04\xd0\0\0\0\0\0\0",
    "EDNS cut off": HEAD.pack(7, 0, 1, 0, 0, 1) + QUESTION + b"\0\0\x29\x04\xd0\0\0\0\0\0\7x",
    "more behind": HEAD.pack(7, 0, 1, 0, 0, 0) + QUESTION + b"secret",
    "truncated": HEAD.pack(7, dns.flags.TC, 1, 0, 0, 0) + QUESTION,
    "a question cut off": HEAD.pack(7, 0, 1, 0, 0, 0) + QUESTION[:-3],
    "a name that points at itself": HEAD.pack(7, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
    "too long": dns.message.make_query(
        "desk.internal", "A", options=[dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(MAX_QUERY))]
    ).to_wire(),
}  # fmt: skip


@pytest.mark.parametrize("query", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_query_of_one_question_is_told_so_and_nothing_of_it_repeated(query):
    answered = NAMES.answer(query)
    assert answered.outcome is Outcome.MALFORMED
    assert answered.wire is not None
    assert len(answered.wire) == 12
    assert answered.wire[:2] == query[:2]
    assert answered.wire[3] & 0xF == dns.rcode.FORMERR


def test_a_response_is_not_answered():
    assert NAMES.answer(HEAD.pack(7, dns.flags.QR, 1, 0, 0, 0) + QUESTION).wire is None
    assert NAMES.answer(b"\0" * 11).wire is None


def test_a_signed_query_is_malformed():
    query = dns.message.make_query("desk.internal", "A")
    query.use_tsig({dns.name.from_text("key."): b"secret"})
    assert NAMES.answer(query.to_wire()).outcome is Outcome.MALFORMED


def agrees(query: bytes) -> None:
    """Whatever came: a bounded answer, to it, with no address but ours, and that of no name but one we know."""
    answered = NAMES.answer(query)
    assert (answered.refusal is None) == (answered.outcome in (Outcome.ADDRESS, Outcome.EMPTY))
    assert len(answered.shown) <= 64
    if answered.wire is None:
        return
    assert len(answered.wire) <= MAX_ANSWER
    assert answered.wire[:2] == query[:2]
    answer = dns.message.from_wire(answered.wire)
    assert answer.flags & dns.flags.QR
    assert answer.authority == answer.additional == []
    for found in answer.answer:
        assert found.name in NAMES.known
        assert {str(one) for one in found} <= {"192.0.2.1", "2001:db8::1"}


@given(st.binary(max_size=600))
@example(b"")
def test_any_bytes(query):
    agrees(query)


@given(st.integers(0, 0xFFFF), st.lists(st.integers(0, 2), min_size=4, max_size=4), st.binary(max_size=300))
def test_any_bytes_behind_a_head(flags, counts, rest):
    agrees(HEAD.pack(7, flags, *counts) + rest)
    agrees(HEAD.pack(7, 0, 1, 0, 0, 1) + QUESTION + rest)


LABELS = st.lists(st.binary(min_size=1, max_size=63), max_size=6) | st.sampled_from(
    [[b"desk", b"internal"], [b"DESK", b"internal"], [b"desk.internal"], [b"a", b"desk", b"internal"]]
)


@given(LABELS, st.integers(0, 0xFFFF), st.sampled_from([1, 1, 1, 3, 254, 255]), st.booleans())
def test_any_question(labels, kind, kind_class, edns):
    name = b"".join(bytes([len(label)]) + label for label in labels)[:254] + b"\0"
    query = HEAD.pack(7, 0x0100, 1, 0, 0, int(edns)) + name + struct.pack(">HH", kind, kind_class)
    agrees(query + (b"\0\0\x29\x04\xd0\0\0\x80\0\0\0" if edns else b""))
