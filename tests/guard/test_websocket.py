"""WebSockets through the guard: a real server behind it, a real client before it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from taskgrant.model.catalogue import Operation, ServerProtocol
from tests.guard.support import SERVER_NAME, Client, TestAuthority, client, guard
from tests.identity.support import Domain

LIVE = Operation("live", "GET", "/rooms/{room}", websocket=True)
SHOW = Operation("show", "GET", "/plain")


@dataclass
class Room:
    """Echoes. ``over`` is set when a WebSocket has ended, however."""

    url: str = ""
    seen: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request.path)
        ours = web.WebSocketResponse()
        await ours.prepare(request)
        try:
            async for message in ours:
                self.seen.append(message.data)
                await ours.send_str(message.data)
        finally:
            self.over.set()
        return ours


@asynccontextmanager
async def opening(
    authority: TestAuthority, domain: Domain, tool: str
) -> AsyncIterator[tuple[Room, Client, str]]:
    """A guard before a room, and who has a grant for a tool."""
    room, app = Room(), web.Application()
    app.router.add_get("/{any:.*}", room.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listening).start()
    upstream = f"http://127.0.0.1:{listening.getsockname()[1]}"
    settings = {"protocol": ServerProtocol.HTTP, "operations": (LIVE, SHOW), "body_limit": 1000}
    credential = domain.credential(grants=(("grant-1", (tool,)),))
    async with (
        guard(authority, upstream, **settings) as url,
        client(url, credential, domain.signer.bundle()) as sidecar,
    ):
        yield room, sidecar, url.removesuffix("/mcp")
    await runner.cleanup()


def connecting(sidecar: Client, url: str) -> "aiohttp.client._WSRequestContextManager":
    headers = {"authorization": f"Bearer {sidecar.credential.token}"}
    return sidecar.session.ws_connect(url, headers=headers, server_hostname=SERVER_NAME)


async def test_what_is_granted_passes_and_a_revocation_cuts_it(
    authority: TestAuthority, domain: Domain
) -> None:
    async with (
        opening(authority, domain, "live") as (room, sidecar, url),
        connecting(sidecar, f"{url}/rooms/7") as ours,
    ):
        await ours.send_str("one")
        assert await ours.receive_str() == "one"
        await authority.revoke(grants=["grant-1"])
        # At the acknowledgement both legs had been aborted.
        assert (await ours.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        assert ours.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE
        await room.over.wait()
        assert room.seen == ["/rooms/7", "one"]


async def test_what_is_too_large_is_cut_with_a_reason(authority: TestAuthority, domain: Domain) -> None:
    async with (
        opening(authority, domain, "live") as (room, sidecar, url),
        connecting(sidecar, f"{url}/rooms/7") as ours,
    ):
        await ours.send_str("x" * 1001)
        told = await ours.receive()
        assert (told.type, told.data) == (aiohttp.WSMsgType.CLOSE, 1009)
        await room.over.wait()
        assert room.seen == ["/rooms/7"]


@pytest.mark.parametrize(("path", "status"), [("/rooms/7", 403), ("/plain", 400)])
async def test_what_is_not_granted_or_no_websocket_reaches_nobody(
    authority: TestAuthority, domain: Domain, path: str, status: int
) -> None:
    async with opening(authority, domain, "show") as (room, sidecar, url):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connecting(sidecar, url + path)
        assert refused.value.status == status
        assert room.seen == []
