"""A closed-loop load: so many connections, each of which sends its next call when it has the answer to the last one.

It speaks HTTP/1.1 on the transport, with requests that are made beforehand but for the call's number, so that what is
measured is the other side. Every answer is checked: its status, and that it is the answer to this very call.
"""

import asyncio
import json
import socket
import ssl
import time
from dataclasses import dataclass
from typing import cast

TOOL = "open_orders"
VERSION = "2026-07-28"

_DIGITS = b"%09d"
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Target:
    """Where calls go. ``context`` and ``hostname`` only where it speaks TLS; ``token`` only where one is needed;
    ``authority`` where it is not the address that is dialled; ``tunnel`` where CONNECT has to name it first.
    """

    name: str
    port: int
    path: str
    context: ssl.SSLContext | None = None
    hostname: str | None = None
    token: str | None = None
    authority: str | None = None
    tunnel: str | None = None

    def request(self) -> bytes:
        """A whole ``tools/call`` with two places for the call's number (nine digits, so that no length changes)."""
        arguments = {
            "customer": "C-000000000",
            "limit": 20,
            "since": "2026-01-31",
            "note": "quarterly review",
        }
        message = {
            "jsonrpc": "2.0",
            "id": "000000000",
            "method": "tools/call",
            "params": {
                "name": TOOL,
                "arguments": arguments,
                "_meta": {"io.modelcontextprotocol/protocolVersion": VERSION},
            },
        }
        body = json.dumps(message).encode()
        authority = self.authority or f"127.0.0.1:{self.port}"
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n"
            f"accept: application/json, text/event-stream\r\nmcp-protocol-version: {VERSION}\r\n"
            f"mcp-method: tools/call\r\nmcp-name: {TOOL}\r\ncontent-length: {len(body)}\r\n"
        )
        if self.token is not None:
            head += f"authorization: Bearer {self.token}\r\n"
        whole = head.encode() + b"\r\n" + body
        return whole.replace(b"%", b"%%").replace(b"000000000", _DIGITS)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one load saw. ``latencies`` in seconds, sorted; ``seconds`` from the first call to the last answer."""

    latencies: list[float]
    seconds: float

    @property
    def calls(self) -> int:
        return len(self.latencies)

    @property
    def rate(self) -> float:
        return self.calls / self.seconds

    def percentile(self, share: float) -> float:
        return self.latencies[min(self.calls - 1, int(self.calls * share))]


class LoadFault(Exception):
    """An answer was not the one that a permitted call gets, or a connection broke."""


class Load:
    """``calls`` calls over ``connections`` connections, and no new one once ``seconds`` have passed."""

    _numbers = 0  # no two calls of a run have the same

    def __init__(self, target: Target, connections: int, calls: int, seconds: float) -> None:
        self.target = target
        self.template = target.request()
        self._connections = connections
        self._left = calls
        self._seconds = seconds
        self._deadline = 0.0
        self._running = connections
        self.latencies: list[float] = []

    async def run(self) -> Measured:
        """Raises ``LoadFault`` at the first wrong answer."""
        loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = loop.create_future()
        clients = []
        for _ in range(self._connections):
            _, client = await loop.create_connection(
                lambda: _Client(self),
                sock=await _dial(self.target),
                ssl=self.target.context,
                server_hostname=self.target.hostname,
            )
            clients.append(client)
        try:
            began = time.perf_counter()
            self._deadline = began + self._seconds
            for client in clients:
                client.next()
            # A call that gets no answer at all must not keep us here.
            async with asyncio.timeout(self._seconds + 10):
                await self.done
            seconds = time.perf_counter() - began
        except TimeoutError as late:
            raise LoadFault(f"{self.target.name}: calls got no answer") from late
        finally:
            for client in clients:
                client.close()
        return Measured(sorted(self.latencies), seconds)

    def number(self) -> int | None:
        """The next call's number; None when there is to be none."""
        if self._left <= 0 or time.perf_counter() > self._deadline:
            self._running -= 1
            if not self._running and not self.done.done():
                self.done.set_result(None)
            return None
        self._left -= 1
        Load._numbers += 1
        return Load._numbers

    def fail(self, what: str) -> None:
        if not self.done.done():
            self.done.set_exception(LoadFault(f"{self.target.name}: {what}"))


async def _dial(target: Target) -> socket.socket:
    loop = asyncio.get_running_loop()
    sock = socket.create_connection(("127.0.0.1", target.port))
    sock.setblocking(False)
    if target.tunnel is not None:
        asked = f"CONNECT {target.tunnel} HTTP/1.1\r\nhost: {target.tunnel}\r\n\r\n"
        await loop.sock_sendall(sock, asked.encode())
        answer = await loop.sock_recv(sock, 4096)
        if not answer.startswith(b"HTTP/1.1 200 "):
            sock.close()
            raise LoadFault(f"{target.name}: no tunnel: {answer!r}")
    return sock


class _Client(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._sent = 0.0
        self._expected = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.fail(f"a connection was closed: {exc}")

    def close(self) -> None:
        self._transport.abort()

    def next(self) -> None:
        number = self._load.number()
        if number is None:
            return
        self._expected = b"C-" + _DIGITS % number
        self._buffer = b""
        self._sent = time.perf_counter()
        self._transport.write(self._load.template % (number, number))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        end = buffer.find(_HEAD_END)
        if end < 0:
            return
        head = buffer[: end + 2].lower()
        at = head.find(b"\r\ncontent-length:")
        if at < 0:
            self._load.fail(f"an answer without a length: {head!r}")
            return
        length = int(head[at + 17 : head.index(b"\r\n", at + 17)])
        if len(buffer) < end + 4 + length:
            return
        self._load.latencies.append(time.perf_counter() - self._sent)
        if not buffer.startswith(b"HTTP/1.1 200 ") or self._expected not in buffer:
            self._load.fail(f"a wrong answer: {buffer!r}")
            return
        self.next()
