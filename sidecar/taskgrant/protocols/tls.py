"""The first message of a TLS client, read without answering it: whom it wants, and what it offers (RFC 8446, section
4.1.2; RFC 6066, section 3; RFC 7301; RFC 9849).

A function of the bytes seen so far. Bytes are judged in order, so more of them never change an answer: whatever way a
hello is cut into reads, the result is the same.

    read_hello(seen) → Partial(needed)    bytes are missing; nothing more can be said below ``needed`` in all
                     → ClientHello        the whole of it, in one or more records
                     → NotHello(reason)   not TLS, or TLS that nobody needs to send: refused, never guessed at

Stricter than TLS asks: one host name of letters, digits, hyphens and underscores, no extension twice, nothing behind
the hello in its last record. Where two readers could disagree about whom a client wants, there is nothing to forward.
"""

import re
from dataclasses import dataclass
from typing import Final

#: Bytes of a hello; with a post-quantum key share they have about 1800.
MAX_HELLO: Final = 16 * 1024
MAX_RECORDS: Final = 64
#: No hello takes more bytes than this, its records' headers included.
MAX_BYTES: Final = MAX_HELLO + 5 * MAX_RECORDS

_RECORD_HEADER: Final = 5
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_MAX_RECORD: Final = 1 << 14
_SERVER_NAME: Final = 0
_ALPN: Final = 16
_ENCRYPTED_CLIENT_HELLO: Final = 0xFE0D
# An address is no name (RFC 6066): the last label is not a number.
_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*(?![0-9]+\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)


@dataclass(frozen=True, slots=True)
class Partial:
    """``needed``: how many bytes there must be, counted from the first, before it is worth asking again."""

    needed: int


@dataclass(frozen=True, slots=True)
class ClientHello:
    """``server_name`` in lower case; None when the client named nobody. ``alpn`` in the client's order.

    ``ech`` says that an encrypted hello is inside, or a dummy of one that looks the same (section 6.2 of RFC 9849): the
    name that is read here may then not be the one that is meant.
    """

    server_name: str | None
    alpn: tuple[str, ...] = ()
    ech: bool = False


@dataclass(frozen=True, slots=True)
class NotHello:
    """``tls`` is False when the bytes are not TLS at all."""

    reason: str
    tls: bool = True


class _Fault(ValueError):
    def __init__(self, reason: str, tls: bool = True) -> None:
        super().__init__(reason)
        self.tls = tls


def read_hello(seen: bytes) -> ClientHello | Partial | NotHello:
    """``seen`` begins with the connection's first byte. Never raises."""
    try:
        found = _message(seen)
        return found if isinstance(found, Partial) else _hello(found)
    except _Fault as fault:
        return NotHello(str(fault), fault.tls)


def _message(seen: bytes) -> "bytes | Partial":
    """The body of the handshake message that the first records hold."""
    message = bytearray()
    at = records = 0
    while True:
        header = seen[at : at + _RECORD_HEADER]
        _check_header(header, first=records == 0)
        if len(header) < _RECORD_HEADER:
            return Partial(at + _RECORD_HEADER)
        records += 1
        if records > MAX_RECORDS:
            raise _Fault("the client's hello is cut into too many records")
        at += _RECORD_HEADER
        length = int.from_bytes(header[3:])
        message += seen[at : at + length]
        total = _total(message)
        if total is not None and len(message) > total:
            raise _Fault("something follows the client's hello in its record")
        if len(seen) < at + length:
            return Partial(at + length)
        at += length
        if len(message) == total:
            return bytes(message[4:])


def _check_header(header: bytes, first: bool) -> None:
    """As far as there is one."""
    if header[:1] and header[0] != _HANDSHAKE:
        raise _Fault("this is no TLS handshake", tls=not first)
    if header[1:2] and header[1] != 3:
        raise _Fault("this is no TLS handshake", tls=not first)
    if len(header) == _RECORD_HEADER and not 0 < int.from_bytes(header[3:]) <= _MAX_RECORD:
        raise _Fault("a TLS record has an impossible length")


def _total(message: bytearray) -> int | None:
    """How long the message is, its header included; None before that can be said."""
    if message[:1] and message[0] != _CLIENT_HELLO:
        raise _Fault("the first handshake message is no client's hello")
    if len(message) < 4:
        return None
    total = 4 + int.from_bytes(message[1:4])
    if total > MAX_HELLO:
        raise _Fault("the client's hello is too large")
    return total


class _Reader:
    """Vectors with their lengths in front (RFC 8446, section 3.4)."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bool__(self) -> bool:
        return bool(self._data)

    def take(self, count: int) -> bytes:
        taken, self._data = self._data[:count], self._data[count:]
        if len(taken) < count:
            raise _Fault("the client's hello is shorter than it says")
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> "_Reader":
        return _Reader(self.take(self.number(size)))

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def end(self) -> None:
        if self._data:
            raise _Fault("the client's hello is longer than it says")


def _hello(body: bytes) -> ClientHello:
    reader = _Reader(body)
    reader.take(2 + 32)  # version and random
    reader.vector(1)  # session
    reader.vector(2)  # cipher suites
    reader.vector(1)  # compression
    extensions: dict[int, _Reader] = {}
    if reader:
        listed = reader.vector(2)
        while listed:
            kind = listed.number(2)
            if kind in extensions:
                raise _Fault("an extension of the client's hello appears twice")
            extensions[kind] = listed.vector(2)
    reader.end()
    return ClientHello(
        _server_name(extensions.get(_SERVER_NAME)),
        _protocols(extensions.get(_ALPN)),
        _ENCRYPTED_CLIENT_HELLO in extensions,
    )


def _server_name(extension: _Reader | None) -> str | None:
    if extension is None:
        return None
    names = extension.vector(2)
    kind, raw = names.number(1), names.vector(2).rest()
    names.end()
    extension.end()
    name = raw.decode("ascii", "replace").lower()
    if kind != 0 or _NAME.fullmatch(name) is None:
        raise _Fault("the server name in the client's hello is no host name")
    return name


def _protocols(extension: _Reader | None) -> tuple[str, ...]:
    if extension is None:
        return ()
    listed = extension.vector(2)
    extension.end()
    protocols = []
    while listed:
        protocols.append(listed.vector(1).rest().decode("latin-1"))
    return tuple(protocols)
