"""The command line against a running installation and against files: what it prints, and how it exits."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp import Client

from tests.e2e.commands import Said, taskgrant
from tests.e2e.office import MAIL, READ, Office
from tests.e2e.processes import installation

REPOSITORY = Path(__file__).resolve().parents[2]
QUICKSTART = REPOSITORY / "examples" / "quickstart"


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory, opa_binary: Path) -> Iterator[Office]:
    with installation(tmp_path_factory.mktemp("cli"), opa_binary) as place:
        yield Office.start(place)


def _ask(office: Office, *arguments: object) -> Said:
    return taskgrant("--output", "json", *arguments, socket=office.place.control)


async def test_a_task_from_start_to_report(office: Office) -> None:
    started = _ask(
        office, "task", "start", "--purpose", "work \x1b[2J on it", "--on-behalf-of", "user:alice",
        "--expires-in", "300", "--grant", json.dumps({**READ, "max_uses": 2}), "--grant", json.dumps(MAIL),
    )  # fmt: skip
    assert started.code == 0, started.err
    task, handle = started.document["task"]["id"], started.document["handle"]
    second = _ask(office, "task", "start", "--purpose", "another")
    assert (second.code, second.out) == (1, "")
    assert second.err.startswith("taskgrant: refused (conflict): ")
    async with Client(office.endpoint) as client:
        await client.call_tool("read_ticket", {"number": 7})
    shown = taskgrant("task", "show", task, socket=office.place.control)
    assert shown.code == 0
    assert "\x1b" not in shown.out  # a purpose cannot steer the terminal
    assert "user:alice" in shown.out
    assert handle not in shown.out + taskgrant("task", "list", socket=office.place.control).out
    report = _ask(office, "task", "report", task).document
    assert [line["used"] for line in report["grants"]] == [1, 0]
    assert report["grants"][0]["max_uses"] == 2
    told = taskgrant("task", "report", task, socket=office.place.control)
    assert re.search(r"read_ticket +active +2 +1 +20\d\d-", told.out)
    assert re.search(r"send_mail +active +\w+ +never", told.out)
    ended = _ask(office, "task", "complete", task)
    assert (ended.code, ended.document["tasks"]) == (0, [task])
    again = _ask(office, "task", "complete", task)
    assert (again.code, "task_ended" in again.err) == (1, True)
    assert _ask(office, "task", "show", task).document["task"]["state"] == "completed"
    assert _ask(office, "task", "report", task).document["uses"] == 1


def test_what_goes_wrong_has_an_exit_code_and_a_sentence(office: Office, tmp_path: Path) -> None:
    nowhere = taskgrant("task", "list", socket=tmp_path / "none.sock")
    assert (nowhere.code, nowhere.out) == (4, "")
    assert str(tmp_path / "none.sock") in nowhere.err
    outside = _ask(
        office, "task", "start", "--purpose", "x", "--grant", '{"server": "office", "tools": ["drop"]}'
    )
    assert (outside.code, "denied_by_policy" in outside.err) == (1, True)
    wrong = _ask(office, "task", "start", "--purpose", "x", "--grant", '{"server": 7}')
    assert (wrong.code, "/grants/0" in wrong.err) == (1, True)
    assert _ask(office, "task", "show", "task-000000000000000000000000").code == 1
    assert _ask(office, "task", "start").code == 2
    assert _ask(office, "task", "explode").code == 2
    for said in (nowhere, outside, wrong):
        assert "Traceback" not in said.err


def test_the_audit_trail_can_be_read_followed_and_verified(office: Office, tmp_path: Path) -> None:
    trail = office.place.directory / "audit.jsonl"
    task = _ask(office, "task", "start", "--purpose", "leave a trace", "--grant", json.dumps(READ)).document
    _ask(office, "task", "complete", task["task"]["id"])
    records = taskgrant("--output", "json", "audit", "tail", trail).lines
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    assert {"task.started", "grant.requested", "task.ended"} <= {record["event"] for record in records}
    assert task["handle"] not in trail.read_text()
    assert "task.started" in taskgrant("audit", "tail", trail).out
    whole = taskgrant("audit", "verify", trail)
    assert (whole.code, "the chain is whole" in whole.out) == (0, True)
    lines = trail.read_text().splitlines()
    forged = tmp_path / "forged.jsonl"
    forged.write_text("\n".join([*lines[:2], lines[2].replace('"event"', '"event" '), *lines[4:]]) + "\n")
    broken = taskgrant("--output", "json", "audit", "verify", forged)
    assert (broken.code, broken.document["fault"]["line"] in (3, 4)) == (5, True)
    assert taskgrant("audit", "verify", tmp_path / "none").code == 2


async def test_a_trail_that_is_followed_ends_on_interrupt(office: Office) -> None:
    trail = office.place.directory / "audit.jsonl"
    follower = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "taskgrant.cli.main", "--output", "json", "audit", "tail", "-f", str(trail),
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert follower.stdout is not None
    task = (await asyncio.to_thread(_ask, office, "task", "start", "--purpose", "be seen")).document["task"][
        "id"
    ]
    await asyncio.to_thread(_ask, office, "task", "cancel", task)
    async with asyncio.timeout(30):
        while True:
            record = json.loads(await follower.stdout.readline())
            if record["event"] == "task.ended" and record.get("task") == task:
                break
    follower.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(follower.wait(), 20) == 130


def test_configuration_is_checked_without_opening_anything(tmp_path: Path) -> None:
    fine = taskgrant("config", "check", QUICKSTART / "taskgrant.yaml")
    assert (fine.code, "no fault found" in fine.out) == (0, True)
    broken = tmp_path / "broken.yaml"
    broken.write_text(
        (QUICKSTART / "taskgrant.yaml")
        .read_text()
        .replace("deadline_ms: 250", "deadline_ms: soon\n  speed: 3")
    )
    (tmp_path / "policy").mkdir()
    told = taskgrant("config", "check", broken)
    assert told.code == 3
    assert re.search(r"broken\.yaml:\d+: policy\.deadline_ms", told.err)
    assert re.search(r"broken\.yaml:\d+: policy\.speed", told.err)  # all of them at once
    assert taskgrant("run", broken).code == 3
    assert {path.name for path in tmp_path.iterdir()} == {"broken.yaml", "policy"}
    broken.write_text("a: [")
    assert taskgrant("config", "check", broken).code == 3


def test_the_quickstart_policy_is_checked_tested_and_tried(opa_binary: Path, tmp_path: Path) -> None:
    policy = QUICKSTART / "policy"
    checked = taskgrant("policy", "check", policy, opa=opa_binary)
    assert (checked.code, checked.out) == (0, "no fault found\n")
    assert taskgrant("policy", "test", policy, opa=opa_binary).code == 0
    asked = taskgrant("policy", "try", policy, "--input", f"@{QUICKSTART / 'call.yaml'}", opa=opa_binary)
    assert asked.code == 0, asked.err
    assert "allow" in asked.out
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "bad.rego").write_text(
        "package taskgrant.authz\n\ndeny contains 1 if http.send({}).status_code == 200\n"
    )
    refused = taskgrant("policy", "check", bad, opa=opa_binary)
    assert (refused.code, "bad.rego:3" in refused.out) == (5, True)
    assert "http.send" in refused.out


def test_help_and_version_are_quick_to_say() -> None:
    said = taskgrant("--help")
    assert said.code == 0
    for name in ("run", "guard", "task", "grant", "freeze", "unfreeze", "policy", "config", "audit", "demo"):
        assert name in said.out
    assert max(map(len, said.out.splitlines())) <= 100
    assert re.fullmatch(r"taskgrant \d+\.\d+\.\d+\S*\n", taskgrant("version").out)
