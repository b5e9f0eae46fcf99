"""Tool servers that fail in every way: one upstream request per permit, and an answer that says what is known."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from taskgrant.client import TaskgrantClient
from taskgrant.model.grant import Grant
from taskgrant.model.task import Started
from tests.e2e.tools import (
    EVENT_STREAM,
    HTTP_TOOLS,
    PLAIN,
    Ask,
    World,
    call,
    chunk,
    echo,
    event,
    get,
    grant,
    initialize,
    legacy_call,
    progress,
    send,
    whole,
    world,
)
from tests.wire.support import SOON, Script

IDEMPOTENT = [get(), send("PUT", "/put/7", {"a": 1}), Ask("DELETE", f"/{PLAIN}/remove/7")]
ALL = [*IDEMPOTENT, send("POST", "/write", {"a": 1})]
methods = pytest.mark.parametrize("asked", ALL, ids=lambda asked: asked.method)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, opa_binary: Any) -> Any:
    with world(tmp_path_factory.mktemp("faults"), opa_binary) as made:
        yield made


@pytest.fixture
async def client(running: World) -> AsyncIterator[TaskgrantClient]:
    async with running.orchestrator as client:
        yield client


@asynccontextmanager
async def started(client: TaskgrantClient, server: str = PLAIN, *tools: str) -> AsyncIterator[Started]:
    asked = [grant(server, *(tools or HTTP_TOOLS), max_uses=5)]
    task = await client.start({"purpose": "faults", "grants": asked})
    try:
        yield task
    finally:
        await client.complete(task.task.id)


async def used(client: TaskgrantClient, task: Started) -> int:
    made: Grant = await client.show_grant(task.grants[0].id)
    return made.used


def then(answer: bytes, *, abort: bool = True) -> Script:
    """Takes one request, answers so, and drops the connection (a reset), or ends it in good order."""

    async def script(peer: Any, tool: Any) -> None:
        await tool.take(peer)
        if answer:
            await peer.send(answer)
        if abort:
            peer.drop()
        else:
            peer.writer.close()
            await peer.gone()

    return script


@methods
async def test_nobody_listens(running: World, client: TaskgrantClient, asked: Ask) -> None:
    async with started(client) as task:
        answered = await running.answer(asked, task.handle)
        assert (answered.status, answered.code) == (502, "upstream_unreachable")
        assert await used(client, task) == 0


async def test_a_server_that_nobody_vouches_for(running: World, client: TaskgrantClient) -> None:
    """One that shows the certificate of another server is not spoken to."""

    async def script(peer: Any, tool: Any) -> None:
        await tool.take(peer)

    context = running.context
    running.context = lambda name: context("modern")  # type: ignore[method-assign]
    try:
        async with running.tool(PLAIN, script) as tool, started(client) as task:
            assert (await running.answer(get(), task.handle)).code == "upstream_unreachable"
            assert (tool.requests, await used(client, task)) == ([], 0)
    finally:
        running.context = context  # type: ignore[method-assign]


@methods
@pytest.mark.parametrize("abort", [True, False], ids=["reset", "closed"])
async def test_a_connection_that_ends_before_an_answer(
    running: World, client: TaskgrantClient, asked: Ask, abort: bool
) -> None:
    """Whether the tool has done it is unknown, so it is not sent again, whatever the method."""
    async with running.tool(PLAIN, then(b"", abort=abort)) as tool, started(client) as task:
        answered = await running.answer(asked, task.handle)
        assert (answered.status, answered.code) == (504, "outcome_unknown")
        assert (len(tool.requests), tool.connections, await used(client, task)) == (1, 1, 1)


@methods
async def test_a_kept_connection_that_the_server_closes_under_a_request(
    running: World, client: TaskgrantClient, asked: Ask
) -> None:
    """What HTTP clients like to send again by themselves."""

    async def once(peer: Any, tool: Any) -> None:
        await tool.take(peer)
        await peer.send(whole(b"{}", "Content-Type: application/json"))
        await tool.take(peer)
        peer.drop()

    async with running.tool(PLAIN, once) as tool, started(client) as task:
        assert (await running.answer(get(), task.handle)).code == "allowed"
        assert (await running.answer(asked, task.handle)).code == "outcome_unknown"
        assert (len(tool.requests), tool.connections, await used(client, task)) == (2, 1, 2)
        assert (await running.answer(get(), task.handle)).code == "allowed"  # on a new one


async def test_a_kept_connection_that_the_server_has_closed(running: World, client: TaskgrantClient) -> None:
    async def once(peer: Any, tool: Any) -> None:
        await tool.take(peer)
        await peer.send(whole(b"{}", "Content-Type: application/json"))
        peer.drop()

    async with running.tool(PLAIN, once) as tool, started(client) as task:
        for number in (1, 2, 3):
            tool.over.clear()
            answered = await running.answer(get(), task.handle)
            # The close may not have been seen yet when the next call is sent: then its outcome is unknown.
            assert answered.code in ("allowed", "outcome_unknown")
            await asyncio.wait_for(tool.over.wait(), SOON)
            assert len(tool.requests) <= number


async def test_a_slow_server_is_waited_for(running: World, client: TaskgrantClient) -> None:
    async def slow(peer: Any, tool: Any) -> None:
        await tool.take(peer)
        for byte in whole(b'{"slow":true}', "Content-Type: application/json"):
            await peer.send(bytes([byte]))
            await asyncio.sleep(0.005)

    async with running.tool(PLAIN, slow) as tool, started(client) as task:
        answered = await running.answer(get(), task.handle)
        assert (answered.body, len(tool.requests)) == (b'{"slow":true}', 1)


CUT_SHORT = {
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b'{"a":'),
    "content-length": b'Content-Length: 100\r\n\r\n{"a":',
    "half a head": b"X-Half",
}


@pytest.mark.parametrize("abort", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("rest", CUT_SHORT)
async def test_an_answer_that_is_cut_short(
    running: World, client: TaskgrantClient, rest: str, abort: bool
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + CUT_SHORT[rest]
    async with running.tool(PLAIN, then(answer, abort=abort)) as tool, started(client) as task:
        answered = await running.answer(get(), task.handle)
        assert (answered.status, answered.code) == (504, "outcome_unknown")
        assert (len(tool.requests), await used(client, task)) == (1, 1)


@pytest.mark.parametrize("abort", [True, False], ids=["reset", "closed"])
async def test_a_stream_that_breaks_off(running: World, client: TaskgrantClient, abort: bool) -> None:
    answer = EVENT_STREAM + chunk(event(progress(1)) + event(progress(2))[:15])
    async with (
        running.tool("modern", then(answer, abort=abort)) as tool,
        started(client, "modern", "work") as task,
    ):
        answered = await running.answer(call(), task.handle)
        assert (answered.whole, answered.code) == (True, "outcome_unknown")
        assert "progress" in json.dumps(answered.events[0])
        assert answered.events[-1]["id"] == 1
        assert (len(tool.requests), await used(client, task)) == (1, 1)


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
)
async def test_a_redirect_is_not_followed(running: World, client: TaskgrantClient, status: str) -> None:
    async with running.tool("modern", echo) as elsewhere:
        target = f"https://127.0.0.1:{running.ports['modern']}/elsewhere"
        answer = whole(b"", f"Location: {target}", status=status)
        async with running.tool(PLAIN, then(answer, abort=False)) as tool, started(client) as task:
            answered = await running.answer(get(), task.handle)
            assert answered.code == "unsupported"
            assert "location" not in answered.headers
            assert target.encode() not in answered.body
            assert (len(tool.requests), elsewhere.connections) == (1, 0)


@pytest.mark.parametrize("server", [PLAIN, "modern"])
@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "407 Proxy Authentication Required"])
async def test_a_challenge_does_not_reach_the_agent(
    running: World, client: TaskgrantClient, status: str, server: str
) -> None:
    """It would start the client's own OAuth flow."""
    challenge = (
        'WWW-Authenticate: Bearer resource_metadata="https://evil.example/"',
        "Proxy-Authenticate: Basic",
    )
    answer = whole(b'{"error":"invalid_token"}', *challenge, "Content-Type: application/json", status=status)
    async with (
        running.tool(server, then(answer, abort=False)) as tool,
        started(client, *([server, "work"] if server != PLAIN else [])) as task,
    ):
        answered = await running.answer(get() if server == PLAIN else call(), task.handle)
        assert answered.status not in (401, 407)
        assert "www-authenticate" not in answered.headers
        assert "proxy-authenticate" not in answered.headers
        assert b"evil.example" not in answered.body
        assert len(tool.requests) == 1
        if not status.startswith("407"):
            assert answered.code == "credential_refused"


async def test_headers_that_are_the_servers_business(running: World, client: TaskgrantClient) -> None:
    headers = (
        "Content-Type: application/json", "Set-Cookie: a=b", "Set-Cookie2: a=b", "Location: /x", "Refresh: 0; /x",
        "Server: secret/1.0", "Alt-Svc: h2=\":1\"", "Link: </x>; rel=preload", "X-Internal: 10.0.0.1",
        "Clear-Site-Data: *", "Strict-Transport-Security: max-age=1",
    )  # fmt: skip
    async with running.tool(PLAIN, then(whole(b"{}", *headers), abort=False)), started(client) as task:
        answered = await running.answer(get(), task.handle)
        assert answered.code == "allowed"
        assert set(answered.headers) <= {"content-type", "content-length", "date", "server", "cache-control"}
        assert "secret" not in answered.headers["server"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip"])
async def test_an_answer_that_is_encoded(running: World, client: TaskgrantClient, encoding: str) -> None:
    """None was asked for, and lists could not be filtered in it."""
    body = gzip.compress(b'{"secret":1}')
    answer = whole(body, f"Content-Encoding: {encoding}", "Content-Type: application/json")
    async with running.tool(PLAIN, then(answer, abort=False)) as tool, started(client) as task:
        answered = await running.answer(get(), task.handle)
        assert answered.code in ("unsupported", "outcome_unknown")
        assert body not in answered.body
        assert b"accept-encoding: identity" in tool.requests[0].lower()
        assert (len(tool.requests), await used(client, task)) == (1, 1)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=["no http", "two lengths", "length and chunks", "upgrade", "endless head"],
)
async def test_an_answer_that_is_not_http(running: World, client: TaskgrantClient, answer: bytes) -> None:
    async with running.tool(PLAIN, then(answer, abort=False)) as tool, started(client) as task:
        answered = await running.answer(get(), task.handle)
        assert answered.code in ("outcome_unknown", "unsupported")
        assert answered.whole
        assert (len(tool.requests), await used(client, task)) == (1, 1)


async def test_bytes_that_nobody_asked_for(running: World, client: TaskgrantClient) -> None:
    """A second answer on a kept connection is not taken for the answer to the next call."""

    async def twice(peer: Any, tool: Any) -> None:
        await tool.take(peer)
        stray = whole(b'{"answer":"of another"}', "Content-Type: application/json")
        await peer.send(whole(b'{"answer":"mine"}', "Content-Type: application/json") + stray)
        with contextlib.suppress(ConnectionError):
            await tool.take(peer)
            await peer.send(whole(b'{"answer":"mine"}', "Content-Type: application/json"))

    async with running.tool(PLAIN, twice) as tool, started(client) as task:
        for number in (1, 2):
            answered = await running.answer(get(), task.handle)
            assert answered.body == b'{"answer":"mine"}'
            assert len(tool.requests) == number


@pytest.mark.parametrize("abort", [True, False], ids=["reset", "closed"])
async def test_a_session_that_is_not_opened(running: World, client: TaskgrantClient, abort: bool) -> None:
    """The call itself was never sent: nothing is unknown, and no use is taken."""
    async with (
        running.tool("legacy", then(b"", abort=abort)) as tool,
        started(client, "legacy", "work") as task,
    ):
        session = (await running.answer(initialize(), task.handle)).headers["mcp-session-id"]
        answered = await running.answer(legacy_call(session), task.handle)
        assert answered.code == "upstream_unreachable"
        assert await used(client, task) == 0
        assert not any(b"tools/call" in request for request in tool.requests)


async def test_a_server_that_comes_back(running: World, client: TaskgrantClient) -> None:
    async with started(client) as task:
        assert (await running.answer(get(), task.handle)).code == "upstream_unreachable"
        async with running.tool(PLAIN, echo):
            assert (await running.answer(get(), task.handle)).code == "allowed"
        assert (await running.answer(get(), task.handle)).code in ("upstream_unreachable", "outcome_unknown")


async def test_nothing_of_it_stays(running: World, client: TaskgrantClient) -> None:
    """After all that, nothing is in flight and nothing is held."""
    live = (
        "taskgrant_live_tasks",
        "taskgrant_live_grants",
        "taskgrant_live_credentials",
        "taskgrant_live_calls",
    )
    seen = await running.metrics()
    assert {name: seen[name] for name in live} == dict.fromkeys(live, 0.0)
