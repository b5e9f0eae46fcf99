"""An agent and its sidecar in a namespace of their own, by ``taskgrant run-agent``; tool servers on the far side."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from taskgrant.client import SyncTaskgrantClient
from taskgrant.identity.contexts import server_context
from taskgrant.identity.csr import new_key
from taskgrant.identity.spiffe import guard_id
from taskgrant.model.task import Started
from tests.e2e.processes import AGENT, TRUST_DOMAIN, Process, wait_for
from tests.e2e.recorder import Recorder
from tests.net.world import UPSTREAM, World, measured_by_all, readable_by_all

AGENT_UID = 10001
SIDECAR_UID = 1337
TOOLS = ("note", "other")
PORT = 15001
ADMIN = 15090
#: What the agent may serve to others.
SERVED = 18080
_BOUNDARY = [
    {"server": "tools", "tools": list(TOOLS)},
    {"server": "desk", "tools": ["comment", "refs", "feed"]},
]
POLICY = {"taskgrant": {"boundaries": {AGENT: _BOUNDARY}}}


class Done(NamedTuple):
    status: int
    out: str
    err: str


@dataclass
class Pod:
    directory: Path
    opa: Path
    world: World
    stack: ExitStack
    tools: Recorder
    desk: Recorder
    environment: dict[str, str]
    sections: dict[str, Any] = field(default_factory=dict)
    process: Process | None = None
    control: SyncTaskgrantClient | None = None

    # -- setting up --------------------------------------------------------------------------------------------

    @cached_property
    def pinned(self) -> socket.socket:
        """Of a server that is let through unread."""
        return self.stack.enter_context(self.world.listen())

    @cached_property
    def greeter(self) -> socket.socket:
        """Of a server that is let through whatever it speaks, and speaks first."""
        return self.stack.enter_context(self.world.listen())

    @property
    def servers(self) -> dict[str, dict[str, Any]]:
        """The catalogue."""
        return {
            "tools": {
                "protocol": "mcp",
                "upstream": f"https://{UPSTREAM}:{self.tools.port}/mcp",
                "versions": ["2025-11-25", "2026-07-28"],
                "hosts": ["tools.internal"],
            },
            "desk": {
                "protocol": "http",
                "upstream": f"https://{UPSTREAM}:{self.desk.port}/api",
                "operations": [
                    {"tool": "comment", "method": "POST", "path": "/tickets/{id}/comments"},
                    {
                        "tool": "refs",
                        "method": "GET",
                        "path": "/repositories/{name}/info/refs",
                        "query": ["service"],
                    },
                    {"tool": "feed", "method": "GET", "path": "/feed", "websocket": True},
                ],
                "hosts": ["desk.internal", "desk.internal:8080"],
            },
        }

    def write(self) -> Path:
        config: dict[str, Any] = {
            "trust_domain": TRUST_DOMAIN,
            "agent": {"name": "researcher", "uid": AGENT_UID},
            "runtime_dir": "run",
            "listen": {
                "gateway": "127.0.0.1:15002",
                "proxy": f"127.0.0.1:{PORT}",
                "transparent": f"127.0.0.1:{PORT}",
                "admin": f"0.0.0.0:{ADMIN}",
                "head_timeout": 1.0,
                "body_timeout": 1.0,
                "ca_dir": "ca",
                "trust_dir": "trust",
            },
            "egress": {
                "pinned.example": {"mode": "splice"},
                f"pinned.example:{self.pinned.getsockname()[1]}": {"mode": "splice", "idle_timeout": 2.5},
                f"greeter.example:{self.greeter.getsockname()[1]}": {
                    "mode": "opaque",
                    "addresses": [UPSTREAM],
                },
            },
            "redirect": {"inbound_ports": [ADMIN, SERVED]},
            "servers": self.servers,
            "policy": {"directories": ["policy"], "opa": {"binary": str(self.directory / "opa")}},
            "authority": {"state_dir": "state"},
            "control": {
                "socket": "run/control.sock",
                "roles": {role: [0] for role in ("orchestrator", "approver", "admin", "guard")},
            },
            "audit": {"file": "audit.jsonl"},
            **self.sections,
        }
        policy = self.directory / "policy"
        policy.mkdir(exist_ok=True)
        (policy / "data.json").write_text(json.dumps(POLICY))
        path = self.directory / "taskgrant.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    def start(self) -> None:
        """Starts everything; the agent is one that does what the tests tell it."""
        driver = Path(__file__).with_name("driver.py")
        # The agent makes its socket where it may write, and nobody but us and it may connect.
        rendezvous = self.directory / "agent"
        rendezvous.mkdir()
        os.chown(rendezvous, AGENT_UID, AGENT_UID)
        rendezvous.chmod(0o700)
        self.process = self.run_agent(sys.executable, str(driver), str(self.driver))
        wait_for(self.driver.exists, "the agent runs", self.process)
        self.connect()

    def connect(self) -> None:
        self.control = SyncTaskgrantClient(self.directory / "run" / "control.sock")
        self.enrol()

    def enrol(self) -> None:
        """Gives the tool servers the certificates of guards."""
        assert self.control is not None
        for name, recorder in (("tools", self.tools), ("desk", self.desk)):
            key = new_key()
            enrolled = self.control.enrol(name, key.csr(guard_id(TRUST_DOMAIN, name)))
            recorder.serve(server_context(enrolled.certificate, key, enrolled.bundle))

    def command(self, *arguments: str) -> list[str]:
        """``taskgrant`` with these arguments, in the far side's namespaces."""
        hosts = ["unshare", "--mount", "--propagation=private", "sh", "-c"]
        hosts += ['mount --bind "$0" /etc/hosts && exec "$@"', str(self.directory / "hosts")]
        return [
            *self.world.prefix,
            *hosts,
            *readable_by_all(),
            sys.executable,
            "-m",
            "taskgrant.cli.main",
            *arguments,
        ]

    def run_agent(self, *command: str) -> Process:
        log = self.directory / "run-agent.log"
        with log.open("wb") as out:
            popen = subprocess.Popen(
                self.command("run-agent", str(self.write()), "--", *command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.environment,
                pass_fds=(self.world.descriptor,),
                start_new_session=True,
            )
        process = Process(popen, log)
        self.stack.callback(process.stop)
        return process

    @property
    def audit(self) -> Path:
        return self.directory / "audit.jsonl"

    @property
    def driver(self) -> Path:
        return self.directory / "agent" / "socket"

    # -- the agent ---------------------------------------------------------------------------------------------

    def agent(self, *command: str, given: str | None = None) -> Done:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(self.driver))
            with client.makefile("rw") as lines:
                lines.write(json.dumps({"command": command, "input": given}) + "\n")
                lines.flush()
                return Done(**json.loads(lines.readline()))

    def try_python(self, code: str, *arguments: object) -> str:
        """What the agent's Python code prints."""
        done = self.agent(sys.executable, "-c", code, *map(str, arguments))
        assert done.status == 0, done.err
        return done.out.strip()

    # -- the orchestrator --------------------------------------------------------------------------------------

    @contextmanager
    def task(self, *grants: dict[str, Any]) -> Iterator[Started]:
        assert self.control is not None
        started = self.control.start({"purpose": "the net tests", "grants": list(grants)})
        try:
            yield started
        finally:
            self.control.complete(started.task.id)

    # -- what was seen -----------------------------------------------------------------------------------------

    @property
    def received(self) -> int:
        return self.tools.received + self.desk.received

    def records(self) -> list[dict[str, Any]]:
        lines = self.audit.read_bytes().rpartition(b"\n")[0].splitlines()
        return [record for record in map(json.loads, lines) if record["event"] == "call.decided"]

    def recorded(self, **members: Any) -> dict[str, Any]:
        """Waits for a decision on record that has these members."""

        def found() -> dict[str, Any] | None:
            return next((one for one in reversed(self.records()) if members.items() <= one.items()), None)

        return wait_for(found, f"a record with {members}", self.process)

    # -- the processes -----------------------------------------------------------------------------------------

    def sidecar_pid(self) -> int:
        return int(wait_for(self._sidecar, "the sidecar runs", self.process))

    def sidecar_kib(self) -> int:
        """Memory that the sidecar itself has in use."""
        status = Path(f"/proc/{self.sidecar_pid()}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def _sidecar(self) -> int | None:
        for status in Path("/proc").glob("[0-9]*/status"):
            with suppress(OSError):
                pid = int(status.parent.name)
                argv = (status.parent / "cmdline").read_bytes().split(b"\0")
                ours = b"run" in argv and str(self.directory / "taskgrant.yaml").encode() in argv
                if ours and f"Uid:\t{SIDECAR_UID}\t" in status.read_text():
                    return pid
        return None

    def inside(self, *command: str, uid: int = 0) -> Done:
        """A command in the agent's network namespace, as no agent can run it."""
        become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.sidecar_pid()}/ns/net", *readable_by_all(), *become, *command],
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def kill_sidecar(self) -> int:
        pid = self.sidecar_pid()
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_for_another(self, than: int) -> None:
        """The sidecar is ready again, as another process."""
        ready = self.directory / "run" / "addresses.json"
        deadline = time.monotonic() + 40
        while self._sidecar() in (None, than) or not ready.exists():
            assert time.monotonic() < deadline, self.process and self.process.log()
            time.sleep(0.02)


@contextmanager
def pod(opa: Path, **sections: Any) -> Iterator[Pod]:
    # Not tmp_path: uids of others have to get there.
    with tempfile.TemporaryDirectory(prefix="tg-net-") as name, ExitStack() as stack:
        directory = Path(name)
        for path in (directory, directory / "state"):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
            os.chown(path, SIDECAR_UID, SIDECAR_UID)
        shutil.copy(opa, directory / "opa")
        environment = stack.enter_context(measured_by_all(directory))
        world = World()
        stack.callback(world.close)
        tools, desk = (Recorder(world.listen()) for _ in range(2))
        for recorder in (tools, desk):
            stack.callback(recorder.close)
        here = Pod(directory, opa, world, stack, tools, desk, environment, sections)
        unread = (here.pinned, here.greeter)
        world.record(tools.port, desk.port, *(each.getsockname()[1] for each in unread))
        # Where the sidecar finds that server: it asks whom its machine asks.
        (directory / "hosts").write_text(f"127.0.0.1 localhost\n{UPSTREAM} pinned.example\n")
        yield here


def tool_call(tool: str, arguments: Any) -> Sequence[str]:
    """curl's arguments for a ``tools/call`` of MCP 2026-07-28."""
    version = "2026-07-28"
    params = {
        "name": tool,
        "arguments": arguments,
        "_meta": {"io.modelcontextprotocol/protocolVersion": version},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": version,
        "mcp-method": "tools/call",
        "mcp-name": tool,
    }
    given = [part for name, value in headers.items() for part in ("--header", f"{name}: {value}")]
    return [*given, "--data", json.dumps(body)]
