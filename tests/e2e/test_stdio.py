"""MCP servers that are child processes: the ``mcp`` package's own client and server, each on its standard input and
output, with the whole of taskgrant between.

The client starts ``taskgrant stdio`` where it would have started the server; the guard starts the server.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, types

from tests.e2e.processes import Process, free_port, installation, wait_for
from tests.e2e.workshop import ANYTHING, LEGACY, MODERN, Workshop, code, text

SERVER = "desk"
SCRIPT = Path(__file__).with_name("stdio_server.py")
TOOLS = ["add", "remember", "paint", "inspect", "breed", "wait"]
MODES = {"legacy": LEGACY, "auto": MODERN}


class Desk(Workshop):
    """Clients of the sidecar, by standard input and output."""

    port: int
    tools: Process

    def command(self) -> list[str]:
        gateway = self.place.addresses["gateway"]
        return [sys.executable, "-m", "taskgrant.cli.main", "stdio", SERVER, "--gateway", gateway]

    def client(self, server: str = SERVER, **settings: Any) -> Client:
        program, *arguments = self.command()
        return Client(StdioServerParameters(command=program, args=arguments), **settings)

    def start_guard(self) -> None:
        command = ("--env", "DESK=in the corner", "--", sys.executable, str(SCRIPT))
        self.tools = self.place.guard(SERVER, self.port, *command)


def grant(*tools: str) -> dict[str, Any]:
    return {"server": SERVER, "tools": list(tools), "arguments": ANYTHING}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, opa_binary: Path) -> Iterator[Desk]:
    with installation(tmp_path_factory.mktemp("stdio"), opa_binary) as place:
        made = Desk(place)
        made.port = free_port()
        upstream = f"https://127.0.0.1:{made.port}/mcp"
        place.servers[SERVER] = {"protocol": "mcp", "upstream": upstream, "versions": [LEGACY, MODERN]}
        place.boundary.append({"server": SERVER, "tools": TOOLS})
        place.run()
        made.start_guard()
        yield made


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def gone(*pids: int) -> None:
    await asyncio.to_thread(wait_for, lambda: not any(map(runs, pids)), f"{pids} end")


async def inspected(client: Client) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads(text(await client.call_tool("inspect", {})))
    return seen


def has_its_task_and_nothing_of_the_guards(seen: dict[str, Any], task: str) -> None:
    environment = seen["environment"]
    assert environment["TASKGRANT_TASK_ID"] == task
    assert environment["TASKGRANT_AGENT"].endswith("/agent/researcher")
    assert environment["DESK"] == "in the corner"
    assert "TASKGRANT_OPA" not in environment
    assert environment.keys() <= {
        "DESK", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TASKGRANT_AGENT",
        "TASKGRANT_TASK_ID", "TERM", "TMPDIR", "TZ", "USER",
    }  # fmt: skip
    assert seen["descriptors"] == [0, 1, 2]
    assert seen["most_descriptors"] <= 1024


async def bred(client: Client) -> list[int]:
    """The server's process, and those that it has started."""
    found = (await client.call_tool("breed", {})).content
    return [int(block.text) for block in found if isinstance(block, types.TextContent)]


@pytest.mark.parametrize("mode", MODES)
async def test_a_client_has_what_each_task_grants_and_each_task_a_server_of_its_own(
    desk: Desk, mode: Any
) -> None:
    async def red(context: Any, params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"colour": "red"})

    async with (
        desk.client(mode=mode, elicitation_callback=red) as client,
        desk.orchestrator() as orchestrator,
    ):
        assert client.protocol_version == MODES[mode]
        assert (await client.list_tools(cache_mode="bypass")).tools == []
        refused = await client.call_tool("add", {"a": 1, "b": 2})
        assert code(refused) == "no_task"
        pids = []
        for _ in range(2):
            async with orchestrator.task("sums", [grant("add", "remember", "paint", "inspect")]) as task:
                listed = (await client.list_tools(cache_mode="bypass")).tools
                assert [tool.name for tool in listed] == ["add", "remember", "paint", "inspect"]
                assert text(await client.call_tool("add", {"a": 1, "b": 2})) == "3"
                # What an earlier task said to its server is not there.
                assert text(await client.call_tool("remember", {"text": "this"})) == "this"
                assert text(await client.call_tool("paint", {"what": "door"})) == "door is red"
                refused = await client.call_tool("wait", {"seconds": 1})
                assert code(refused) == "no_grant"
                assert '"wait" was refused: nothing in this task grants this call' in text(refused)
                seen = await inspected(client)
                has_its_task_and_nothing_of_the_guards(seen, task.id)
                pids.append(seen["pid"])
                assert runs(pids[-1])
            await gone(pids[-1])
            assert code(await client.call_tool("add", {"a": 1, "b": 2})) == "no_task"
        assert pids[0] != pids[1]


async def test_tools_that_appear_and_vanish_are_told_without_sessions(desk: Desk) -> None:
    async with (
        desk.client() as client,
        desk.orchestrator() as orchestrator,
        client.listen(tools_list_changed=True) as subscription,
        asyncio.timeout(30),
    ):
        changes = aiter(subscription)
        async with orchestrator.task("sums", [grant("add")]):
            await anext(changes)
            assert [tool.name for tool in (await client.list_tools()).tools] == ["add"]
        await anext(changes)
        assert (await client.list_tools(cache_mode="bypass")).tools == []


async def test_tools_that_appear_and_vanish_are_told_in_a_session(desk: Desk) -> None:
    changes: asyncio.Queue[str] = asyncio.Queue()

    async def told(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            changes.put_nowait(message.method)

    async with (
        desk.client(mode="legacy", message_handler=told) as client,
        desk.orchestrator() as orchestrator,
        asyncio.timeout(30),
    ):
        while changes.empty():  # the standing stream is opened in the background
            async with orchestrator.task("nothing", [grant("add")]):
                pass
        async with orchestrator.task("sums", [grant("add")]):
            while [tool.name for tool in (await client.list_tools()).tools] != ["add"]:
                await changes.get()
        while (await client.list_tools()).tools:
            await changes.get()


async def test_completing_cuts_a_call_and_ends_all_that_the_server_had_started(desk: Desk) -> None:
    begun = asyncio.Event()

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        begun.set()

    async with desk.at_work(grant("wait", "breed"), server=SERVER, mode="legacy") as (client, task):
        pids = await bred(client)
        assert len(pids) == 3
        waiting = asyncio.create_task(client.call_tool("wait", {"seconds": 600}, progress_callback=progress))
        async with asyncio.timeout(30):
            await begun.wait()
            await task.complete()
            cut = await waiting
        assert code(cut) == "outcome_unknown"
        await gone(*pids)
        assert code(await client.call_tool("breed", {})) == "no_task"


async def test_nothing_outlives_a_guard_that_is_killed(desk: Desk) -> None:
    async with desk.at_work(grant("breed"), server=SERVER) as (client, _):
        pids = await bred(client)
        desk.tools.kill()
        try:
            await gone(*pids)
            assert code(await client.call_tool("breed", {})) == "upstream_unreachable"
        finally:
            desk.start_guard()


def _call(rpc_id: Any, tool: str, arguments: Any) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "id": rpc_id,
        "method": "tools/call",
        "params": {
            "name": tool,
            "arguments": arguments,
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    }


def test_hostile_lines_get_errors_and_the_next_call_is_answered(desk: Desk) -> None:
    good = json.dumps(_call(7, "add", {"a": 1, "b": 2})).encode()
    hostile = [
        b"what is this",
        b"\xff\xfe{}",
        b"[" + good + b"]",
        b"[" * 5000,
        good.replace(b'"name"', b'"name": "remember", "name"', 1).replace(b'"id": 7', b'"id": 8'),
        b'{"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "'
        + b"x" * 10_000_000
        + b'"}}',
        b'{"jsonrpc": "2.0", "id": null, "method": "tools/list"}',
        b'{"jsonrpc": "2.0", "id": 10, "method": "no/such"}',
        b'{"jsonrpc": "2.0", "id": 11, "result": {}}',
        b"",
    ]
    done = subprocess.run(
        desk.command(), input=b"\n".join([*hostile, good, b""]), capture_output=True, timeout=60, check=True
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)
    errors = [(answer.get("id"), answer["error"]["code"]) for answer in answers if "error" in answer]
    assert sorted(errors, key=str) == sorted(
        [(None, -32700), (None, -32700), (None, -32600), (None, -32700), (8, -32700), (None, -32600),
         (None, -32600), (10, -32601)],
        key=str,
    )  # fmt: skip
    (answer,) = [answer for answer in answers if "result" in answer]
    assert answer["id"] == 7
    assert answer["result"]["_meta"]["taskgrant/code"] == "no_task"


async def test_a_handle_names_the_task(desk: Desk) -> None:
    line = json.dumps(_call(1, "add", {"a": 1, "b": 2})).encode()

    async def answer(handle: str) -> Any:
        program, *arguments = desk.command()
        bridge = await asyncio.create_subprocess_exec(
            program, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "TASKGRANT_TASK": handle},
        )  # fmt: skip
        out, _ = await asyncio.wait_for(bridge.communicate(line), 60)
        return json.loads(out)["result"]

    async with desk.orchestrator() as orchestrator, orchestrator.task("sums", [grant("add")]) as task:
        assert task.handle is not None
        assert (await answer(task.handle))["content"][0]["text"] == "3"
        assert (await answer("tgh_other"))["_meta"]["taskgrant/code"] == "handle_invalid"


def test_a_server_that_the_agent_would_start_is_refused(desk: Desk) -> None:
    done = subprocess.run(
        [*desk.command(), "--", "python", "server.py"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "taskgrant guard --server desk … -- python server.py" in done.stderr
