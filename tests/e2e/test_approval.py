"""Grants that wait for a person, through the command line: asked for, waited for, judged, and what the agent is told.

Asking and approving are different users here, as they must be (tests run as root, and so does the approver).
"""

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
from mcp import Client

from tests.e2e.commands import Said, taskgrant
from tests.e2e.office import MAIL, READ, Office
from tests.e2e.processes import installation
from tests.e2e.users import as_user

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can ask as one user and approve as another"
)

ORCHESTRATOR = 10003
GROUP = 10010
LETTER = {"to": "alice@example.org", "subject": "hello"}


@dataclass
class Desk:
    office: Office
    requester: tuple[str, ...]

    def ask(self, *arguments: object) -> Said:
        """As the orchestrator, who is no approver."""
        command = [*self.requester, sys.executable, "-m", "taskgrant.cli.main", "--output", "json"]
        done = subprocess.run(
            [*command, "--socket", str(self.office.place.control), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def judge(self, *arguments: object) -> Said:
        """As the approver, who is an administrator too."""
        return taskgrant("--output", "json", *arguments, socket=self.office.place.control)

    def start(self, *grants: dict[str, Any]) -> Any:
        given = [part for grant in grants for part in ("--grant", json.dumps(grant))]
        started = self.ask("task", "start", "--purpose", "write", *given)
        assert started.code == 0, started.err
        return started.document


@pytest.fixture(scope="module")
def desk(opa_binary: Path) -> Iterator[Desk]:
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="taskgrant-approval-"))
        stack.callback(shutil.rmtree, directory)
        directory.chmod(0o755)
        place = stack.enter_context(installation(directory, opa_binary))
        place.control_socket = directory / "control" / "control.sock"
        place.boundary.append({"server": "office", "tools": ["send_mail"], "approval": "required"})
        place.sections = {
            "control": {
                "socket": str(place.control_socket),
                "group": GROUP,
                "roles": {"orchestrator": [ORCHESTRATOR], "approver": [0], "admin": [0], "guard": [0]},
            }
        }
        requester = as_user(ORCHESTRATOR, directory, groups=str(GROUP))
        yield Desk(Office.start(place, tools=["read_ticket"]), requester)


@pytest.fixture(autouse=True)
def clean(desk: Desk) -> Iterator[None]:
    """One task at a time: whatever a test leaves is ended."""
    yield
    for task in desk.judge("task", "list").document["tasks"]:
        if task["state"] == "active":
            desk.judge("task", "cancel", task["id"])


async def _mail(desk: Desk) -> str:
    async with Client(desk.office.endpoint) as client:
        result = await client.call_tool("send_mail", LETTER)
        return str((result.meta or {}).get("taskgrant/code", "allowed"))


async def test_a_grant_waits_is_approved_is_used_and_is_revoked(desk: Desk) -> None:
    started = desk.start(MAIL)
    grant = started["grants"][0]
    assert grant["state"] == "pending"
    assert await _mail(desk) == "pending_approval"
    own = desk.ask("grant", "approve", grant["id"])
    assert (own.code, own.out) == (1, "")
    assert own.err.startswith("taskgrant: refused (forbidden): ")
    assert desk.judge("grant", "approve", grant["id"], "--reason", "fine").code == 0
    assert desk.judge("grant", "show", grant["id"]).document["state"] == "active"
    again = desk.judge("grant", "approve", grant["id"])
    assert (again.code, "conflict" in again.err) == (1, True)
    assert await _mail(desk) == "allowed"
    assert desk.judge("grant", "revoke", grant["id"], "--reason", "enough").code == 0
    assert await _mail(desk) == "revoked"
    late = desk.judge("grant", "approve", grant["id"])
    assert late.code == 1


async def test_a_grant_that_is_rejected_is_as_good_as_none(desk: Desk) -> None:
    waiting = desk.start(MAIL)["grants"][0]
    assert desk.judge("grant", "reject", waiting["id"], "--reason", "not today").code == 0
    assert await _mail(desk) == "no_grant"
    assert desk.judge("grant", "show", waiting["id"]).document["state"] == "rejected"
    assert desk.judge("grant", "approve", waiting["id"]).code == 1


async def test_what_is_asked_for_together_waits_together(desk: Desk) -> None:
    assert [one["state"] for one in desk.start(READ, MAIL)["grants"]] == ["pending", "pending"]


async def test_more_can_be_asked_for_while_the_task_runs(desk: Desk) -> None:
    task = desk.start(READ)["task"]["id"]
    asked = desk.ask("grant", "request", task, "--grant", json.dumps({**MAIL, "max_uses": 1}))
    assert [one["state"] for one in asked.document["grants"]] == ["pending"]
    assert await _mail(desk) == "pending_approval"
    assert desk.judge("grant", "approve", asked.document["grants"][0]["id"]).code == 0
    assert await _mail(desk) == "allowed"
    assert await _mail(desk) == "uses_exhausted"


async def test_unfreezing_revives_nothing(desk: Desk) -> None:
    task = desk.start(MAIL)
    waiting = task["grants"][0]["id"]
    frozen = desk.judge("freeze", "--tool", "office/send_mail", "--reason", "phishing wave")
    assert frozen.code == 0
    try:
        blocked = desk.judge("grant", "approve", waiting)
        assert blocked.code == 1
        refused = desk.ask("grant", "request", task["task"]["id"], "--grant", json.dumps(MAIL))
        assert (refused.code, "frozen" in refused.err) == (1, True)
        assert await _mail(desk) != "allowed"
    finally:
        assert desk.judge("unfreeze", "--tool", "office/send_mail").code == 0
    assert await _mail(desk) != "allowed"
    assert desk.judge("grant", "show", waiting).document["state"] != "active"
    desk.judge("task", "cancel", task["task"]["id"])
    desk.start(MAIL)  # new ones can be had again
    assert await _mail(desk) == "pending_approval"


async def test_a_frozen_task_is_over(desk: Desk) -> None:
    task = desk.start(READ)["task"]["id"]
    assert desk.judge("freeze", "--task", task).code == 0
    assert desk.judge("unfreeze", "--task", task).code == 0
    assert desk.judge("task", "show", task).document["task"]["state"] == "revoked"
    assert desk.ask("freeze", "--all").code == 1  # only an administrator may
