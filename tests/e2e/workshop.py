"""The workshop's tool servers behind guards and a sidecar: what the tests of MCP clients stand on."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp import Client, MCPError, types

from taskgrant.client import RunningTask, TaskgrantClient
from tests.e2e.processes import Installation, free_port, installation, wait_for

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
SERVER_SCRIPT = Path(__file__).with_name("workshop_server.py")

LIST_TTL_MS = 60_000
ANYTHING: dict[str, Any] = {"additionalProperties": True}
TOOLS = ["add", "fail", "count", "chat", "wait", "paint", "announce"]
BESIDE = [
    "mcp:resources/read", "mcp:resources/subscribe", "mcp:prompts/get", "mcp:logging/setLevel", "mcp:tasks/get",
]  # fmt: skip


def grant(
    *tools: str, server: str = "workshop", arguments: dict[str, Any] | None = None, **members: Any
) -> dict[str, Any]:
    """A grant of the tools with any arguments, unless some are named."""
    return {"server": server, "tools": list(tools), "arguments": arguments or ANYTHING, **members}


@dataclass
class Workshop:
    place: Installation

    def endpoint(self, server: str = "workshop") -> str:
        return f"{self.place.addresses['gateway']}/{server}/mcp"

    def client(self, server: str = "workshop", **settings: Any) -> Client:
        """An unmodified client of the ``mcp`` package."""
        return Client(self.endpoint(server), **settings)

    def orchestrator(self) -> TaskgrantClient:
        return TaskgrantClient(self.place.control)

    @asynccontextmanager
    async def at_work(
        self, *grants: dict[str, Any], server: str = "workshop", **settings: Any
    ) -> AsyncIterator[tuple[Client, RunningTask]]:
        """A client that connects first, and then a task for it."""
        async with (
            self.client(server, **settings) as client,
            self.orchestrator() as orchestrator,
            orchestrator.task("work", grants) as task,
        ):
            yield client, task

    def journal(self, tool: str) -> list[dict[str, Any]]:
        """What a tool says has reached it."""
        path = self.place.directory / "journal.jsonl"
        entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [entry for entry in entries if entry["tool"] == tool]

    async def recorded(self, event: str, **seen: Any) -> dict[str, Any]:
        """The first audit record that says so, once it is written."""
        wanted = {"event": event, **seen}.items()
        async with asyncio.timeout(20):
            while True:
                for record in self.place.audit:
                    if record.items() >= wanted:
                        return record
                await asyncio.sleep(0.01)

    async def journaled(self, tool: str, **seen: Any) -> None:
        """Returns when the tool has written an entry that says so."""
        async with asyncio.timeout(20):
            while not any(entry.items() >= seen.items() for entry in self.journal(tool)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # another process writes it


@contextmanager
def workshop(directory: Path, opa: Path, versions: dict[str, list[str]]) -> Iterator[Workshop]:
    """``versions`` by server: what the catalogue says that it speaks. ``library`` has many tools."""
    with installation(directory, opa) as place:
        place.sections = {"proxy": {"list_ttl_ms": LIST_TTL_MS}}
        ports = {name: free_port() for name in versions}
        for name, spoken in versions.items():
            upstream = f"https://127.0.0.1:{ports[name]}/mcp"
            place.servers[name] = {"protocol": "mcp", "upstream": upstream, "versions": spoken}
            place.boundary.append(
                {"server": name, "tools": [*TOOLS, *BESIDE, *(f"book_{n}" for n in range(25))]}
            )
        started = {name: directory / f"{name}.sock" for name in versions}
        tools = {
            name: place.python(
                str(SERVER_SCRIPT), "library" if name == "library" else "workshop", str(socket),
                str(directory / "journal.jsonl"),
            )
            for name, socket in started.items()
        }  # fmt: skip
        place.run()
        for name, socket in started.items():
            wait_for(socket.exists, f"{name} listens", tools[name])
            place.guard(name, ports[name], f"unix://{socket}:/mcp")
        yield Workshop(place)


def code(result: types.CallToolResult) -> str:
    """ "allowed", "failed" (the tool said so itself), or the code of the denial."""
    told = (result.meta or {}).get("taskgrant/code")
    return str(told) if told else "failed" if result.is_error else "allowed"


def text(result: types.CallToolResult) -> str:
    return "".join(getattr(block, "text", "") for block in result.content)


async def everything(client: Client) -> list[Any]:
    """What a client gets for one of each, failures included."""
    seen: list[Any] = []
    for name, arguments in (
        ("add", {"a": 1, "b": 2}),
        ("add", {"a": "x", "b": 2}),
        ("fail", {"why": "because"}),
        ("count", {"to": 3}),
        ("paint", {"what": "door"}),
    ):
        seen.append((await client.call_tool(name, arguments)).model_dump())
    seen.append((await client.read_resource("shelf://one", cache_mode="bypass")).model_dump())
    seen.append((await client.get_prompt("greet", {"name": "Ada"})).model_dump())
    seen.append((await client.list_resources(cache_mode="bypass")).model_dump())
    seen.append((await client.list_resource_templates(cache_mode="bypass")).model_dump())
    seen.append((await client.list_prompts(cache_mode="bypass")).model_dump())
    for broken in (client.read_resource("shelf://none", cache_mode="bypass"), client.get_prompt("none")):
        try:
            seen.append((await broken).model_dump())
        except MCPError as error:
            seen.append((error.error.code, error.error.message))
    return seen
