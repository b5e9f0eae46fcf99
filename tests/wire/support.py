"""Real TLS servers that follow a script and record what reaches them, and an upstream to call them with."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from taskgrant.identity.contexts import client_context, server_context
from taskgrant.identity.csr import KeyPair, new_key
from taskgrant.identity.signer import LocalSigner
from taskgrant.model.call import Outbound
from taskgrant.model.credential import Issued
from taskgrant.model.ids import CallId, GrantId, TaskId
from taskgrant.model.ports import LeafProfile
from taskgrant.model.time import Instant
from taskgrant.wire.legs import Leg, Legs
from taskgrant.wire.upstream import HttpUpstream

#: A bound that only a hang reaches.
SOON = 10.0


class SystemClock:
    def now(self) -> Instant:
        return Instant(time.time())


@dataclass
class Trust:
    """A trust domain: certificates for servers and for tasks."""

    signer: LocalSigner = field(default_factory=lambda: LocalSigner.create("example.org", SystemClock()))
    serials: int = 0x1000

    def _leaf(self, uri: str, dns: tuple[str, ...] = ()) -> tuple[KeyPair, bytes, str]:
        now, key = time.time(), new_key()
        self.serials += 1
        profile = LeafProfile(uri, Instant(now - 60), Instant(now + 120), self.serials, dns)
        return key, self.signer.certificate(profile, key.public()), f"{self.serials:x}"

    def server(self) -> ssl.SSLContext:
        key, chain, _ = self._leaf("spiffe://example.org/guard/mail", ("tool.example.org",))
        return server_context(chain, key, self.signer.bundle())

    def issue(self, task: str = "task-1") -> tuple[Issued, ssl.SSLContext]:
        key, chain, serial = self._leaf(f"spiffe://example.org/agent/a/task/{task}/aud/mail")
        issued = Issued(
            TaskId(task),
            "mail",
            chain,
            f"token-{serial}",
            self.signer.bundle(),
            serial,
            "jti",
            (),
            Instant(time.time() + 120),
        )
        return issued, client_context(chain, key, self.signer.bundle())


class Peer:
    """One connection, seen from the tool server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """Head and body of the next request. Raises IncompleteReadError when the connection ends first."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        return head + await self.reader.readexactly(length)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> bytes:
        """What still comes in until the other side is gone."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            return await self.reader.read()
        return b""


Script = Callable[[Peer, "Tool"], Awaitable[None]]


class Tool:
    """A TLS server; ``script`` runs on each connection, ``requests`` is what it was asked, ``late`` what came after."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.late = bytearray()
        self.connections = 0
        self.over = asyncio.Event()
        self.reached = asyncio.Event()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.script(Peer(reader, writer), self)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self.over.set()
            if (transport := writer.transport) is not None:
                transport.abort()


@asynccontextmanager
async def serving(script: Script, context: ssl.SSLContext | None) -> AsyncIterator[Tool]:
    tool = Tool(script)
    server = await asyncio.start_server(tool.serve, "127.0.0.1", 0, ssl=context, limit=1 << 20)
    tool.port = server.sockets[0].getsockname()[1]
    try:
        yield tool
    finally:
        server.close()
        await asyncio.wait_for(server.wait_closed(), SOON)


@dataclass
class Rig:
    """Legs, an upstream, and credentials for it."""

    trust: Trust
    legs: Legs = field(default_factory=lambda: Legs(SystemClock()))
    contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)
    admitted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.upstream = HttpUpstream(
            self.legs, lambda issued, server: (self.contexts[issued.serial], "tool.example.org")
        )

    def issue(self, task: str = "task-1") -> Issued:
        issued, self.contexts[issued.serial] = self.trust.issue(task)
        return issued

    def leg(self, call: str = "call-1", task: str = "task-1", life: float = 600.0) -> Leg:
        return self.legs.open(CallId(call), TaskId(task), "mail", Instant(time.time() + life))

    async def read(
        self,
        tool: Tool,
        issued: Issued,
        out: Outbound | None = None,
        call: str = "call-1",
        grant: str = "grant-1",
    ) -> tuple[int, bytes]:
        """One whole call."""
        body = bytearray()
        async with self.leg(call, issued.task) as leg:
            leg.narrow(GrantId(grant), Instant(time.time() + 600))
            async with self.upstream.send(out or post(tool), issued, leg, self.admit(call)) as reply:
                async for chunk in reply.chunks():
                    body += chunk
                    tool.reached.set()
                return reply.status, bytes(body)

    def admit(self, call: str = "call-1") -> Callable[[], Awaitable[None]]:
        async def admit() -> None:
            self.admitted.append(call)

        return admit


@asynccontextmanager
async def rigged(trust: Trust) -> AsyncIterator[Rig]:
    rig = Rig(trust)
    try:
        yield rig
    finally:
        await asyncio.wait_for(rig.upstream.close(), SOON)


def post(tool: Tool, body: bytes = b"{}", method: str = "POST") -> Outbound:
    return Outbound(
        method, f"https://127.0.0.1:{tool.port}/mcp?a=%2f", (("content-type", "application/json"),), body
    )


def whole(body: bytes, *headers: bytes) -> bytes:
    """An answer with Content-Length."""
    head = b"".join(header + b"\r\n" for header in headers)
    return b"HTTP/1.1 200 OK\r\n" + head + b"content-length: %d\r\n\r\n" % len(body) + body


async def echo(peer: Peer, tool: Tool) -> None:
    """Answers every request of a connection."""
    while True:
        tool.requests.append(await peer.request())
        await peer.send(whole(b'{"ok":true}', b"content-type: application/json"))
