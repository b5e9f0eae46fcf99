"""HTTP/2 on its way in (RFC 9113): what a request's fields say, and what frames come. Pure.

Fields become the same head that HTTP/1.1 has, and go through the same checks (``protocols.framing``): ``:method``,
``:path`` and ``:authority``, which is ``Host``. Nothing else that begins with a colon is taken, ``:protocol`` (extended
CONNECT, RFC 8441) included, and ``:scheme`` is the connection's own.

Frames are watched before they are read, since the reader holds a frame of any length until it is whole:

    frame = length (3 bytes) | type (1) | flags (1) | stream (4) | payload    (section 4.1)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from taskgrant.model.codes import Code
from taskgrant.protocols.framing import FramingFault

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: What every receiver takes, and what we never offer to exceed (section 4.2).
MAX_FRAME: Final = 1 << 14

_HEAD: Final = 9
_END_STREAM: Final = 0x1
_WANTED: Final = (b":method", b":scheme", b":path")

RawHeaders = Sequence[tuple[bytes, bytes]]


class FrameType(IntEnum):
    """Section 6. Others are ignored by the reader."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3


@dataclass(frozen=True, slots=True)
class Frame:
    kind: int
    flags: int
    length: int

    @property
    def ends_stream(self) -> bool:
        return self.kind in (FrameType.DATA, FrameType.HEADERS) and bool(self.flags & _END_STREAM)


@dataclass(frozen=True, slots=True)
class Request:
    """A request's fields as HTTP/1.1 would have them: ``headers`` begin with ``host``, and no name has a colon."""

    method: str
    authority: str
    path: str  # with the query; begins with a slash
    headers: tuple[tuple[bytes, bytes], ...]


def read_request(fields: RawHeaders, scheme: str) -> Request:
    """Raises FramingFault (malformed, unsupported) for fields that are no request of a connection of this scheme."""
    pseudo: dict[bytes, bytes] = {}
    rest: list[tuple[bytes, bytes]] = []
    for name, value in fields:
        if not name.startswith(b":"):
            rest.append((name, value))
        elif rest or name in pseudo:
            raise FramingFault("a pseudo-header appears twice, or after the headers")
        else:
            pseudo[name] = value
    if b":protocol" in pseudo:
        raise FramingFault("the protocol of a stream cannot be changed", Code.UNSUPPORTED)
    hosts = [value for name, value in rest if name == b"host"]
    authority = pseudo.pop(b":authority", None)
    if authority is None:
        authority = hosts[0] if hosts else b""
    if any(host != authority for host in hosts):
        raise FramingFault("the Host header names another host than :authority")
    method, given, path = (pseudo.pop(name, b"") for name in _WANTED)
    if pseudo:
        raise FramingFault("there is a pseudo-header that no request has")
    if method != b"CONNECT" and given != scheme.encode():
        raise FramingFault(f"the :scheme of a request on this connection is {scheme}")
    if method != b"CONNECT" and not path.startswith(b"/"):
        raise FramingFault("the :path does not begin with a slash", Code.UNSUPPORTED)
    headers = ((b"host", authority), *(pair for pair in rest if pair[0] != b"host"))
    return Request(method.decode("latin-1"), authority.decode("latin-1"), path.decode("latin-1"), headers)


class FrameWatch:
    """Follows the frames of a connection, preface first, without keeping their payloads."""

    def __init__(self) -> None:
        self._skip = len(PREFACE)
        self._head = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames whose heads are now whole. Raises FramingFault at one that is longer than any may be."""
        at = 0
        while at < len(data):
            if self._skip:
                passed = min(self._skip, len(data) - at)
                self._skip -= passed
                at += passed
                continue
            wanted = _HEAD - len(self._head)
            self._head += data[at : at + wanted]
            at += wanted
            if len(self._head) == _HEAD:
                length = int.from_bytes(self._head[:3], "big")
                kind, flags = self._head[3], self._head[4]
                self._head.clear()
                self._skip = length
                if length > MAX_FRAME:
                    raise FramingFault("a frame is longer than the sidecar takes")
                yield Frame(kind, flags, length)
