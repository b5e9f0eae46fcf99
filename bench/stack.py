"""The processes that are measured: a sidecar with its OPA on one core, a tool server on the other (ours)."""

import contextlib
import json
import os
import ssl
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench import procfs
from bench.load import TOOL, VERSION, Target
from taskgrant.app.children import Child
from taskgrant.client.asynchronous import TaskgrantClient
from taskgrant.identity import contexts, csr, spiffe

SERVER = "orders"
#: What an agent that is intercepted dials.
HOST = "orders.internal"
TRUST_DOMAIN = "bench.taskgrant.internal"
AGENT = f"spiffe://{TRUST_DOMAIN}/agent/bench"

GRANT: dict[str, Any] = {
    "server": SERVER,
    "tools": [TOOL, "order_status"],
    "arguments": {
        "properties": {
            "customer": {"type": "string", "pattern": "C-[0-9]{9}"},
            "limit": {"type": "integer", "minimum": 1, "maximum": 100},
            "since": {"type": "string", "maxLength": 10},
            "note": {"type": "string", "maxLength": 200},
        },
        "required": ["customer"],
    },
}
#: A second grant that does not cover the call, as real tasks have some.
OTHER_GRANT: dict[str, Any] = {
    "server": SERVER,
    "tools": ["cancel_order"],
    "arguments": {"properties": {"order": {"enum": ["O-1", "O-2"]}}, "required": ["order"]},
    "max_uses": 1,
}


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core runs what. On a machine with one core they are the same, and the figures say little."""

    sidecar: int
    load: int

    @classmethod
    def choose(cls) -> "Cores":
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[-1], usable[0])

    @property
    def apart(self) -> bool:
        return self.sidecar != self.load


@dataclass(frozen=True, slots=True)
class Stack:
    """What runs. ``start_seconds`` is from the sidecar's start until it is ready to decide calls."""

    sidecar: int
    opa: int
    start_seconds: float
    control: Path
    gateway_port: int
    proxy_port: int
    trust: Path
    admin: str
    tool_port: int

    async def task(self) -> str:
        """A task with the grants, and so without any credential yet."""
        async with TaskgrantClient(self.control) as authority:
            started = await authority.start({"purpose": "bench", "grants": [GRANT, OTHER_GRANT]})
        return started.task.id

    async def direct(self, task: str) -> Target:
        """The tool server itself, under a credential like those that the sidecar gets."""
        key = csr.new_key()
        async with TaskgrantClient(self.control) as authority:
            issued = await authority.issue(task, SERVER, key.csr(AGENT))
        context = contexts.client_context(issued.certificate, key, issued.bundle)
        hostname = spiffe.guard_dns(TRUST_DOMAIN, SERVER)
        return Target("direct", self.tool_port, "/mcp", context, hostname, issued.token)

    def through(self) -> Target:
        return Target("sidecar", self.gateway_port, f"/{SERVER}/mcp")

    def intercepted(self) -> tuple[Target, ...]:
        """The ways of a client that dials the server by its name: by plain http, and by https that is ended here."""
        trust = ssl.create_default_context(cafile=self.trust)
        plain = Target("http", self.proxy_port, f"http://{HOST}/mcp", authority=HOST)
        tunnelled = Target(
            "https", self.proxy_port, "/mcp", trust, HOST, authority=HOST, tunnel=f"{HOST}:443"
        )
        return plain, tunnelled


@contextlib.contextmanager
def stack(cores: Cores, runner: Sequence[str] = ()) -> Iterator[Stack]:
    """Starts everything, and ends it on any exit. Raises ``TaskgrantError`` when a part does not start.

    ``runner`` stands before the sidecar's own arguments, for a profiler.
    """
    with contextlib.ExitStack() as exits:
        directory = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="taskgrant-bench-")))
        os.sched_setaffinity(0, {cores.load})  # inherited by what we start
        tools = exits.enter_context(
            Child.start(
                directory, "tool server", "-m", "bench.toolserver", str(directory), TRUST_DOMAIN, SERVER
            )
        )
        tool_port = int(tools.wait_for_file(directory / "port"))
        memory = exits.enter_context(tempfile.TemporaryDirectory(prefix="taskgrant-bench-", dir="/dev/shm"))
        configuration = _configure(directory, Path(memory), tool_port)
        began = time.perf_counter()
        os.sched_setaffinity(0, {cores.sidecar})
        try:
            sidecar = exits.enter_context(
                Child.start(
                    directory, "sidecar", *runner, "-m", "taskgrant.cli.main", "run", str(configuration)
                )
            )
        finally:
            os.sched_setaffinity(0, {cores.load})
        addresses = json.loads(sidecar.wait_for_file(directory / "run" / "addresses.json"))
        start_seconds = time.perf_counter() - began
        tools.wait_for_file(directory / "serving")
        opa = procfs.child(sidecar.pid, "opa")
        for pid in (sidecar.pid, opa):
            assert os.sched_getaffinity(pid) == {cores.sidecar}
        yield Stack(
            sidecar.pid,
            opa,
            start_seconds,
            Path(addresses["control"]),
            int(addresses["gateway"].rpartition(":")[2]),
            int(addresses["proxy"].rpartition(":")[2]),
            directory / "trust" / "bundle.pem",
            addresses["admin"],
            tool_port,
        )


def _configure(directory: Path, memory: Path, tool_port: int) -> Path:
    policy = directory / "policy"
    policy.mkdir()
    boundary = [{"server": SERVER, "tools": [*GRANT["tools"], *OTHER_GRANT["tools"]]}]
    (policy / "data.json").write_text(json.dumps({"taskgrant": {"boundaries": {AGENT: boundary}}}))
    configuration = {
        "trust_domain": TRUST_DOMAIN,
        "agent": {"name": "bench", "own_orchestrator": True},
        "runtime_dir": "run",
        "listen": {
            "gateway": "127.0.0.1:0",
            "proxy": "127.0.0.1:0",
            "admin": "127.0.0.1:0",
            "ca_dir": str(memory / "ca"),
            "trust_dir": "trust",
        },
        "servers": {
            SERVER: {
                "protocol": "mcp",
                "upstream": f"https://127.0.0.1:{tool_port}/mcp",
                "versions": [VERSION],
                "hosts": [HOST],
            }
        },
        # A core that others use too must not end the run: what is measured is what a decision costs.
        "policy": {"directories": ["policy"], "deadline_ms": 5000},
        "authority": {"state_dir": "state"},
        "control": {"socket": "run/control.sock"},
        "audit": {"file": "audit.jsonl"},
    }
    path = directory / "taskgrant.yaml"
    path.write_text(yaml.safe_dump(configuration))
    return path
