"""The agent cannot help itself: sidecar, agent, orchestrator and approver are users of their own."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.office import MAIL, READ, SERVER, TOOLS
from tests.e2e.processes import Installation, Process, free_port, installation, wait_for
from tests.e2e.users import as_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run processes as other users")

AGENT, SIDECAR, ORCHESTRATOR, APPROVER, STRANGER = 10001, 10002, 10003, 10004, 10009
CONTROL_GROUP = 10010


@dataclass
class House:
    """An office whose parts belong to different users."""

    place: Installation
    sidecar: Process
    guard_port: int
    guard: Process

    @property
    def gateway(self) -> str:
        return f"{self.place.addresses['gateway']}/{SERVER}/mcp"

    def asking(self, uid: int, *command: str, groups: str = "") -> subprocess.CompletedProcess[str]:
        """A command of the system, as a user."""
        given = ("--groups", groups) if groups else ("--clear-groups",)
        return subprocess.run(
            ["setpriv", "--reuid", str(uid), "--regid", str(uid), *given, "--", *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def taskgrant(self, uid: int, *arguments: str) -> tuple[int, Any, str]:
        """The command line, as a user: exit code, its document, standard error."""
        prefix = as_user(
            uid, self.place.directory, self.place.opa.resolve().parent, groups=str(CONTROL_GROUP)
        )
        command = [*prefix, sys.executable, "-m", "taskgrant.cli.main", "--socket", str(self.place.control)]
        done = subprocess.run(
            [*command, "--output", "json", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr

    def call(self, uid: int, tool: str, arguments: dict[str, Any]) -> tuple[int, Any]:
        """A tool call of the agent by hand; the status and the message that came back."""
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": tool, "arguments": arguments},
        }
        headers = ("content-type: application/json", "accept: application/json, text/event-stream")
        asked = [part for header in (*headers, "mcp-protocol-version: 2025-11-25") for part in ("-H", header)]
        answer = self.asking(
            uid, "curl", "-sS", *asked, "-d", json.dumps(body), "-w", "\n%{http_code}", self.gateway
        )
        text, _, status = answer.stdout.rpartition("\n")
        data = next((line[6:] for line in text.splitlines() if line.startswith("data: {")), text)
        return int(status), json.loads(data)


def _place(stack: ExitStack, opa: Path) -> Installation:
    # Not below pytest's folder, which is root's alone: here it is our own modes that have to keep others out.
    directory = Path(tempfile.mkdtemp(prefix="taskgrant-isolation-"))
    stack.callback(shutil.rmtree, directory)
    directory.chmod(0o755)
    os.chown(directory, SIDECAR, SIDECAR)
    place = stack.enter_context(installation(directory, opa))
    control = directory / "control"
    control.mkdir(mode=0o750)
    os.chown(control, SIDECAR, CONTROL_GROUP)
    place.control_socket = control / "control.sock"
    place.sections = {
        "agent": {"own_orchestrator": False, "uid": AGENT},
        "control": {
            "socket": str(place.control_socket),
            "group": CONTROL_GROUP,
            "roles": {
                "orchestrator": [ORCHESTRATOR],
                "approver": [ORCHESTRATOR, APPROVER],
                "admin": [0],
                "guard": [SIDECAR],
            },
        },
    }
    place.prefix = as_user(SIDECAR, directory, opa.resolve().parent, groups=f"{SIDECAR},{CONTROL_GROUP}")
    return place


@pytest.fixture(scope="module")
def house(opa_binary: Path) -> Iterator[House]:
    with ExitStack() as stack:
        place = _place(stack, opa_binary)
        port = free_port()
        place.servers[SERVER] = {"protocol": "mcp", "upstream": f"https://127.0.0.1:{port}/mcp"}
        place.boundary.append({"server": SERVER, "tools": [each for each in TOOLS if each != "send_mail"]})
        place.boundary.append({"server": SERVER, "tools": ["send_mail"], "approval": "required"})
        # The tool server lets anybody in who can open its socket: the folder is what keeps the agent out.
        private = place.directory / "tools"
        private.mkdir(mode=0o700)
        os.chown(private, SIDECAR, SIDECAR)
        socket = private / "tools.sock"
        tools = place.python(
            "-m", "taskgrant.app.demo.toolserver", str(socket), str(place.directory / "journal.jsonl")
        )
        sidecar = place.run()
        wait_for(socket.exists, "the tool server listens", tools)
        yield House(place, sidecar, port, place.guard(SERVER, port, f"unix://{socket}:/mcp"))


def test_each_is_who_it_is_meant_to_be(house: House) -> None:
    for process in (house.sidecar, house.guard):
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert f"Uid:\t{SIDECAR}\t{SIDECAR}\t{SIDECAR}\t{SIDECAR}" in status


@pytest.fixture
def running(house: House) -> Iterator[str]:
    grant = json.dumps(READ)
    code, started, error = house.taskgrant(
        ORCHESTRATOR, "task", "start", "--purpose", "read", "--grant", grant
    )
    assert code == 0, error
    yield started["task"]["id"]
    house.taskgrant(ORCHESTRATOR, "task", "complete", started["task"]["id"])


def test_the_agent_has_what_its_task_grants_and_nobody_else_has(house: House, running: str) -> None:
    status, message = house.call(AGENT, "read_ticket", {"number": 7})
    assert status == 200
    assert "toner" in message["result"]["content"][0]["text"]
    for uid in (STRANGER, SIDECAR, ORCHESTRATOR, 0):
        status, problem = house.call(uid, "read_ticket", {"number": 7})
        assert (status, problem["code"]) == (403, "peer_refused")


def test_the_agent_cannot_open_what_is_not_its_own(house: House, running: str) -> None:
    directory = house.place.directory
    (opa_socket,) = directory.glob("run/opa-*/opa.sock")
    for path in (house.place.control, opa_socket):
        reached = house.asking(AGENT, "curl", "-sS", "--unix-socket", str(path), "http://localhost/v1/tasks")
        assert reached.returncode == 7  # could not connect
    for path in (
        *(directory / name for name in ("run", "state", "control", "tools", "audit.jsonl")),
        opa_socket.parent,
    ):  # fmt: skip
        assert path.exists()
        assert house.asking(AGENT, "cat", str(path)).returncode == 1
        assert (
            "Permission denied"
            in house.asking(AGENT, "ls", f"{path}/").stderr + house.asking(AGENT, "cat", str(path)).stderr
        )
    for path in directory.rglob("*"):
        assert house.asking(AGENT, "test", "-w", str(path)).returncode == 1


def test_the_agent_cannot_look_into_the_processes_around_it(house: House, running: str) -> None:
    opa = next(
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _parent(entry) == house.sidecar.pid
    )
    for pid in (house.sidecar.pid, house.guard.pid, opa):
        for name in ("environ", "mem", "maps", "fd/0", "root/etc/passwd"):
            looked = house.asking(AGENT, "head", "-c", "1", f"/proc/{pid}/{name}")
            assert looked.returncode == 1, (pid, name)
        assert house.asking(AGENT, "kill", "-0", str(pid)).returncode == 1
    # Nor can another process of the sidecar's own user: its keys are in its memory.
    for name in ("environ", "mem", "maps"):
        looked = house.asking(SIDECAR, "head", "-c", "1", f"/proc/{house.sidecar.pid}/{name}")
        assert looked.returncode == 1, name


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_the_agent_cannot_pass_the_sidecar_by(house: House, running: str) -> None:
    for more in ((), ("-H", "Taskgrant-Task: " + running), ("-H", "Authorization: Bearer x")):
        past = house.asking(AGENT, "curl", "-sSk", *more, f"https://127.0.0.1:{house.guard_port}/mcp")
        assert past.returncode != 0
        assert past.stdout == ""  # the handshake fails: there is no certificate to show


def test_a_user_without_a_role_is_refused_even_where_the_socket_lets_it_in(house: House) -> None:
    for uid in (AGENT, STRANGER):
        asked = house.asking(
            uid, "curl", "-sS", "--unix-socket", str(house.place.control), "http://localhost/v1/tasks",
            groups=str(CONTROL_GROUP),
        )  # fmt: skip
        problem = json.loads(asked.stdout)
        assert (problem["status"], problem["code"]) == (403, "forbidden")


def test_nobody_approves_what_they_asked_for(house: House) -> None:
    code, started, error = house.taskgrant(
        ORCHESTRATOR, "task", "start", "--purpose", "write", "--grant", json.dumps(MAIL)
    )
    assert code == 0, error
    try:
        grant = started["grants"][0]
        assert grant["state"] == "pending"
        mail = {"to": "alice@example.org", "subject": "hello"}
        _, message = house.call(AGENT, "send_mail", mail)
        assert message["result"]["_meta"]["taskgrant/code"] == "pending_approval"
        code, _, error = house.taskgrant(ORCHESTRATOR, "grant", "approve", grant["id"])
        assert (code, "forbidden" in error) == (1, True)
        code, _, error = house.taskgrant(AGENT, "grant", "approve", grant["id"])
        assert (code, "forbidden" in error) == (1, True)
        assert house.taskgrant(APPROVER, "grant", "approve", grant["id"])[0] == 0
        _, message = house.call(AGENT, "send_mail", mail)
        assert "taskgrant/code" not in message["result"].get("_meta", {})
        code, _, error = house.taskgrant(APPROVER, "task", "start", "--purpose", "my own")
        assert (code, "forbidden" in error) == (1, True)
    finally:
        house.taskgrant(ORCHESTRATOR, "task", "complete", started["task"]["id"])


def test_an_agent_that_is_given_a_role_stops_the_start(opa_binary: Path) -> None:
    with ExitStack() as stack:
        place = _place(stack, opa_binary)
        place.servers[SERVER] = {"protocol": "mcp", "upstream": "https://127.0.0.1:1/mcp"}
        place.sections["control"]["roles"]["orchestrator"] = [AGENT]
        process = place.python("-m", "taskgrant.cli.main", "run", str(place.write()))
        assert process.popen.wait(60) == 3
        assert "control.roles" in process.log()
        assert "own_orchestrator" in process.log()
        place.sections["agent"]["own_orchestrator"] = True
        place.run()  # said in so many words, it may
