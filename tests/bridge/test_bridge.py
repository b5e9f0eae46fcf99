"""The bridge beside gateways as sidecars are not: there is none, it breaks off, it says strange things."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from taskgrant.bridge.bridge import Bridge
from taskgrant.bridge.gateway import Gateway
from tests.e2e.processes import free_port

LIMIT = 1000
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Talk:
    """What a client holds: lines to the bridge and from it."""

    def __init__(self, source: asyncio.StreamReader, told: asyncio.StreamReader) -> None:
        self._source = source
        self._told = told

    def say(self, method: str, rpc_id: Any = 1, params: Any = None) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        self.write(json.dumps(message if rpc_id is None else {**message, "id": rpc_id}).encode() + b"\n")

    def write(self, data: bytes) -> None:
        self._source.feed_data(data)

    def close(self) -> None:
        self._source.feed_eof()

    async def heard(self) -> Any:
        async with asyncio.timeout(20):
            return json.loads(await self._told.readline())

    async def refused(self) -> tuple[Any, str]:
        message = await self.heard()
        return message["id"], message["error"]["data"]["code"]


@asynccontextmanager
async def bridged(url: str) -> AsyncIterator[tuple[Talk, asyncio.Task[None]]]:
    source, told = asyncio.StreamReader(), asyncio.StreamReader()
    ours, theirs = await pair(told)
    async with Gateway(url) as gateway:
        running = asyncio.create_task(Bridge(gateway, ours, LIMIT).run(source))
        try:
            yield Talk(source, told), running
        finally:
            running.cancel()
            await asyncio.wait([running])
    ours.close()
    theirs.close()


async def pair(told: asyncio.StreamReader) -> tuple[asyncio.StreamWriter, asyncio.BaseTransport]:
    """A socket to write to, whose other end fills ``told``."""
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    theirs, _ = await loop.create_connection(lambda: asyncio.StreamReaderProtocol(told), sock=other)
    _, writer = await asyncio.open_connection(sock=one)
    return writer, theirs


@asynccontextmanager
async def gateway(handler: Handler) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/desk/mcp"
    finally:
        await runner.cleanup()


async def test_without_a_sidecar_each_request_is_told_so() -> None:
    async with bridged(f"http://127.0.0.1:{free_port()}/desk/mcp") as (talk, running):
        talk.say("initialize", 1)
        assert await talk.refused() == (1, "upstream_unreachable")
        talk.say("notifications/initialized", None)
        talk.say("tools/list", "two")
        assert await talk.refused() == ("two", "upstream_unreachable")
        talk.close()
        await running


async def test_an_answer_that_breaks_off_or_never_comes_is_an_unknown_outcome() -> None:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        rpc_id = (await request.json())["id"]
        await response.write(
            b'data: {"jsonrpc": "2.0", "id": 99, "result": {}}\n\n: nothing\n\ndata: what\n\n'
        )
        await response.write(b'data: {"jsonrpc": "2.0", "method": "notifications/progress"}\n\n')
        if rpc_id == 2 and request.transport is not None:
            request.transport.abort()
        return response

    async with gateway(handle) as url, bridged(url) as (talk, _):
        for rpc_id in (1, 2):
            talk.say("tools/list", rpc_id)
            assert (await talk.heard())["method"] == "notifications/progress"
            assert await talk.refused() == (rpc_id, "outcome_unknown")


async def test_a_request_is_answered_once() -> None:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        answer = b'data: {"jsonrpc": "2.0", "id": 1, "result": {}}\n\n'
        last = b'data: {"jsonrpc": "2.0", "method": "last"}\n\n'
        return web.Response(body=answer * 3 + last, content_type="text/event-stream")

    async with gateway(handle) as url, bridged(url) as (talk, _):
        talk.say("tools/list")
        assert await talk.heard() == {"jsonrpc": "2.0", "id": 1, "result": {}}
        assert (await talk.heard())["method"] == "last"


async def test_a_redirect_is_not_followed() -> None:
    seen: list[str] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with gateway(handle) as url, bridged(url) as (talk, _):
        talk.say("tools/list")
        assert await talk.refused() == (1, "upstream_unreachable")
        assert seen == ["/desk/mcp"]


async def test_a_session_is_kept_listened_for_and_ended() -> None:
    seen: list[tuple[str, str | None, str | None]] = []
    listening = asyncio.Event()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        session, version = (request.headers.get(f"Mcp-{name}") for name in ("Session-Id", "Protocol-Version"))
        seen.append((request.method, session, version))
        if request.method == "GET":
            listening.set()
            return web.Response(
                body=b'data: {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}\n\n',
                content_type="text/event-stream",
            )
        if request.method == "DELETE":
            return web.Response(status=204)
        message = await request.json()
        if "id" not in message:
            return web.Response(status=202)
        result = {"protocolVersion": "2025-11-25"} if message["method"] == "initialize" else {}
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        return web.json_response(answer, headers={"Mcp-Session-Id": "s-1"})

    async with gateway(handle) as url, bridged(url) as (talk, running):
        talk.say("initialize", 1)
        assert (await talk.heard())["id"] == 1
        await listening.wait()
        assert (await talk.heard())["method"] == "notifications/tools/list_changed"
        listening.clear()
        await listening.wait()  # the stream broke off and is opened again
        talk.say("tools/list", 2)
        while (await talk.heard()).get("id") != 2:
            pass
        talk.close()
        await running
    assert seen[0] == ("POST", None, None)
    assert {one[1:] for one in seen[1:]} == {("s-1", "2025-11-25")}
    assert seen[-1][0] == "DELETE"


async def test_a_cancellation_ends_the_requests_own_connection() -> None:
    begun, left = asyncio.Event(), asyncio.Event()
    notices: list[Any] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        message = await request.json()
        if "id" not in message:
            notices.append(message["method"])
            return web.Response(status=202)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        begun.set()
        transport = request.transport
        assert transport is not None
        while not transport.is_closing():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        left.set()
        return response

    async with gateway(handle) as url, bridged(url) as (talk, _), asyncio.timeout(20):
        meta = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
        for sent in ({}, meta):
            talk.say("tools/list", 5, sent)
            await begun.wait()
            talk.say("notifications/cancelled", None, {"requestId": "5", **sent})
            talk.say("notifications/cancelled", None, {"requestId": 5, **sent})
            await left.wait()
            begun.clear()
            left.clear()
        # Without sessions, that the connection ends is all that a server is told.
        assert notices == ["notifications/cancelled"] * 2


async def test_requests_at_once_are_bounded_and_the_client_can_go_on() -> None:
    go_on = asyncio.Event()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        message = await request.json()
        await go_on.wait()
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": {}})

    async with gateway(handle) as url, bridged(url) as (talk, _):
        for rpc_id in range(257):
            talk.say("tools/list", rpc_id)
        assert await talk.refused() == (256, "overloaded")
        go_on.set()
        assert {(await talk.heard())["id"] for _ in range(256)} == set(range(256))


async def test_a_line_beyond_the_limit_is_refused_and_the_next_is_read() -> None:
    async with bridged(f"http://127.0.0.1:{free_port()}/desk/mcp") as (talk, _):
        talk.write(b"x" * (LIMIT + 1))
        talk.write(b"\n")
        assert (await talk.heard())["error"]["message"] == "a message of more than 1000 bytes"
        talk.say("ping")
        assert await talk.refused() == (1, "upstream_unreachable")
