"""``task_binding: handle``: which task a call belongs to is what its handle says, and nothing else."""

import asyncio
import base64
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from taskgrant.client import TaskgrantClient
from tests.e2e.office import SERVER, Office
from tests.e2e.processes import installation
from tests.e2e.tools import PLAIN, Ask, World, echo, get, grant, world
from tests.wire.support import SOON

CALLS = 1_000
BAD = "x" * 43


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, opa_binary: Path) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("handles"), opa_binary) as made:
        yield made


@pytest.fixture
async def client(running: World) -> AsyncIterator[TaskgrantClient]:
    async with running.orchestrator as client:
        yield client


# --- two agents' work side by side -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
async def test_two_tasks_never_mix(tmp_path: Path, opa_binary: Path, version: str) -> None:
    """Two unmodified MCP clients, each with its handle, call the same tools at the same time.

    Whatever the tool server was shown names the task whose arguments came with it: grants, certificates, sessions.
    """
    with installation(tmp_path, opa_binary) as place:
        place.sections["authority"] = {"task_binding": "handle"}
        office = Office.start(place, versions=(version,))
        async with TaskgrantClient(place.control) as orchestrator:
            # Each may read its own half of the tickets.
            halves = [range(100), range(100, 200)]
            tasks = [
                await orchestrator.start(
                    {"purpose": f"half {index}", "grants": [_tickets(half), _count(half)]}
                )
                for index, half in enumerate(halves)
            ]
            outcomes = await asyncio.gather(
                *(_work(office, task.handle, half) for task, half in zip(tasks, halves, strict=True))
            )
            for own, foreign in outcomes:
                assert set(own) == {"allowed"}
                assert set(foreign) == {"arguments_refused"}
            serials: dict[str, set[str]] = defaultdict(set)
            reads: dict[str, list[int]] = defaultdict(list)
            for entry in office.journal:
                serials[entry["task"]].add(entry["serial"])
                reads[entry["task"]].append(entry["number"])
                [index] = [index for index, task in enumerate(tasks) if task.task.id == entry["task"]]
                assert entry["number"] in halves[index]
                assert set(entry["grant"].split(", ")) <= {each.id for each in tasks[index].grants}
            assert sum(len(each) for each in reads.values()) == sum(len(own) for own, _ in outcomes)
            one, other = (serials[task.task.id] for task in tasks)
            assert one
            assert other
            assert not one & other
            issued = [record for record in place.audit if record["event"] == "credential.issued"]
            assert {(record["task"], record["serial"]) for record in issued} == {
                (task, serial) for task, shown in serials.items() for serial in shown
            }
            for task in tasks:
                _, grants = await orchestrator.show_task(task.task.id)
                assert sum(each.used for each in grants) == len(reads[task.task.id])
                await orchestrator.complete(task.task.id)


def _tickets(numbers: range) -> dict[str, Any]:
    schema = {
        "properties": {"number": {"type": "integer", "minimum": numbers.start, "maximum": numbers.stop - 1}}
    }
    return {"server": SERVER, "tools": ["read_ticket"], "arguments": schema}


def _count(numbers: range) -> dict[str, Any]:
    """A second grant of the task, so that there is something to be mixed up within one, too."""
    schema = {"properties": {"to": {"const": f"{numbers.start}@example.org"}, "subject": {"type": "string"}}}
    return {"server": SERVER, "tools": ["send_mail"], "arguments": schema}


async def _work(office: Office, handle: str | None, own: range) -> tuple[list[str], list[str]]:
    """Half of the calls: four in flight at once, every tenth for the other task's ticket."""
    assert handle is not None
    foreign_number = (own.start + 100) % 200
    mine: list[str] = []
    foreign: list[str] = []
    headers = {"Taskgrant-Task": handle}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(streamable_http_client(office.endpoint, http_client=http)) as agent,
    ):

        async def some(numbers: range) -> None:
            for count in numbers:
                mixed = count % 10 == 9
                number = foreign_number if mixed else own.start + count % 100
                result = await agent.call_tool("read_ticket", {"number": number})
                code = str((result.meta or {}).get("taskgrant/code", "allowed"))
                (foreign if mixed else mine).append(code)

        await asyncio.gather(*(some(range(at, CALLS // 2, 4)) for at in range(4)))
    return mine, foreign


# --- handles that do not fit -----------------------------------------------------------------------------------------


async def test_no_handle(running: World, client: TaskgrantClient) -> None:
    """Also while exactly one task runs: nothing is guessed."""
    async with running.tool(PLAIN, echo) as tool, client.task("alone", [grant(PLAIN, "read")]) as task:
        assert (await running.answer(get(), None)).code == "no_task"
        assert tool.connections == 0
        assert (await running.answer(get(), task.handle)).code == "allowed"


async def test_a_handle_that_does_not_fit(running: World, client: TaskgrantClient) -> None:
    async with running.tool(PLAIN, echo) as tool, client.task("handles", [grant(PLAIN, "read")]) as task:
        assert task.handle is not None
        wrong = [
            BAD,
            task.handle[:-1],
            task.handle + "A",
            task.handle.swapcase(),
            task.id,
            "",
            "\x80",
            "x" * 600,
        ]
        for handle in wrong:
            answered = await running.answer(get(), handle)
            assert answered.code in ("handle_invalid", "malformed"), handle
        assert tool.connections == 0


async def test_a_handle_of_a_task_that_is_over(running: World, client: TaskgrantClient) -> None:
    async with running.tool(PLAIN, echo) as tool:
        ended = await client.start({"purpose": "over", "grants": [grant(PLAIN, "read")]})
        await client.complete(ended.task.id)
        async with client.task("runs", [grant(PLAIN, "read")]):
            assert (await running.answer(get(), ended.handle)).code in ("task_ended", "handle_invalid")
        assert tool.connections == 0


async def test_a_handle_that_was_rotated(running: World, client: TaskgrantClient) -> None:
    async with running.tool(PLAIN, echo) as tool, client.task("rotates", [grant(PLAIN, "read")]) as task:
        fresh = await client.rotate(task.id)
        assert fresh != task.handle
        assert (await running.answer(get(), task.handle)).code == "handle_invalid"
        assert tool.connections == 0
        assert (await running.answer(get(), fresh)).code == "allowed"


async def test_handles_that_disagree(running: World, client: TaskgrantClient) -> None:
    """Two that differ, or one twice in a header, are final, even when one of them is good."""
    async with (
        running.tool(PLAIN, echo) as tool,
        client.task("one", [grant(PLAIN, "read")]) as one,
        client.task("other", [grant(PLAIN, "read")]) as other,
    ):
        assert one.handle is not None
        assert other.handle is not None
        for first, second in (
            (one.handle, other.handle),
            (one.handle, BAD),
            (BAD, one.handle),
            (one.handle,) * 2,
        ):
            answered = await running.answer(get("/read/7", ("Taskgrant-Task", first)), second)
            assert answered.code in ("handle_invalid", "malformed")
        for proxy in (
            f"Bearer {other.handle}",
            _basic(other.handle),
            "Negotiate x",
            "Basic !!!",
            _basic("a:b"),
        ):
            answered = await running.answer(get("/read/7", ("Proxy-Authorization", proxy)), one.handle)
            assert answered.code in ("handle_invalid", "malformed"), proxy
        joined = await running.answer(get(), f"{one.handle}, {other.handle}")
        assert joined.code in ("handle_invalid", "malformed")
        assert tool.connections == 0
        agrees = get("/read/7", ("Proxy-Authorization", _basic(one.handle)))
        assert (await running.answer(agrees, one.handle)).code == "allowed"


def _basic(handle: str) -> str:
    return "Basic " + base64.b64encode(f"task:{handle}".encode()).decode()


@pytest.mark.parametrize("shown", ["header", "bearer", "basic"])
async def test_the_handle_never_reaches_the_tool(running: World, client: TaskgrantClient, shown: str) -> None:
    async with running.tool(PLAIN, echo) as tool, client.task("kept", [grant(PLAIN, "read")]) as task:
        assert task.handle is not None
        pair = {
            "header": ("Taskgrant-Task", task.handle),
            "bearer": ("Proxy-Authorization", f"Bearer {task.handle}"),
            "basic": ("Proxy-Authorization", _basic(task.handle)),
        }[shown]
        assert (await running.answer(get("/read/7", pair), None)).code == "allowed"
        [request] = tool.requests
        assert task.handle.encode() not in request
        assert base64.b64encode(task.handle.encode()) not in request
        assert b"taskgrant" not in request.lower().replace(b"user-agent: taskgrant", b"")
        assert task.handle not in (running.place.directory / "audit.jsonl").read_text()
        assert task.handle not in running.sidecar.log()


async def test_one_connection_for_two_tasks(running: World, client: TaskgrantClient) -> None:
    """Which task a call belongs to is asked for every request, also on a kept-alive connection."""
    async with (
        running.tool(PLAIN, echo) as tool,
        client.task("one", [grant(PLAIN, "read")]) as one,
        client.task("other", [grant(PLAIN, "other")]) as other,
    ):
        url = urlsplit(running.gateway)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        asked = [
            (one, "/read/1"),
            (other, "/read/1"),
            (other, "/other/1"),
            (one, "/other/1"),
            (one, "/read/2"),
        ]
        seen = []
        for task, path in asked:
            request = Ask("GET", f"/{PLAIN}{path}")
            writer.write(
                request.encode(f"{url.hostname}:{url.port}", [("Taskgrant-Task", task.handle or "")])
            )
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SOON)
            [length] = [
                int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
            ]
            seen.append(json.loads(await reader.readexactly(length)).get("code", "allowed"))
        writer.transport.abort()
        assert seen == ["allowed", "no_grant", "allowed", "no_grant", "allowed"]
        assert len(set(tool.serials)) == 2
        assert tool.serials[0] == tool.serials[2]
        assert tool.serials[0] != tool.serials[1]
