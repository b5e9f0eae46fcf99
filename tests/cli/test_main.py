"""The command against the real API: what it prints, and how it exits."""

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from taskgrant.cli.exits import Exit
from taskgrant.cli.main import cli
from taskgrant.model.task import TaskState
from tests.api.support import GRANT, Served
from tests.cli.conftest import Command

GIVEN = json.dumps(GRANT)
#: The command as a user has it.
PROGRAM = [sys.executable, "-c", "from taskgrant.cli.main import main; main()"]


async def start(taskgrant: Command, *more: str) -> Any:
    result = await taskgrant(
        "--output", "json", "task", "start", "--purpose", "test", "--grant", GIVEN, *more
    )
    assert result.exit_code == Exit.OK, result.output
    return json.loads(result.stdout)


async def test_a_task_from_start_to_end(api: Served, taskgrant: Command) -> None:
    result = await taskgrant("task", "start", "--purpose", "send it", "--grant", GIVEN, "--uid", "7")
    assert result.exit_code == Exit.OK
    assert "handle  handle-of-task-0000" in result.stdout
    assert "0 of 2" in result.stdout
    shown = await taskgrant("task", "show", "task-0000")
    assert "send it" in shown.stdout
    assert "handle-of" not in shown.stdout
    assert (await taskgrant("task", "list")).stdout.splitlines()[1].startswith("task-0000  active")
    ended = await taskgrant("task", "complete", "task-0000")
    assert "guards silent    guard-1" in ended.stdout
    assert "outcome unknown  call-1" in ended.stdout
    again = await taskgrant("task", "cancel", "task-0000")
    assert again.exit_code == Exit.REFUSED
    assert again.stderr == "taskgrant: refused (task_ended): task-0000 is completed\n"


async def test_every_option_of_a_start_arrives(api: Served, taskgrant: Command) -> None:
    options = {"type": "t", "on-behalf-of": "user:a", "session": "s", "expires-in": "60", "idle-timeout": "5"}
    line = [part for name, value in options.items() for part in (f"--{name}", value)]
    document = await start(taskgrant, *line, "--params", '{"a": 1}', "--uid", "0", "--key", "k")
    task = document["task"]
    assert (task["type"], task["on_behalf_of"], task["session"], task["uid"]) == ("t", "user:a", "s", 0)
    assert (task["params"], task["idle_timeout"]) == ({"a": 1}, 5.0)
    assert (await start(taskgrant, "--key", "k"))["handle"] is None
    result = await taskgrant("task", "start", "--purpose", "test", "--key", "k")
    assert "repeats an earlier one" in result.stdout


async def test_documents_come_from_files_too(api: Served, taskgrant: Command, tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text(GIVEN)
    (tmp_path / "g.yaml").write_text("server: files\ntools: [read]\n")
    files = [part for name in ("g.json", "g.yaml") for part in ("--grant", f"@{tmp_path / name}")]
    result = await taskgrant("task", "start", "--purpose", "p", *files)
    assert result.exit_code == Exit.OK, result.output
    assert [one.server for one in api.authority.by_grant.values()] == ["mail", "files"]


@pytest.mark.parametrize("given", ["{", "[]", '{"a": 1, "a": 2}', "@/no/such/file", "7"])
async def test_what_is_no_document_is_wrong_usage(api: Served, taskgrant: Command, given: str) -> None:
    result = await taskgrant("task", "start", "--purpose", "p", "--grant", given)
    assert result.exit_code == Exit.USAGE
    assert "--grant" in result.stderr


async def test_faults_of_the_request_are_named_by_place(taskgrant: Command, api: Served) -> None:
    result = await taskgrant("task", "start", "--purpose", "", "--grant", '{"server": "mail", "tools": []}')
    assert result.exit_code == Exit.REFUSED
    assert "/purpose: " in result.stderr
    assert "/grants/0/tools: " in result.stderr


async def test_grants_are_asked_for_and_judged(api: Served, taskgrant: Command) -> None:
    api.authority.pending = True
    await start(taskgrant)
    asked = await taskgrant("grant", "request", "task-0000", "--grant", GIVEN, "--key", "k")
    assert "grant-0001  mail" in asked.stdout
    assert "pending" in (await taskgrant("grant", "show", "grant-0001")).stdout
    refused = await taskgrant("grant", "approve", "grant-0001")
    assert (refused.exit_code, "nobody approves" in refused.stderr) == (Exit.REFUSED, True)
    assert (await taskgrant("grant", "reject", "grant-0001", "--reason", "no")).exit_code == Exit.OK
    assert "grants ended  grant-0000" in (await taskgrant("grant", "revoke", "grant-0000")).stdout
    assert api.authority.reasons == ["", "no", ""]
    lines = (await taskgrant("grant", "list")).stdout.splitlines()
    assert [line.split()[3] for line in lines[1:]] == ["revoked", "rejected"]


async def test_the_kill_switch(api: Served, taskgrant: Command) -> None:
    frozen = await taskgrant("freeze", "--all", "--reason", "odd")
    assert "no: it is enforced" in frozen.stdout
    assert "(frozen)" in (await taskgrant("task", "start", "--purpose", "p")).stderr
    assert (await taskgrant("unfreeze", "--all")).exit_code == Exit.OK
    for wrong in ((), ("--all", "--task", "t")):
        assert (await taskgrant("freeze", *wrong)).exit_code == Exit.USAGE


@pytest.mark.parametrize(
    "line",
    [
        ["task", "list"],
        ["task", "show", "task-0000"],
        ["grant", "list"],
        ["grant", "show", "grant-0000"],
        ["grant", "request", "task-0000", "--grant", GIVEN],
        ["grant", "revoke", "grant-0000"],
        ["freeze", "--tool", "mail"],
        ["unfreeze", "--session", "s"],
        ["task", "cancel", "task-0000"],
        ["version"],
    ],
)
async def test_everything_speaks_json(api: Served, taskgrant: Command, line: Sequence[str]) -> None:
    await start(taskgrant)
    result = await taskgrant("--output", "json", *line)
    assert result.exit_code == Exit.OK
    assert isinstance(json.loads(result.stdout), dict)


def test_nobody_there_is_an_exit_code_of_its_own(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["--socket", str(tmp_path / "none.sock"), "task", "list"])
    assert result.exit_code == Exit.UNREACHABLE
    assert "none.sock cannot be reached" in result.stderr
    assert result.stderr.count("\n") == 1


async def test_what_others_wrote_commands_no_terminal(api: Served, taskgrant: Command) -> None:
    await taskgrant("task", "start", "--purpose", "\x1b]0;title\x07 \u202etxt [bold]x[/bold]")
    shown = (await taskgrant("task", "list")).stdout
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\\u001b]0;title\\u0007 \\u202etxt [bold]x[/bold]" in shown


async def test_as_a_process_of_its_own(api: Served) -> None:
    environment = {**os.environ, "TASKGRANT_SOCKET": str(api.socket)}

    async def run(*line: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *PROGRAM, *line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        )
        return process.returncode, (await process.communicate())[0].decode()

    assert "task-0000" in (await run("task", "start", "--purpose", "p"))[1]
    assert (await run("task", "complete", "task-0000"))[1].startswith("enforced at")
    assert [one.state for one in api.authority.by_task.values()] == [TaskState.COMPLETED]


async def test_a_terminal_gets_a_table(api: Served, taskgrant: Command) -> None:
    await start(taskgrant)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TASKGRANT_SOCKET": str(api.socket), "COLUMNS": "100", "TERM": "xterm"}
    process = await asyncio.create_subprocess_exec(*PROGRAM, "task", "list", stdout=theirs, env=environment)
    assert await process.wait() == 0
    os.close(theirs)
    text = os.read(ours, 65536).decode()
    os.close(ours)
    assert "\u2500" in text
    assert "task-0000" in text


def test_quick_commands_import_nothing_heavy() -> None:
    script = (
        "import sys; from taskgrant.cli.main import cli; cli(['version'], standalone_mode=False);"
        "print(sorted({'aiohttp', 'pydantic', 'rich', 'cryptography', 'yaml', 'asyncio'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_help_lists_every_command_and_exit_code() -> None:
    result = CliRunner().invoke(cli, ["--help"])
    for word in ("run", "guard", "demo", "task", "grant", "freeze", "unfreeze", "policy", "config", "audit"):
        assert f"  {word} " in result.output
    assert CliRunner().invoke(cli, ["no-such-command"]).exit_code == Exit.USAGE
    page = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text()
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)] == [
        code.value for code in Exit
    ]
