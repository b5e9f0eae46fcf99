"""An authority in memory, a tool server that writes down what it gets, and a client with a credential: real
TLS between.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from taskgrant.errors import Refused
from taskgrant.guard.config import GuardConfig
from taskgrant.guard.server import serve
from taskgrant.identity import contexts, csr, spiffe
from taskgrant.model.codes import Code
from taskgrant.model.credential import Enrolled
from taskgrant.model.event import Cursor, Event, EventKind
from taskgrant.model.json import JsonObject
from taskgrant.model.ports import LeafProfile
from taskgrant.model.time import Instant
from tests.identity.support import DOMAIN, Credential, Domain

SERVER_NAME = spiffe.guard_dns(DOMAIN, "mail")
VERSION = "2025-11-25"


@dataclass
class TestAuthority:
    """Signs with a ``Domain``; its events are what a test says, in order, and heartbeats on demand."""

    __test__ = False

    domain: Domain
    epoch: str = "epoch-1"
    seq: int = 0
    guard_life: float = 3600.0
    queue: asyncio.Queue[Event | None] = field(default_factory=asyncio.Queue)
    asked_after: list[Cursor | None] = field(default_factory=list)
    enrolments: int = 0
    acknowledged: asyncio.Queue[Cursor] = field(default_factory=asyncio.Queue)
    revoked: dict[str, list[str]] = field(default_factory=dict)

    async def events(self, after: Cursor | None, subscriber: str | None = None) -> AsyncIterator[Event]:
        assert subscriber is not None
        self.asked_after.append(after)
        if after is None or after.epoch != self.epoch:
            yield self._event(EventKind.SNAPSHOT, {"revoked": self.revoked})
        while (event := await self.queue.get()) is not None:
            yield event

    async def acknowledge(self, subscriber: str, cursor: Cursor) -> None:
        self.acknowledged.put_nowait(cursor)

    async def enrol(self, server: str, request: bytes) -> Enrolled:
        self.enrolments += 1
        now = self.domain.clock.now()
        until = Instant(now + self.guard_life)
        profile = LeafProfile(
            spiffe.guard_id(DOMAIN, server),
            Instant(now - 60),
            until,
            1000 + self.enrolments,
            (spiffe.guard_dns(DOMAIN, server),),
        )
        chain = self.domain.signer.certificate(profile, csr.read_csr(request))
        jwks: Any = self.domain.signer.jwks()
        return Enrolled(server, chain, self.domain.signer.bundle(), jwks, until)

    def say(self, kind: EventKind, body: JsonObject | None = None) -> Cursor:
        if kind is not EventKind.HEARTBEAT:
            self.seq += 1
        event = self._event(kind, body or {})
        self.queue.put_nowait(event)
        return event.cursor

    async def revoke(self, **named: list[str]) -> None:
        """Returns when the guard has acknowledged."""
        cursor = self.say(EventKind.REVOCATION, {"reason": "a test", **named})
        while await self.acknowledged.get() < cursor:
            pass

    def _event(self, kind: EventKind, body: JsonObject) -> Event:
        return Event(Cursor(self.epoch, self.seq), kind, self.domain.clock.now(), body)


@dataclass
class UnwillingAuthority(TestAuthority):
    """Signs nothing."""

    __test__ = False

    asked: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def enrol(self, server: str, request: bytes) -> Enrolled:
        self.asked.put_nowait(server)
        raise Refused(Code.FORBIDDEN, "not you")


@dataclass
class ToolServer:
    """Writes down each request. ``/mcp`` answers JSON, or streams when the tool is ``slow`` until it is told
    to go on.
    """

    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    arrived: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    broken: asyncio.Event = field(
        default_factory=asyncio.Event
    )  # a stream of ours is over or lost its reader
    hand_out: str | None = None  # the session to answer with
    url: str = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((request.method, request.path, headers, body))
        self.arrived.put_nowait(request.method)
        if b'"slow"' in body:
            return await self._stream(request)
        if b'"silent"' in body:
            try:
                await asyncio.Event().wait()
            finally:
                self.broken.set()
        if b'"large"' in body:
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(64):
                await response.write(bytes(2**20))
            self.broken.set()
            return response
        if b'"half"' in body and request.transport is not None:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            await response.write(b"data: one\n\n")
            request.transport.close()
        if b'"reset"' in body and request.transport is not None:
            request.transport.abort()
        answer = {"Mcp-Session-Id": self.hand_out} if self.hand_out else {}
        answer["Set-Cookie"] = "a=b"
        return web.json_response({"jsonrpc": "2.0", "id": 1, "result": {"content": []}}, headers=answer)

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await response.write(b"data: one\n\n")
            await asyncio.Event().wait()
        finally:
            self.broken.set()
        return response


@asynccontextmanager
async def tool_server(path: str | None = None) -> AsyncIterator[ToolServer]:
    tools = ToolServer()
    runner = web.ServerRunner(web.Server(tools.handle, handler_cancellation=True), shutdown_timeout=0)
    await runner.setup()
    site = web.UnixSite(runner, path) if path else web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    tools.url = f"unix://{path}:/mcp" if path else f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
    try:
        yield tools
    finally:
        await runner.cleanup()


@asynccontextmanager
async def guard(authority: TestAuthority, upstream: str | None, **changed: object) -> AsyncIterator[str]:
    """A running guard; its URL."""
    told: dict[str, Any] = {
        "server": "mail",
        "trust_domain": DOMAIN,
        "listen": "127.0.0.1:0",
        "upstream": upstream,
        "staleness_seconds": 60.0,
        **changed,
    }
    ready, bound = asyncio.Event(), list[tuple[str, int]]()
    clock = authority.domain.clock
    serving = asyncio.create_task(
        serve(GuardConfig(**told), authority, ready, clock=clock, bound=bound.append)
    )
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        waiting.cancel()
        serving.result()
    try:
        yield f"https://127.0.0.1:{bound[0][1]}/mcp"
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


@dataclass
class Client:
    """Sends as a sidecar would, and as it should not."""

    session: aiohttp.ClientSession
    url: str
    credential: Credential

    def headers(self, token: str | None = None, **more: str) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {token or self.credential.token}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": VERSION,
            **{name.replace("_", "-"): value for name, value in more.items()},
        }

    def call(
        self, tool: str = "send_message", token: str | None = None, **headers: str
    ) -> "aiohttp.client._RequestContextManager":
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}}
        return self.post(json.dumps(body).encode(), self.headers(token, **headers))

    def list(self, **headers: str) -> "aiohttp.client._RequestContextManager":
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        return self.post(json.dumps(body).encode(), self.headers(**headers))

    def post(self, body: bytes, headers: dict[str, str]) -> "aiohttp.client._RequestContextManager":
        return self.session.post(self.url, data=body, headers=headers, server_hostname=SERVER_NAME)

    async def refused(self, *arguments: str, **more: str) -> tuple[int, str]:
        """The status and code of a refusal."""
        async with self.call(*arguments, **more) as answer:
            return answer.status, await code(answer)


async def code(answer: aiohttp.ClientResponse) -> str:
    assert answer.content_type == "application/problem+json", await answer.text()
    return str((await answer.json(content_type=None))["code"])


@asynccontextmanager
async def client(url: str, credential: Credential, bundle: bytes) -> AsyncIterator[Client]:
    context = contexts.client_context(credential.chain, credential.key, bundle)
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Client(session, url, credential)
