"""Real processes for the end-to-end tests: the sidecar with its OPA, guards, tool servers; each ends with its test."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

START_SECONDS = 40.0
TRUST_DOMAIN = "e2e.taskgrant.internal"
AGENT = f"spiffe://{TRUST_DOMAIN}/agent/researcher"


def free_port() -> int:
    """A port that was free a moment ago, for what has to be named before it is bound."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Any, what: str, process: "Process | None" = None) -> Any:
    """Polls until the condition gives something true; fails with the process's log."""
    deadline = time.monotonic() + START_SECONDS
    while not (seen := condition()):
        if process is not None and process.popen.poll() is not None:
            raise AssertionError(
                f"{what}: the process ended with {process.popen.returncode}:\n{process.log()}"
            )
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {START_SECONDS} s\n{process.log() if process else ''}")
        time.sleep(0.01)
    return seen


@dataclass
class Process:
    popen: subprocess.Popen[bytes]
    log_path: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def kill(self) -> None:
        """kill -9 of the process alone; what it had started must end by itself."""
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait(10)

    def stop(self) -> int:
        with suppress(ProcessLookupError):
            self.popen.terminate()
        try:
            return self.popen.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self.popen.pid, signal.SIGKILL)
            raise AssertionError(f"did not stop on SIGTERM:\n{self.log()}") from None


@dataclass
class Installation:
    """One directory with a configuration, a policy, and the processes that run on it."""

    directory: Path
    opa: Path
    stack: ExitStack
    servers: dict[str, dict[str, Any]] = field(default_factory=dict)
    boundary: list[dict[str, Any]] = field(default_factory=list)
    sections: dict[str, Any] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    started: int = 0
    control_socket: Path | None = None  # where a test wants it elsewhere
    prefix: tuple[str, ...] = ()  # of every command line, such as one that runs it as another user

    @property
    def control(self) -> Path:
        return self.control_socket or self.directory / "run" / "control.sock"

    @property
    def audit(self) -> list[dict[str, Any]]:
        path = self.directory / "audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    @property
    def policy(self) -> Path:
        return self.directory / "policy"

    def write(self) -> Path:
        """The configuration file. ``sections`` are laid over the defaults, one level deep."""
        config: dict[str, Any] = {
            "trust_domain": TRUST_DOMAIN,
            "agent": {"name": "researcher", "own_orchestrator": True},
            "runtime_dir": "run",
            "listen": {"gateway": "127.0.0.1:0", "proxy": "127.0.0.1:0", "admin": "127.0.0.1:0"},
            "servers": self.servers,
            "policy": {"directories": ["policy"]},
            "authority": {"state_dir": "state"},
            "control": {"socket": "run/control.sock"},
            "audit": {"file": "audit.jsonl"},
        }
        for name, section in self.sections.items():
            merges = isinstance(section, dict) and isinstance(config.get(name), dict)
            config[name] = {**config[name], **section} if merges else section
        self.policy.mkdir(exist_ok=True)
        data = {"taskgrant": {"boundaries": {AGENT: self.boundary}}}
        (self.policy / "data.json").write_text(json.dumps(data))
        path = self.directory / "taskgrant.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    def run(self) -> Process:
        """Starts the sidecar and waits until it is ready."""
        (self.directory / "run" / "addresses.json").unlink(missing_ok=True)
        process = self.python("-m", "taskgrant.cli.main", "run", str(self.write()))
        ready = self.directory / "run" / "addresses.json"
        wait_for(ready.exists, "the sidecar is ready", process)
        self.addresses = json.loads(ready.read_text())
        return process

    def guard(self, server: str, port: int, *upstream: str) -> Process:
        """Starts a guard and waits until it listens. ``upstream`` is an address, or ``--`` and a command."""
        process = self.python(
            "-m", "taskgrant.cli.main", "--socket", str(self.control), "guard", "--server", server,
            "--trust-domain", TRUST_DOMAIN, "--listen", f"127.0.0.1:{port}",
            *(upstream if len(upstream) > 1 else ("--upstream", *upstream)),
        )  # fmt: skip
        wait_for(lambda: listens(port), "the guard listens", process)
        return process

    def python(self, *arguments: str) -> Process:
        self.started += 1
        log = self.directory / f"process-{self.started}.log"
        environment = {**os.environ, "TASKGRANT_OPA": str(self.opa)}
        with log.open("wb") as out:
            popen = subprocess.Popen(
                [*self.prefix, sys.executable, *arguments],
                stdout=out,
                stderr=out,
                env=environment,
                start_new_session=True,
            )
        process = Process(popen, log)
        self.stack.callback(process.stop)
        return process


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextmanager
def installation(directory: Path, opa: Path) -> Iterator[Installation]:
    with ExitStack() as stack:
        yield Installation(directory, opa, stack)
