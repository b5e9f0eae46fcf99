"""``CONNECT host:port HTTP/1.1`` and its header section (RFC 9112, section 3.2.3; RFC 9110, section 9.3.6), as bytes.

It is read before any HTTP parser sees the connection, since what follows it is for another reader. So it is read more
strictly than a parser would: lines end in CRLF, nothing is folded, a port is named, and there is no body.
"""

from dataclasses import dataclass
from typing import Final

from taskgrant.model.call import Headers
from taskgrant.model.codes import Code
from taskgrant.protocols.framing import (
    FramingFault,
    check_headers,
    parse_authority,
)

_END: Final = b"\r\n\r\n"
#: Longer ones are refused; clients send some hundreds.
MAX_BYTES: Final = 8 * 1024
_VERSIONS: Final = (b"HTTP/1.1", b"HTTP/1.0")  # Python before 3.12 says 1.0


@dataclass(frozen=True, slots=True)
class Connect:
    """``host`` in lower case; ``length`` is the number of bytes that the request has."""

    host: str
    port: int
    headers: Headers
    length: int


def read_connect(seen: bytes) -> Connect | None:
    """None: more bytes are needed. Raises FramingFault."""
    end = seen.find(_END)
    if end < 0 and len(seen) <= MAX_BYTES:
        return None
    if not 0 <= end <= MAX_BYTES:
        raise FramingFault("the CONNECT request is too long", Code.TOO_LARGE)
    line, *fields = seen[:end].split(b"\r\n")
    method, _, rest = line.partition(b" ")
    target, _, version = rest.partition(b" ")
    if method != b"CONNECT" or version not in _VERSIONS:
        raise FramingFault("this is no CONNECT request of HTTP/1")
    host, port = _authority(target)
    headers = check_headers([_field(field) for field in fields])
    _check(headers, host, port)
    return Connect(host, port, headers, end + len(_END))


def _authority(target: bytes) -> tuple[str, int]:
    text = target.decode("latin-1")
    host, port = parse_authority(text, 1)
    if text.rpartition(":")[2] != str(port):
        raise FramingFault("CONNECT names a host and a port")
    return host, port


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon:
        raise FramingFault("a header has no colon")
    return name, value


def _check(headers: Headers, host: str, port: int) -> None:
    hosts = [value for name, value in headers if name == "host"]
    # Some clients leave the port out.
    if len(hosts) > 1 or (hosts and parse_authority(hosts[0], port) != (host, port)):
        raise FramingFault("the Host header names another host than CONNECT does", Code.MISDIRECTED)
    for name, value in headers:
        if name == "transfer-encoding" or (name == "content-length" and value != "0"):
            raise FramingFault("a CONNECT request has no body")
