"""The demo's stage: a private directory, three processes (tool server, guard, sidecar), and their end in every case."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from taskgrant.errors import TaskgrantError

SERVER = "office"
_START_SECONDS = 30.0
_STOP_SECONDS = 5.0

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
    with tempfile.TemporaryDirectory(prefix="taskgrant-demo-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        guard_port = _free_port()
        configuration = directory / "taskgrant.yaml"
        configuration.write_text(yaml.safe_dump(_configuration(directory, guard_port)))
        policy = directory / "policy"
        policy.mkdir()
        (policy / "data.json").write_text(json.dumps(_BOUNDARY))

        tools = directory / "tools.sock"
        _start(
            stack,
            directory,
            "tool server",
            "-m",
            "taskgrant.app.demo.toolserver",
            str(tools),
            str(directory / "journal.jsonl"),
        )
        sidecar = _start(stack, directory, "sidecar", "-m", "taskgrant.cli.main", "run", str(configuration))
        addresses = json.loads(_wait(sidecar, directory, "sidecar", directory / "run" / "addresses.json"))
        guard = _start(
            stack, directory, "guard", "-m", "taskgrant.cli.main", "--socket", addresses["control"], "guard",
            "--server", SERVER, "--trust-domain", "demo.taskgrant.internal",
            "--listen", f"127.0.0.1:{guard_port}", "--upstream", f"unix://{tools}:/mcp",
        )  # fmt: skip
        _wait_for_port(guard, directory, guard_port)
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


def _start(
    stack: contextlib.ExitStack, directory: Path, name: str, *arguments: str
) -> subprocess.Popen[bytes]:
    log = stack.enter_context((directory / f"{name}.log").open("wb"))
    # A session of its own: Ctrl-C reaches the story, which then ends its parts in order.
    process = subprocess.Popen([sys.executable, *arguments], stdout=log, stderr=log, start_new_session=True)
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen[bytes], directory: Path, name: str, path: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while not path.exists():
        _check(process, directory, name, deadline)
        time.sleep(0.02)
    return path.read_text()


def _wait_for_port(process: subprocess.Popen[bytes], directory: Path, port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        _check(process, directory, "guard", deadline)
        time.sleep(0.02)


def _check(process: subprocess.Popen[bytes], directory: Path, name: str, deadline: float) -> None:
    if process.poll() is not None or time.monotonic() > deadline:
        log = (directory / f"{name}.log").read_text(errors="replace")
        raise TaskgrantError(f"the {name} did not start; it said:\n{log}")
