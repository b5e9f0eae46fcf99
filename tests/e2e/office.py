"""The demo's tool server behind a guard and a sidecar: what most end-to-end tests stand on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.e2e.processes import Installation, Process, free_port, wait_for

SERVER = "office"
TOOLS = ("read_ticket", "send_mail", "export_tickets", "read_file")

READ = {
    "server": SERVER,
    "tools": ["read_ticket"],
    "arguments": {"properties": {"number": {"type": "integer"}}, "required": ["number"]},
}
MAIL = {
    "server": SERVER,
    "tools": ["send_mail"],
    "arguments": {
        "properties": {"to": {"enum": ["alice@example.org"]}, "subject": {"type": "string", "maxLength": 80}},
        "required": ["to", "subject"],
    },
}
EXPORT = {
    "server": SERVER,
    "tools": ["export_tickets"],
    "arguments": {"properties": {"pages": {"type": "integer"}}, "required": ["pages"]},
}


@dataclass
class Office:
    place: Installation
    guard_port: int
    tools: Process
    sidecar: Process
    guard: Process

    @classmethod
    def start(
        cls,
        place: Installation,
        versions: tuple[str, ...] = ("2025-11-25", "2026-07-28"),
        tools: Sequence[str] = TOOLS,
    ) -> "Office":
        """``tools`` are those that the agent's boundary has without further ado."""
        port = free_port()
        place.servers[SERVER] = {
            "protocol": "mcp",
            "upstream": f"https://127.0.0.1:{port}/mcp",
            "versions": list(versions),
            "hosts": ["office.internal"],
        }
        if tools:
            place.boundary.append({"server": SERVER, "tools": list(tools)})
        socket = place.directory / "tools.sock"
        journal = str(place.directory / "journal.jsonl")
        server = place.python("-m", "taskgrant.app.demo.toolserver", str(socket), journal)
        sidecar = place.run()
        wait_for(socket.exists, "the tool server listens", server)
        guard = place.guard(SERVER, port, f"unix://{socket}:/mcp")
        return cls(place, port, server, sidecar, guard)

    @property
    def endpoint(self) -> str:
        return f"{self.place.addresses['gateway']}/{SERVER}/mcp"

    @property
    def journal(self) -> list[dict[str, Any]]:
        """What the tool server says has reached it."""
        path = self.place.directory / "journal.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def called(self, tool: str) -> int:
        return sum(entry["tool"] == tool and "page" not in entry for entry in self.journal)
