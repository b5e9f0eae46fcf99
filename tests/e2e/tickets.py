"""An HTTP tool server behind ``taskgrant guard --protocol http`` and a sidecar, beside an MCP server."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from taskgrant.client import RunningTask, TaskgrantClient
from tests.e2e.office import Office
from tests.e2e.processes import TRUST_DOMAIN, Installation, free_port, installation, listens, wait_for

OPERATIONS: list[dict[str, Any]] = [
    {"tool": "list_tickets", "method": "GET", "path": "/tickets", "query": ["state", "page"]},
    {"tool": "show_ticket", "method": "GET", "path": "/tickets/{id}"},
    {"tool": "comment", "method": "POST", "path": "/tickets/{id}/comments", "query": ["notify"]},
    {"tool": "delete_ticket", "method": "DELETE", "path": "/tickets/{id}"},
]
COMMENT: dict[str, Any] = {
    "server": "tickets",
    "tools": ["comment"],
    "arguments": {
        "properties": {
            "id": {"enum": ["7"]},
            "text": {"type": "string", "maxLength": 20},
            "notify": {"const": "no"},
        },
        "required": ["id", "text"],
    },
}
SHOW: dict[str, Any] = {
    "server": "tickets",
    "tools": ["show_ticket"],
    "arguments": {"properties": {"id": {"type": "string"}}},
}
LIST: dict[str, Any] = {
    "server": "tickets",
    "tools": ["list_tickets"],
    "arguments": {"properties": {"state": {"enum": ["open"]}}},
}


@dataclass
class Tickets:
    place: Installation

    @property
    def base(self) -> str:
        return f"{self.place.addresses['gateway']}/tickets"

    @property
    def proxy(self) -> str:
        return self.place.addresses["proxy"]

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What has reached the server."""
        path = self.place.directory / "requests.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def orchestrator(self) -> TaskgrantClient:
        return TaskgrantClient(self.place.control)

    @asynccontextmanager
    async def at_work(self, *grants: dict[str, Any]) -> AsyncIterator[tuple[httpx2.AsyncClient, RunningTask]]:
        async with (
            httpx2.AsyncClient() as http,
            self.orchestrator() as orchestrator,
            orchestrator.task("work", grants) as task,
        ):
            yield http, task


@contextmanager
def tickets(directory: Path, opa: Path, **sections: Any) -> Iterator[Tickets]:
    with installation(directory, opa) as place:
        place.sections = sections
        guard_port, port = free_port(), free_port()
        place.servers["tickets"] = {
            "protocol": "http",
            "upstream": f"https://127.0.0.1:{guard_port}",
            "operations": OPERATIONS,
            "hosts": ["tickets.internal", "tickets.internal:8080"],
        }
        place.boundary.append({"server": "tickets", "tools": [each["tool"] for each in OPERATIONS]})
        script = Path(__file__).with_name("tickets_server.py")
        server = place.python(str(script), str(port), str(directory / "requests.jsonl"))
        Office.start(place)
        wait_for(lambda: listens(port), "the server listens", server)
        given = [part for each in OPERATIONS for part in ("--operation", json.dumps(each))]
        guard = place.python(
            "-m", "taskgrant.cli.main", "--socket", str(place.control), "guard", "--server", "tickets",
            "--trust-domain", TRUST_DOMAIN, "--listen", f"127.0.0.1:{guard_port}", "--protocol", "http",
            "--upstream", f"http://127.0.0.1:{port}", *given,
        )  # fmt: skip
        wait_for(lambda: listens(guard_port), "the guard listens", guard)
        yield Tickets(place)
