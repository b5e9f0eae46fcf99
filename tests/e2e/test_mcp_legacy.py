"""Unmodified clients of the ``mcp`` package that keep a session (2025-11-25), through the sidecar and a real server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, ClientSession, MCPError, types
from mcp.client.streamable_http import streamable_http_client

from tests.e2e.workshop import LEGACY, MODERN, Workshop, code, everything, grant, text, workshop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, opa_binary: Path) -> Iterator[Workshop]:
    versions = {"workshop": [LEGACY], "library": [LEGACY], "both": [LEGACY, MODERN]}
    with workshop(tmp_path_factory.mktemp("legacy"), opa_binary, versions) as running:
        yield running


@asynccontextmanager
async def _session(shop: Workshop, server: str = "workshop", **settings: Any) -> AsyncIterator[ClientSession]:
    """The bare session, initialized, as clients of before 2026 hold it."""
    async with (
        streamable_http_client(shop.endpoint(server)) as (read, write),
        ClientSession(read, write, **settings) as session,
    ):
        await session.initialize()
        yield session


async def _names(session: ClientSession) -> list[str]:
    return [tool.name for tool in (await session.list_tools()).tools]


async def test_a_session_opened_before_any_task_works_through_several(shop: Workshop) -> None:
    async with _session(shop) as session, shop.orchestrator() as orchestrator:
        assert session.protocol_version == LEGACY
        can = session.server_capabilities
        assert can is not None
        assert can.tools is not None
        assert can.tools.list_changed
        assert can.resources is not None
        assert can.prompts is not None
        assert await _names(session) == []
        assert code(await session.call_tool("add", {"a": 1, "b": 2})) == "no_task"
        for tools in (["add"], ["add", "count"]):
            async with orchestrator.task("sums", [grant(*tools)]):
                assert await _names(session) == tools
                assert text(await session.call_tool("add", {"a": 1, "b": 2})) == "3"
                assert code(await session.call_tool("chat", {"text": "no"})) == "no_grant"
            assert await _names(session) == []
            assert code(await session.call_tool("add", {"a": 1, "b": 2})) == "no_task"
        await session.send_ping()


async def test_a_client_of_both_eras_falls_back_and_one_of_old_is_served_by_a_server_of_both(
    shop: Workshop,
) -> None:
    async with shop.at_work(grant("add")) as (client, _):
        assert client.protocol_version == LEGACY
        assert text(await client.call_tool("add", {"a": 1, "b": 2})) == "3"
    async with shop.at_work(grant("add", server="both"), server="both", mode="legacy") as (client, _):
        assert client.protocol_version == LEGACY
        assert text(await client.call_tool("add", {"a": 1, "b": 2})) == "3"


async def test_lists_are_filtered_page_by_page(shop: Workshop) -> None:
    granted = grant("book_3", "book_12", "book_24", server="library")
    async with shop.at_work(granted, server="library") as (client, _):
        seen: list[list[str]] = []
        cursor = None
        while True:
            page = await client.session.list_tools(params=types.PaginatedRequestParams(cursor=cursor))
            seen.append([tool.name for tool in page.tools])
            if (cursor := page.next_cursor) is None:
                break
        assert seen == [["book_3"], ["book_12"], ["book_24"]]


async def test_tools_that_appear_and_vanish_are_told_on_the_standing_stream(shop: Workshop) -> None:
    changes: asyncio.Queue[str] = asyncio.Queue()

    async def told(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            changes.put_nowait(message.method)

    async with (
        _session(shop, message_handler=told) as session,
        shop.orchestrator() as orchestrator,
        asyncio.timeout(30),
    ):
        await _streaming(shop)
        async with orchestrator.task("sums", [grant("add")]) as task:
            await changes.get()
            assert await _names(session) == ["add"]
            await task.request([grant("count")])
            await changes.get()
            assert await _names(session) == ["add", "count"]
        await changes.get()
        assert await _names(session) == []


async def _streaming(shop: Workshop) -> None:
    """Returns when a client's standing stream is up: the client opens it in the background."""
    async with httpx2.AsyncClient() as http, asyncio.timeout(20):
        while not await _holds_a_stream(http, shop):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # another process opens it


async def _holds_a_stream(http: httpx2.AsyncClient, shop: Workshop) -> bool:
    metrics = await http.get(shop.place.addresses["admin"] + "/metrics")
    return "taskgrant_live_streams 1.0" in metrics.text


async def test_progress_and_log_messages_arrive_whole_and_in_order(shop: Workshop) -> None:
    told: list[tuple[float, str | None]] = []
    logged: list[Any] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        logged.append(params.data)

    async with shop.at_work(grant("count", "chat"), logging_callback=log) as (client, _):
        result = await client.call_tool("count", {"to": 20}, progress_callback=progress)
        assert text(result) == "counted to 20"
        assert told == [(number, f"{number} of 20") for number in range(1, 21)]
        await client.call_tool("chat", {"text": "grüße\n\ndata: x"})
        assert logged == ["grüße\n\ndata: x"]


async def test_what_the_server_says_outside_of_calls_arrives_while_the_task_runs(shop: Workshop) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def told(message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            heard.put_nowait(str(message.params.uri))

    async with (
        _session(shop, message_handler=told) as session,
        shop.orchestrator() as orchestrator,
        asyncio.timeout(30),
    ):
        await _streaming(shop)
        for _ in range(2):
            async with orchestrator.task("listen", [grant("announce", "add")]):
                # The first call opens the session with the server, and its stream.
                await session.call_tool("add", {"a": 1, "b": 2})
                while heard.empty():
                    await session.call_tool("announce", {"uri": "shelf://one"})
                    await asyncio.sleep(0.01)
                assert await heard.get() == "shelf://one"
            while not heard.empty():
                heard.get_nowait()


async def _red(context: Any, params: Any) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"colour": "red"})


async def test_what_the_server_asks_is_answered(shop: Workshop) -> None:
    async with shop.at_work(grant("paint", max_uses=1), elicitation_callback=_red) as (client, task):
        assert text(await client.call_tool("paint", {"what": "door"})) == "door is red"
        grants: Any = (await task.report())["grants"]
        assert grants[0]["used"] == 1


async def test_a_client_that_cannot_be_asked_is_not_asked(shop: Workshop) -> None:
    async with shop.at_work(grant("paint")) as (client, _):
        with pytest.raises(MCPError, match="did not declare"):
            await client.call_tool("paint", {"what": "door"})


async def test_an_answer_that_nobody_asked_for_goes_nowhere(shop: Workshop) -> None:
    async with _raw(shop) as (http, session), shop.at_work(grant("paint", "add")):
        await http.post(shop.endpoint(), json=_call("add", {"a": 1, "b": 1}), headers=session)
        for rpc_id in (1, "1", 7, "taskgrant-initialize"):
            forged = {"jsonrpc": "2.0", "id": rpc_id, "result": {"action": "accept", "content": {}}}
            answer = await http.post(shop.endpoint(), json=forged, headers=session)
            assert answer.status_code == 403
            assert answer.json()["error"]["data"]["code"] == "no_grant"


@asynccontextmanager
async def _raw(shop: Workshop) -> AsyncIterator[tuple[httpx2.AsyncClient, dict[str, str]]]:
    """A session opened by hand, and the headers that name it."""
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": LEGACY}
    hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "by hand", "version": "0"}}
    async with httpx2.AsyncClient() as http:
        opened = await http.post(
            shop.endpoint(),
            json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello},
            headers=headers,
        )
        yield http, {**headers, "Mcp-Session-Id": opened.headers["mcp-session-id"]}


def _call(tool: str, arguments: dict[str, Any], rpc_id: int = 1) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": rpc_id, "method": "tools/call", "params": params}


async def test_giving_a_call_up_reaches_the_server(shop: Workshop) -> None:
    begun = asyncio.Event()

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        begun.set()

    async with shop.at_work(grant("wait", "add")) as (client, _):
        call = asyncio.create_task(client.call_tool("wait", {"seconds": 600}, progress_callback=progress))
        async with asyncio.timeout(20):
            await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await shop.journaled("wait", state="cancelled")
        assert text(await client.call_tool("add", {"a": 1, "b": 1})) == "2"


async def test_only_ones_own_calls_can_be_given_up(shop: Workshop) -> None:
    begun = asyncio.Event()

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        begun.set()

    async with shop.at_work(grant("wait")) as (client, _), _raw(shop) as (http, session):
        call = asyncio.create_task(client.call_tool("wait", {"seconds": 1}, progress_callback=progress))
        async with asyncio.timeout(20):
            await begun.wait()
        for rpc_id in range(10):
            cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": rpc_id}}
            answer = await http.post(shop.endpoint(), json=cancel, headers=session)
            assert answer.status_code == 202
        assert text(await call) == "waited"


async def test_resources_and_prompts_are_granted_like_tools(shop: Workshop) -> None:
    one = {"properties": {"uri": {"const": "shelf://one"}}, "required": ["uri"]}
    async with shop.at_work(grant("add")) as (client, _):
        assert (await client.list_resources()).resources == []
        assert (await client.list_prompts()).prompts == []
        with pytest.raises(MCPError, match="nothing in this task grants"):
            await client.read_resource("shelf://one")
    reading = shop.at_work(grant("mcp:resources/read", arguments=one), grant("mcp:prompts/get"))
    async with reading as (client, _):
        listed = await client.list_resources()
        assert [str(resource.uri) for resource in listed.resources] == ["shelf://one", "shelf://two"]
        read = await client.read_resource("shelf://one")
        assert isinstance(read.contents[0], types.TextResourceContents)
        assert read.contents[0].text == "the first thing"
        with pytest.raises(MCPError, match="not with these arguments"):
            await client.read_resource("shelf://two")
        prompt = await client.get_prompt("greet", {"name": "Ada"})
        assert isinstance(prompt.messages[0].content, types.TextContent)
        assert prompt.messages[0].content.text == "Greet Ada."
    assert "shelf://two" not in {entry["uri"] for entry in shop.journal("resource")}


async def test_a_session_that_its_client_has_ended_is_over_at_the_server_too(shop: Workshop) -> None:
    async with _raw(shop) as (http, session), shop.at_work(grant("add")):
        done = await http.post(shop.endpoint(), json=_call("add", {"a": 1, "b": 1}), headers=session)
        assert done.status_code == 200
        ended = await http.delete(shop.endpoint(), headers=session)
        assert ended.status_code == 204
        (sent,) = [r for r in shop.place.audit if r.get("action") == "DELETE" and "serial" in r]
        assert (await shop.recorded("call.settled", call=sent["call"]))["status"] == 200  # so said the server
        # Now there is nothing left to end, and a client that goes on gets another session.
        assert (await http.delete(shop.endpoint(), headers=session)).status_code == 204
        again = await http.post(shop.endpoint(), json=_call("add", {"a": 1, "b": 1}), headers=session)
        assert again.status_code == 200


async def test_answers_are_what_they_are_without_the_sidecar(shop: Workshop) -> None:
    """The same unmodified client, directly at the server and through the sidecar under a grant of everything."""
    transport = httpx2.AsyncHTTPTransport(uds=str(shop.place.directory / "workshop.sock"))
    granted = grant("add", "fail", "count", "paint", "mcp:resources/read", "mcp:prompts/get")
    async with (
        httpx2.AsyncClient(transport=transport) as http,
        Client(
            streamable_http_client("http://workshop.internal/mcp", http_client=http),
            elicitation_callback=_red,
            mode="legacy",
        ) as direct,
        shop.at_work(granted, elicitation_callback=_red) as (through, _),
    ):
        assert await everything(direct) == await everything(through)


async def test_what_is_not_in_the_protocol_is_refused_before_anybody_is_asked(shop: Workshop) -> None:
    async with _raw(shop) as (http, session), shop.at_work(grant("add")):

        async def post(body: Any) -> tuple[int, int]:
            answer = await http.post(shop.endpoint(), json=body, headers=session)
            return answer.status_code, answer.json()["error"]["code"]

        def asked(method: str, **params: Any) -> dict[str, Any]:
            return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}

        assert await post(asked("tools/destroy")) == (200, -32601)
        assert await post(asked("tasks/list")) == (200, -32601)
        assert await post(asked("tasks/result", taskId="t-1")) == (200, -32010)
        assert await post([_call("add", {"a": 1, "b": 1})]) == (400, -32600)  # batches are refused
        assert await post(asked("server/discover")) == (200, -32601)
