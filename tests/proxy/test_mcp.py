"""MCP in the pipeline: whose session is whose, what is answered here, what goes to the server, what lists tell."""

import asyncio
import json

import pytest

from taskgrant.model.grant import GrantSpec
from tests.proxy.rig import LEGACY, STREAM, chunk, event, plain, spec

HELLO = {
    "protocolVersion": LEGACY,
    "capabilities": {"elicitation": {}},
    "clientInfo": {"name": "c", "version": "1"},
}


def reply(message, head=b""):
    body = json.dumps(message).encode()
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        + head
        + b"content-length: %d\r\n\r\n" % len(body)
        + body
    )


def behaving(method, *answers):
    """The usual server, but for one method: answers in order, the last one again and again."""
    left = list(answers)

    async def behave(peer, request):
        if request.method != method:
            return await plain(peer, request)
        await peer.send(left.pop(0) if len(left) > 1 else left[0])

    return behave


def holding(method, until):
    """The usual server, but that it keeps one method waiting until the event."""

    async def behave(peer, request):
        if request.method == method:
            await until.wait()
        await plain(peer, request)

    return behave


async def test_the_clients_session_is_ended_here(rig):
    opened = await rig.rpc(None, "initialize", HELLO)
    session = opened.headers["mcp-session-id"]
    assert opened.message["result"]["protocolVersion"] == LEGACY
    assert (await rig.rpc(None, "notifications/initialized", rpc_id=None, session=session)).status == 202
    assert (await rig.rpc(None, "ping", session=session)).message["result"] == {}
    assert (await rig.rpc(None, "tools/list", session=session)).message["result"] == {"tools": []}
    headers = rig.headers(None, session)
    async with rig.client.delete(f"{rig.gateway}/tools/mcp", headers=headers) as response:
        assert response.status == 204
    assert rig.requests == []
    await rig.until(lambda: len(rig.codes()) == 5)
    assert set(rig.codes()) == {"granted"}


async def test_discovery_is_answered_here(rig):
    started = await rig.start(spec())
    answer = await rig.modern(started, "server/discover", {})
    assert answer.message["result"]["supportedVersions"]
    assert rig.requests == []


async def test_the_servers_session_is_opened_once_and_ended_with_the_clients(rig):
    started = await rig.start(spec())
    session = (await rig.rpc(started, "initialize", HELLO)).headers["mcp-session-id"]
    for _ in range(2):
        assert (await rig.call(started, session=session)).code == "granted"
    assert rig.methods() == ["initialize", "notifications/initialized", "tools/call", "tools/call"]
    first, *rest = rig.requests
    assert first.message["params"]["capabilities"] == {"elicitation": {}}
    assert "mcp-session-id" not in first.headers
    assert {request.headers["mcp-session-id"] for request in rest} == {"recorded"}
    # What the server said of itself is told to the next client.
    again = await rig.rpc(None, "initialize", HELLO)
    assert again.message["result"]["serverInfo"]["name"] == "recorder"
    async with rig.client.delete(
        f"{rig.gateway}/tools/mcp", headers=rig.headers(started, session)
    ) as response:
        assert response.status == 204
    assert rig.methods()[-1] == "DELETE"


async def test_sessions_of_two_tasks_are_two(rig):
    one, other = await rig.start(spec()), await rig.start(spec())
    for started in (one, other):
        assert (await rig.call(started, session="same")).code == "granted"
    assert rig.methods().count("initialize") == 2


async def test_a_session_that_the_server_has_lost_is_opened_anew(rig):
    gone = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    rig.behaviour = behaving("tools/call", gone, usual_answer_to_a_call())
    started = await rig.start(spec())
    lost = await rig.call(started)
    assert lost.code in ("upstream_unreachable", "outcome_unknown")
    assert (await rig.call(started)).code == "granted"
    assert rig.methods().count("initialize") == 2


def usual_answer_to_a_call():
    return reply({"jsonrpc": "2.0", "id": 1, "result": {"content": []}})


@pytest.mark.parametrize(
    "answer",
    [
        reply({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "no"}}),
        reply([1]),
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 500 No\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi",
        STREAM + b"0\r\n\r\n",
    ],
    ids=["error", "no object", "no JSON", "a page", "a failure", "a stream without an answer"],
)
async def test_a_server_that_opens_no_session(rig, answer):
    rig.behaviour = behaving("initialize", answer)
    started = await rig.start(spec(max_uses=1))
    refused = await rig.call(started)
    assert refused.code == "upstream_unreachable"
    assert "tools/call" not in rig.methods()
    rig.behaviour = plain
    assert (await rig.call(started)).code == "granted", "the use was not taken"


async def test_a_handshake_in_a_stream(rig):
    hello = {"protocolVersion": LEGACY, "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}

    async def behave(peer, request):
        if request.method == "initialize":
            message = {"jsonrpc": "2.0", "id": request.message["id"], "result": hello}
            await peer.send(STREAM + chunk(b": hi\n\n") + chunk(event(message)) + b"0\r\n\r\n")
        else:
            await plain(peer, request)

    rig.behaviour = behave
    assert (await rig.call(await rig.start(spec()))).code == "granted"


@pytest.mark.parametrize("status", [401, 403, 407])
async def test_a_credential_that_the_server_refuses(rig, status):
    answer = b"HTTP/1.1 %d No\r\nwww-authenticate: Bearer\r\ncontent-length: 0\r\n\r\n" % status
    rig.behaviour = behaving("tools/call", answer)
    refused = await rig.call(await rig.start(spec()))
    assert (refused.status, refused.code) == (200, "credential_refused")
    assert "www-authenticate" not in refused.headers


async def test_redirects_are_not_followed(rig):
    rig.behaviour = behaving("tools/call", b"HTTP/1.1 307 No\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n")
    refused = await rig.call(await rig.start(spec()))
    assert refused.code == "unsupported"
    assert "location" not in refused.headers
    assert rig.methods().count("tools/call") == 1


# -- lists ------------------------------------------------------------------------------------------------------------

TOOLS = {
    "tools": [{"name": name, "inputSchema": {"a": 1, "A": 2}} for name in ("note", "other")],
    "nextCursor": "x",
}


def named(answer):
    return [tool["name"] for tool in answer.message["result"]["tools"]]


async def test_tools_are_listed_as_the_task_may_see_them(rig):
    rig.decider.hidden = frozenset({"other"})
    rig.behaviour = behaving("tools/list", reply({"jsonrpc": "2.0", "id": 1, "result": TOOLS}))
    answer = await rig.rpc(await rig.start(spec()), "tools/list")
    assert named(answer) == ["note"]
    assert answer.message["result"]["nextCursor"] == "x"


async def test_a_list_in_a_stream_is_filtered_too(rig):
    rig.decider.hidden = frozenset({"other"})
    message = event({"jsonrpc": "2.0", "id": 1, "result": TOOLS})
    note = event({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})
    rig.behaviour = behaving("tools/list", STREAM + chunk(note) + chunk(message) + b"0\r\n\r\n")
    answer = await rig.rpc(await rig.start(spec()), "tools/list")
    assert b"notifications/message" in answer.body
    assert b'"note"' in answer.body
    assert b'"other"' not in answer.body


async def test_a_modern_list_says_how_long_it_may_be_kept(rig):
    result = TOOLS | {"ttlMs": 60_000, "cacheScope": "public"}
    rig.behaviour = behaving("tools/list", reply({"jsonrpc": "2.0", "id": 1, "result": result}))
    started = await rig.start(spec(expires_in=2))
    answer = await rig.modern(started, "tools/list", {})
    assert 0 < answer.message["result"]["ttlMs"] <= 2000
    assert answer.message["result"]["cacheScope"] == "private"


async def test_a_list_that_cannot_be_read(rig):
    rig.behaviour = behaving("tools/list", reply([]))
    assert (await rig.rpc(await rig.start(spec()), "tools/list")).code == "outcome_unknown"


@pytest.mark.parametrize("method", ["resources/list", "prompts/list", "resources/templates/list"])
async def test_other_lists_need_a_use_of_what_they_list(rig, method):
    assert (await rig.rpc(await rig.start(spec()), method)).code == "granted"
    assert rig.requests == []
    use = "mcp:prompts/get" if method == "prompts/list" else "mcp:resources/read"
    started = await rig.start(GrantSpec("tools", (use,), {"properties": {}}))
    await rig.rpc(started, method)
    assert rig.methods()[-1] == method


async def test_lists_need_a_grant_for_the_server(rig):
    started = await rig.start(spec("show", "desk"))
    assert named(await rig.rpc(started, "tools/list")) == []
    assert rig.requests == []


# -- notices and answers ----------------------------------------------------------------------------------------------


async def test_a_call_that_runs_can_be_cancelled(rig):
    started = await rig.start(spec())
    stuck = asyncio.Event()
    rig.behaviour = holding("tools/call", stuck)
    call = asyncio.create_task(rig.call(started))
    await rig.until(lambda: "tools/call" in rig.methods())
    for wrong in ({"requestId": 99}, {"requestId": "1"}):
        assert (await rig.rpc(started, "notifications/cancelled", wrong, rpc_id=None)).status == 202
    assert "notifications/cancelled" not in rig.methods()
    assert (await rig.rpc(started, "notifications/cancelled", {"requestId": 1}, rpc_id=None)).status == 202
    assert rig.methods()[-1] == "notifications/cancelled"
    stuck.set()
    await call


async def test_an_id_names_one_request_of_a_session(rig):
    started = await rig.start(spec())
    stuck = asyncio.Event()
    rig.behaviour = holding("tools/call", stuck)
    first = asyncio.create_task(rig.call(started))
    await rig.until(lambda: "tools/call" in rig.methods())
    assert (await rig.call(started)).code == "conflict"
    assert rig.methods().count("tools/call") == 1
    stuck.set()
    assert (await first).code == "granted"
    assert (await rig.call(started)).code == "granted"


async def test_an_answer_goes_only_to_a_server_that_asked(rig):
    started = await rig.start(spec())
    unasked = await rig.post(started, {"jsonrpc": "2.0", "id": "q-1", "result": {"action": "accept"}})
    assert (unasked.status, unasked.code) == (403, "no_grant")
    answered = asyncio.Event()

    async def asking(peer, request):
        if request.method != "tools/call":
            if not request.method:
                answered.set()
                return await peer.send(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
            return await plain(peer, request)
        question = {"jsonrpc": "2.0", "id": "q-1", "method": "elicitation/create", "params": {}}
        await peer.send(STREAM + chunk(event(question)))
        await answered.wait()
        result = event({"jsonrpc": "2.0", "id": 1, "result": {"content": []}})
        await peer.send(chunk(result) + b"0\r\n\r\n")

    rig.behaviour = asking
    call = asyncio.create_task(rig.call(started))
    await rig.until(lambda: "tools/call" in rig.methods())
    response = {"jsonrpc": "2.0", "id": "q-1", "result": {"action": "accept"}}
    await rig.until(
        lambda: rig.pipeline._flows["mcp"]._conversations.find(started.task.id, "tools", None).asked
    )
    assert (await rig.post(started, response)).status == 202
    assert rig.requests[-1].message == response
    assert (await call).status == 200
    assert (await rig.post(started, response)).code == "no_grant", "it was answered already"


# -- standing streams -------------------------------------------------------------------------------------------------


async def test_a_client_that_listens_hears_the_server_while_its_task_lives(rig):
    started = await rig.start(spec())
    stuck = asyncio.Event()

    async def talking(peer, request):
        if request.line.startswith("GET "):
            await peer.send(STREAM + chunk(event({"jsonrpc": "2.0", "method": "notifications/message"})))
            await stuck.wait()
        else:
            await plain(peer, request)

    rig.behaviour = talking
    headers = rig.headers(started, "s") | {"accept": "text/event-stream"}
    async with rig.client.get(f"{rig.gateway}/tools/mcp", headers=headers) as stream:
        assert await stream.content.readuntil(b"\n\n") == b": keep-alive\n\n"
        assert (await rig.call(started, session="s")).code == "granted"
        assert b"notifications/message" in await stream.content.readuntil(b"\n\n")
        assert len(rig.standing) == 1
        await rig.end(started)
        rig.standing.notify()
        assert b"list_changed" in await stream.content.readuntil(b"\n\n")
    stuck.set()
    await rig.until(lambda: len(rig.standing) == 0)


async def test_a_server_without_a_stream_is_asked_once(rig):
    started = await rig.start(spec())
    headers = rig.headers(started, "s") | {"accept": "text/event-stream"}
    async with rig.client.get(f"{rig.gateway}/tools/mcp", headers=headers) as stream:
        await stream.content.readuntil(b"\n\n")
        for _ in range(2):
            assert (await rig.call(started, session="s")).code == "granted"
            await rig.until(lambda: "GET" in rig.methods())
        stream.close()
    assert rig.methods().count("GET") == 1


async def test_a_client_listens_in_the_modern_way(rig):
    started = await rig.start(spec())
    params = {
        "notifications": {"toolsListChanged": True},
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"},
    }
    message = {"jsonrpc": "2.0", "id": 5, "method": "subscriptions/listen", "params": params}
    headers = rig.headers(started) | {
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "subscriptions/listen",
    }
    async with rig.client.post(f"{rig.gateway}/tools/mcp", json=message, headers=headers) as stream:
        assert b"acknowledged" in await stream.content.readuntil(b"\n\n")
        await rig.start(spec())
        rig.standing.notify()
        assert b"list_changed" in await stream.content.readuntil(b"\n\n")
