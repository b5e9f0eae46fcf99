"""Unmodified clients of the ``mcp`` package that speak 2026-07-28, through the sidecar, the guard and a real server."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError, types
from mcp.client.streamable_http import streamable_http_client

from tests.e2e.workshop import LEGACY, LIST_TTL_MS, MODERN, Workshop, code, everything, grant, text, workshop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, opa_binary: Path) -> Iterator[Workshop]:
    versions = {"workshop": [MODERN], "library": [MODERN], "both": [LEGACY, MODERN]}
    with workshop(tmp_path_factory.mktemp("modern"), opa_binary, versions) as running:
        yield running


async def _names(client: Client) -> list[str]:
    return [tool.name for tool in (await client.list_tools(cache_mode="bypass")).tools]


async def test_a_client_connected_before_any_task_works_through_several(shop: Workshop) -> None:
    async with shop.client() as client, shop.orchestrator() as orchestrator:
        assert client.protocol_version == MODERN
        can = client.server_capabilities
        assert can is not None
        assert can.tools is not None
        assert can.tools.list_changed
        assert can.resources is not None
        assert can.prompts is not None
        assert await _names(client) == []
        assert code(await client.call_tool("add", {"a": 1, "b": 2})) == "no_task"
        for tools in (["add"], ["add", "count"]):
            async with orchestrator.task("sums", [grant(*tools)]):
                assert await _names(client) == tools
                assert text(await client.call_tool("add", {"a": 1, "b": 2})) == "3"
                assert code(await client.call_tool("chat", {"text": "no"})) == "no_grant"
            assert await _names(client) == []
            assert code(await client.call_tool("add", {"a": 1, "b": 2})) == "no_task"


async def test_a_server_of_both_eras_is_spoken_to_in_the_newer(shop: Workshop) -> None:
    async with shop.at_work(grant("add", server="both"), server="both") as (client, _):
        assert client.protocol_version == MODERN
        assert text(await client.call_tool("add", {"a": 2, "b": 2})) == "4"


async def test_lists_are_filtered_page_by_page_and_are_nobody_elses_to_cache(shop: Workshop) -> None:
    granted = grant("book_3", "book_12", "book_24", server="library")
    async with shop.at_work(granted, server="library") as (client, _):
        seen: list[list[str]] = []
        cursor = None
        while True:
            page = await client.list_tools(cursor=cursor, cache_mode="bypass")
            seen.append([tool.name for tool in page.tools])
            assert page.cache_scope == "private"
            assert 0 < page.ttl_ms <= LIST_TTL_MS  # the server said an hour, and public
            if (cursor := page.next_cursor) is None:
                break
        assert seen == [["book_3"], ["book_12"], ["book_24"]]


async def test_a_list_is_kept_no_longer_than_the_grant_lives(shop: Workshop) -> None:
    async with shop.at_work(grant("book_1", server="library", expires_in=30), server="library") as (
        client,
        _,
    ):
        page = await client.list_tools(cache_mode="bypass")
        assert 0 < page.ttl_ms <= 30_000


async def test_tools_that_appear_and_vanish_are_told_on_the_subscription(shop: Workshop) -> None:
    async with (
        shop.client() as client,
        shop.orchestrator() as orchestrator,
        client.listen(tools_list_changed=True) as subscription,
        asyncio.timeout(20),
    ):
        changes = aiter(subscription)
        async with orchestrator.task("sums", [grant("add")]) as task:
            await anext(changes)
            assert await _names(client) == ["add"]
            await task.request([grant("count")])
            await anext(changes)
            assert await _names(client) == ["add", "count"]
            await orchestrator.revoke(task.grants[0].id)
            await anext(changes)
            assert await _names(client) == ["count"]
        await anext(changes)
        assert await _names(client) == []


async def test_progress_and_log_messages_arrive_whole_and_in_order(shop: Workshop) -> None:
    told: list[tuple[float, str | None]] = []
    logged: list[Any] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        logged.append(params.data)

    talk = shop.at_work(grant("count", "chat"), logging_callback=log, log_level="info")
    async with talk as (client, _):
        result = await client.call_tool("count", {"to": 20}, progress_callback=progress)
        assert text(result) == "counted to 20"
        assert told == [(number, f"{number} of 20") for number in range(1, 21)]
        await client.call_tool("chat", {"text": "grüße\n\ndata: x"})
        assert logged == ["grüße\n\ndata: x"]


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


async def test_resources_and_prompts_are_granted_like_tools(shop: Workshop) -> None:
    one = {"properties": {"uri": {"const": "shelf://one"}}, "required": ["uri"]}
    async with shop.at_work(grant("add")) as (client, _):
        assert (await client.list_resources(cache_mode="bypass")).resources == []
        assert (await client.list_prompts(cache_mode="bypass")).prompts == []
        with pytest.raises(MCPError, match="nothing in this task grants"):
            await client.read_resource("shelf://one")
    reading = shop.at_work(grant("mcp:resources/read", arguments=one), grant("mcp:prompts/get"))
    async with reading as (client, _):
        listed = await client.list_resources(cache_mode="bypass")
        assert [str(resource.uri) for resource in listed.resources] == ["shelf://one", "shelf://two"]
        read = await client.read_resource("shelf://one", cache_mode="bypass")
        assert isinstance(read.contents[0], types.TextResourceContents)
        assert read.contents[0].text == "the first thing"
        with pytest.raises(MCPError, match="not with these arguments"):
            await client.read_resource("shelf://two", cache_mode="bypass")
        prompt = await client.get_prompt("greet", {"name": "Ada"})
        assert isinstance(prompt.messages[0].content, types.TextContent)
        assert prompt.messages[0].content.text == "Greet Ada."
    assert "shelf://two" not in {entry["uri"] for entry in shop.journal("resource")}


async def _red(context: Any, params: Any) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"colour": "red"})


async def test_the_second_round_of_a_call_takes_no_second_use(shop: Workshop) -> None:
    async with shop.at_work(grant("paint", max_uses=1), elicitation_callback=_red) as (client, task):
        assert text(await client.call_tool("paint", {"what": "door"})) == "door is red"
        assert (await _report(task))[0]["used"] == 1
        assert code(await client.call_tool("paint", {"what": "wall"})) == "uses_exhausted"
    painted = [entry["what"] for entry in shop.journal("paint")]
    assert "door" in painted
    assert "wall" not in painted


async def _report(task: Any) -> list[dict[str, Any]]:
    grants: list[dict[str, Any]] = (await task.report())["grants"]
    return grants


async def test_a_round_is_continued_once_by_the_call_that_it_belongs_to(shop: Workshop) -> None:
    async with shop.client(elicitation_callback=_red) as client, shop.orchestrator() as orchestrator:
        session = client.session
        answers: dict[str, Any] = {}

        async def again(what: str, state: str | None) -> types.CallToolResult:
            result = await session.call_tool(
                "paint",
                {"what": what},
                input_responses=answers,
                request_state=state,
                allow_input_required=True,
            )
            assert isinstance(result, types.CallToolResult)
            return result

        async with orchestrator.task("paint", [grant("paint", max_uses=1)]):
            first = await session.call_tool("paint", {"what": "gate"}, allow_input_required=True)
            assert isinstance(first, types.InputRequiredResult)
            blue = types.ElicitResult(action="accept", content={"colour": "blue"})
            answers = dict.fromkeys(first.input_requests or {}, blue)
            state = first.request_state
            assert code(await again("fence", state)) == "uses_exhausted"  # other arguments
            assert code(await again("gate", None)) == "uses_exhausted"
            assert code(await again("gate", f"{state}x")) == "uses_exhausted"
            assert text(await again("gate", state)) == "gate is blue"
            assert code(await again("gate", state)) == "uses_exhausted"  # only once
        async with orchestrator.task("paint", [grant("paint", max_uses=1)]):
            # The state of an earlier task is worth nothing: the call takes the use that the new task has.
            await again("gate", state)
            assert code(await again("gate", state)) == "uses_exhausted"


async def test_answers_are_what_they_are_without_the_sidecar(shop: Workshop) -> None:
    """The same unmodified client, directly at the server and through the sidecar under a grant of everything."""
    transport = httpx2.AsyncHTTPTransport(uds=str(shop.place.directory / "workshop.sock"))
    granted = grant("add", "fail", "count", "paint", "mcp:resources/read", "mcp:prompts/get")
    async with (
        httpx2.AsyncClient(transport=transport) as http,
        Client(
            streamable_http_client("http://workshop.internal/mcp", http_client=http),
            elicitation_callback=_red,
        ) as direct,
        shop.at_work(granted, elicitation_callback=_red) as (through, _),
    ):
        assert await everything(direct) == await everything(through)


async def test_what_is_not_in_the_protocol_is_refused_before_anybody_is_asked(shop: Workshop) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    async with httpx2.AsyncClient() as http, shop.at_work(grant("add")):

        async def post(method: str, **params: Any) -> tuple[int, int]:
            name = params.get("name") or params.get("taskId")
            answer = await http.post(
                shop.endpoint(),
                json={"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta, **params}},
                headers={
                    "MCP-Protocol-Version": MODERN,
                    "Accept": "application/json, text/event-stream",
                    "Mcp-Method": method,
                    **({"Mcp-Name": name} if name else {}),
                },
            )
            return answer.status_code, answer.json()["error"]["code"]

        assert await post("tools/destroy") == (404, -32601)
        assert await post("initialize", protocolVersion=MODERN) == (
            400,
            -32022,
        )  # this server has no sessions
        assert await post("ping") == (404, -32601)
        assert await post("tasks/list") == (404, -32601)
        assert await post("tasks/get", taskId="t-1") == (200, -32010)  # known, but not granted
