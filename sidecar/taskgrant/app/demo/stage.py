"""The demo's stage: a private directory, three processes (tool server, guard, sidecar), and their end in every case."""

import contextlib
import json
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from taskgrant.app.children import Child, uninterrupted

SERVER = "office"

_BOUNDARY = {
    "taskgrant": {
        "boundaries": {
            "spiffe://demo.taskgrant.internal/agent/researcher": [
                {"server": SERVER, "tools": ["read_ticket", "send_mail", "export_tickets"], "max_uses": 100}
            ]
        }
    }
}


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything is. ``trust_domain`` is the demo's own."""

    directory: Path
    trust_domain: str
    gateway: str
    control: Path
    guard_port: int

    @property
    def endpoint(self) -> str:
        """What the agent is told its tool server's address is."""
        return f"{self.gateway}/{SERVER}/mcp"

    @property
    def audit(self) -> Path:
        return self.directory / "audit.jsonl"

    def journal(self) -> list[dict[str, object]]:
        """What the tool server says has reached it."""
        path = self.directory / "journal.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Sets everything up, and takes it down on any exit. Raises ``TaskgrantError`` when a part does not start."""
    with contextlib.ExitStack() as stack:
        with uninterrupted():
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taskgrant-demo-")))
        guard_port = _free_port()
        configuration = directory / "taskgrant.yaml"
        configuration.write_text(yaml.safe_dump(_configuration(directory, guard_port)))
        policy = directory / "policy"
        policy.mkdir()
        (policy / "data.json").write_text(json.dumps(_BOUNDARY))

        tools = directory / "tools.sock"
        journal = directory / "journal.jsonl"

        def start(name: str, *arguments: str) -> Child:
            with uninterrupted():
                return stack.enter_context(Child.start(directory, name, *arguments))

        start("tool server", "-m", "taskgrant.app.demo.toolserver", str(tools), str(journal))
        sidecar = start("sidecar", "-m", "taskgrant.cli.main", "run", str(configuration))
        addresses = json.loads(sidecar.wait_for_file(directory / "run" / "addresses.json"))
        guard = start(
            "guard", "-m", "taskgrant.cli.main", "--socket", addresses["control"], "guard",
            "--server", SERVER, "--trust-domain", "demo.taskgrant.internal",
            "--listen", f"127.0.0.1:{guard_port}", "--upstream", f"unix://{tools}:/mcp",
        )  # fmt: skip
        guard.wait_for(lambda: _listens(guard_port))
        yield Stage(
            directory, "demo.taskgrant.internal", addresses["gateway"], Path(addresses["control"]), guard_port
        )


def _configuration(directory: Path, guard_port: int) -> dict[str, object]:
    return {
        "trust_domain": "demo.taskgrant.internal",
        # One machine, one user: the demo's agent and its orchestrator are the same uid.
        "agent": {"name": "researcher", "own_orchestrator": True},
        "runtime_dir": "run",
        "listen": {"gateway": "127.0.0.1:0", "proxy": "127.0.0.1:0", "admin": "127.0.0.1:0"},
        "servers": {
            SERVER: {
                "protocol": "mcp",
                "upstream": f"https://127.0.0.1:{guard_port}/mcp",
                "versions": ["2025-11-25", "2026-07-28"],
            }
        },
        "policy": {"directories": ["policy"]},
        "authority": {"state_dir": "state"},
        "control": {"socket": "run/control.sock"},
        "audit": {"file": "audit.jsonl"},
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
