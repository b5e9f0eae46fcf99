"""Proves from inside, as the agent, that TCP arrives at the sidecar and that nothing else leaves.

Only addresses at which nobody is are dialled (TEST-NET-1, RFC 5737; 2001:db8::/32, RFC 3849) and this machine's own.
Each probe is a row: what was tried, what is expected, what was seen. A probe that is answered by nobody, where a
refusal was expected, counts as left: the packet has gone somewhere.
"""

import errno
import http.client
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import dns.edns
import dns.exception
import dns.message
import dns.query
import dns.rcode

_NOWHERE4 = "192.0.2.1"
_NOWHERE6 = "2001:db8::1"
_SECONDS = 2.0
_REFUSED = "refused by this machine"
_ARRIVED = "the sidecar answers"
_NOT_ALLOWED = "not allowed"
_LEFT = "left: nobody on this machine answered or refused"
#: Linux' own, of which ``socket`` has no names.
_ETH_P_ALL = 0x0003


@dataclass(frozen=True, slots=True)
class Row:
    probe: str
    expected: str
    seen: str

    @property
    def holds(self) -> bool:
        return self.seen in self.expected.split(" or ")


def probe(port: int, others: Mapping[str, int]) -> list[Row]:
    """``port`` is the transparent listener's, ``others`` what else the sidecar listens on, by name."""
    arrived6 = f"{_ARRIVED} or no route"
    rows: list[tuple[str, str, Callable[[], str]]] = [
        ("TCP over IPv4, port 80", _ARRIVED, lambda: _request(_NOWHERE4, 80)),
        ("TCP over IPv4, another port", _ARRIVED, lambda: _request(_NOWHERE4, 8443)),
        ("TCP over IPv6, port 80", arrived6, lambda: _request(_NOWHERE6, 80)),
        ("a name look-up by UDP over IPv4", _ARRIVED, lambda: _look_up(dns.query.udp, _NOWHERE4)),
        ("a name look-up by TCP over IPv4", _ARRIVED, lambda: _look_up(dns.query.tcp, _NOWHERE4)),
        ("a name look-up by UDP over IPv6", arrived6, lambda: _look_up(dns.query.udp, _NOWHERE6)),
        ("UDP over IPv4, port 443", _REFUSED, lambda: _datagram(_NOWHERE4, 443)),
        ("UDP over IPv6, port 443", f"{_REFUSED} or no route", lambda: _datagram(_NOWHERE6, 443)),
        ("ICMP echo", f"{_REFUSED} or {_NOT_ALLOWED}", lambda: _echo(_NOWHERE4)),
        ("a raw socket", _NOT_ALLOWED, lambda: _open(socket.AF_INET, socket.IPPROTO_RAW)),
        ("a packet socket", _NOT_ALLOWED, lambda: _open(socket.AF_PACKET, socket.htons(_ETH_P_ALL))),
        ("the sidecar's own port, dialled", _REFUSED, lambda: _request("127.0.0.1", port)),
        ("the same over IPv6", f"{_REFUSED} or no route", lambda: _request("::1", port)),
        *(
            (
                f"the sidecar's {name} port, dialled",
                _REFUSED,
                lambda number=number: _request("127.0.0.1", number),
            )
            for name, number in others.items()
        ),
    ]
    return [Row(name, expected, _seen(attempt)) for name, expected, attempt in rows]


def _seen(attempt: Callable[[], str]) -> str:
    try:
        return attempt()
    except TimeoutError:
        return _LEFT
    except OSError as error:
        match error.errno:
            case errno.ECONNREFUSED | errno.EPERM | errno.ECONNRESET:
                return _REFUSED
            case errno.ENETUNREACH | errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT | errno.EHOSTUNREACH:
                return "no route"
            case _:
                return str(error)


def _request(host: str, port: int) -> str:
    """Any request will do: what is for nobody is refused by the sidecar, in its name."""
    connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    try:
        connection.request("GET", "/", headers={"host": f"check.taskgrant.invalid:{port}"})
        answer = connection.getresponse()
        return _ARRIVED if answer.headers.get("server") == "taskgrant" else "somebody else answers"
    except http.client.HTTPException as error:
        return f"somebody answers what is no HTTP: {type(error).__name__}"
    finally:
        connection.close()


def _look_up(over: Callable[..., dns.message.Message], host: str) -> str:
    """A name that is nobody's (RFC 6761): anybody says so, and the sidecar also that it refuses it."""
    query = dns.message.make_query("check.taskgrant.invalid", "A", use_edns=0)
    try:
        answer = over(query, host, timeout=_SECONDS)
    except dns.exception.Timeout:
        return _LEFT
    except (dns.exception.DNSException, EOFError) as error:
        return f"somebody answers what is no DNS: {type(error).__name__}"
    told = [option.code for option in answer.options if isinstance(option, dns.edns.EDEOption)]
    blocked = answer.rcode() == dns.rcode.NXDOMAIN and told == [dns.edns.EDECode.BLOCKED]
    return _ARRIVED if blocked else "somebody else answers"


def _datagram(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_SECONDS)
        sock.connect((host, port))
        sock.send(
            b"taskgrant"
        )  # EPERM is our rules' word; ECONNREFUSED would be that of a machine it has reached
        try:
            sock.recv(1)
        except ConnectionRefusedError:
            return "left: another machine refused"
    return "somebody else answers"


def _echo(host: str) -> str:
    """An echo request by a ping socket (``net.ipv4.ping_group_range`` says who may have one)."""
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    except PermissionError:
        return _NOT_ALLOWED
    with sock:
        sock.settimeout(_SECONDS)
        sock.connect((host, 0))
        sock.send(bytes.fromhex("0800f7ff00000000"))
        sock.recv(64)
    return "somebody else answers"


def _open(family: int, protocol: int) -> str:
    try:
        socket.socket(family, socket.SOCK_RAW, protocol).close()
    except PermissionError:
        return _NOT_ALLOWED
    return "can be opened"
