"""The session that opa-python-client sends through: HTTP/1.1 on a Unix socket, and no more of it than OPA speaks.

A decision is on the path of every call, and a general HTTP client would take longer over it than OPA does. What is
here is what that library uses of aiohttp's ``ClientSession``: ``request`` (with ``json=``), ``close``, ``closed``; and
of its response: ``status``, ``raise_for_status``, ``json``, ``release``. One request is in flight on a connection,
idle connections are kept, nothing is sent twice.

Read is (RFC 9112): a status line, then a body with Content-Length or in chunks without trailers, which is what Go's
server writes; anything else raises ``ValueError``, and a connection that ends too early ``ConnectionError``.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

_HEAD = b"%b %b HTTP/1.1\r\nHost: opa\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_MAX_HEAD = 16 * 1024
_MAX_BODY = 16 * 1024 * 1024
_MAX_IDLE = 64
_EMPTY: Final = b""


class UnixSession:
    """``on_error`` makes an exception of a status other than 200 and its body. Use in one event loop."""

    def __init__(self, socket: Path, on_error: Callable[[int, bytes], Exception]) -> None:
        self._path = str(socket)
        self._on_error = on_error
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self.closed = False

    async def request(self, method: str, url: str, *, json: Any) -> "Response":
        """Raises OSError when OPA cannot be reached or breaks off; ValueError and TypeError for what is no JSON."""
        body = _ENCODER.encode(json).encode("ascii")
        target = "/" + url.partition("://")[2].partition("/")[2]
        connection = self._take() or await self._connect()
        self._busy.add(connection)
        try:
            status, answer = await connection.ask(
                _HEAD % (method.encode("ascii"), target.encode("ascii"), len(body), body)
            )
        except BaseException:
            # Also when the deadline passes: the answer that is still to come is no other question's.
            connection.abort()
            raise
        finally:
            self._busy.discard(connection)
        if connection.reusable and len(self._idle) < _MAX_IDLE and not self.closed:
            self._idle.append(connection)
        else:
            connection.abort()
        return Response(status, answer, self._on_error)

    async def close(self) -> None:
        self.closed = True
        for connection in (*self._idle, *self._busy):
            connection.abort()
        self._idle.clear()

    def _take(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
        return None

    async def _connect(self) -> "_Connection":
        _, connection = await asyncio.get_running_loop().create_unix_connection(_Connection, self._path)
        return connection


class Response:
    """An answer, read to its end."""

    __slots__ = ("_body", "_on_error", "status")

    def __init__(self, status: int, body: bytes, on_error: Callable[[int, bytes], Exception]) -> None:
        self.status = status
        self._body = body
        self._on_error = on_error

    def raise_for_status(self) -> None:
        if self.status != 200:
            raise self._on_error(self.status, self._body)

    async def json(self) -> Any:
        return json.loads(self._body)

    async def release(self) -> None:
        """Nothing to do: the connection was given back when the answer had been read."""


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._received = _EMPTY
        self.reusable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the connection ended before the answer"))

    def abort(self) -> None:
        self.reusable = False
        self._transport.abort()

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        self._answer = asyncio.get_running_loop().create_future()
        self._received = _EMPTY
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None or answer.done():
            self.abort()  # nobody asked for this
            return
        self._received = self._received + data if self._received else data
        try:
            parsed = _parse(self._received)
        except ValueError as fault:
            self.reusable = False
            answer.set_exception(fault)
            return
        if parsed is not None:
            status, body, self.reusable = parsed
            answer.set_result((status, body))


def _parse(received: bytes) -> tuple[int, bytes, bool] | None:
    """Status, body, and whether the connection can be used again; None while some of it is missing."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        if len(received) > _MAX_HEAD:
            raise ValueError("the head of OPA's answer is too long")
        return None
    line, *fields = received[:end].split(b"\r\n")
    version, _, rest = line.partition(b" ")
    if version != b"HTTP/1.1" or not rest[:3].isdigit():
        raise ValueError("OPA's answer is no HTTP/1.1")
    headers = {}
    for one in fields:
        name, _, value = one.partition(b":")
        headers[name.lower()] = value.strip()
    if headers.get(b"transfer-encoding") == b"chunked":
        body, stop = _chunks(received, end + 4)
    else:
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or int(length) > _MAX_BODY:
            raise ValueError("OPA's answer has no length, or is too long")
        stop = end + 4 + int(length)
        body = received[end + 4 : stop] if stop <= len(received) else None
    if body is None:
        return None
    whole = stop == len(received)  # what comes after it nobody asked for
    return int(rest[:3]), body, whole and headers.get(b"connection", b"").lower() != b"close"


def _chunks(received: bytes, at: int) -> tuple[bytes | None, int]:
    """The body and where it ends; None while some of it is missing."""
    pieces = []
    while True:
        line_end = received.find(b"\r\n", at)
        if line_end < 0:
            break
        size = int(received[at:line_end], 16)
        at = line_end + 2 + size + 2
        if not 0 <= size <= _MAX_BODY or len(received) > 2 * _MAX_BODY:
            raise ValueError("OPA's answer is too long")
        if at > len(received):
            break
        pieces.append(received[line_end + 2 : at - 2])
        if size == 0:
            return b"".join(pieces), at
    return None, at


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_plain)
