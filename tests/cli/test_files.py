"""Commands on files: audit trails, configuration, documents."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from taskgrant.audit.trail import Trail
from taskgrant.cli.exits import Exit
from taskgrant.cli.main import cli
from taskgrant.model.record import Record
from taskgrant.model.time import Instant


def taskgrant(*line: object) -> Result:
    return CliRunner().invoke(cli, [str(part) for part in line], prog_name="taskgrant")


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    writer = Trail(str(path))
    writer.append([Record("task.started", Instant(0.0), {"task": "task-1", "purpose": "a\x1b[2J"})])
    writer.append([Record("call.decided", Instant(1.0), {"code": "no_grant"})])
    writer.close()
    return path


def test_a_trail_is_shown_for_people_and_for_programs(trail: Path) -> None:
    lines = taskgrant("audit", "tail", trail).stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["task.started", "call.decided"]
    assert "\x1b" not in lines[0]
    assert "code=no_grant" in lines[1]
    assert "hash=" not in lines[1]
    documents = [
        json.loads(line) for line in taskgrant("--output", "json", "audit", "tail", trail).stdout.splitlines()
    ]
    assert [one["event"] for one in documents] == ["task.started", "call.decided"]
    assert all(len(one["hash"]) == 64 for one in documents)


def test_a_trail_that_was_changed_is_found_out(trail: Path) -> None:
    whole = taskgrant("audit", "verify", trail)
    assert (whole.exit_code, whole.stdout) == (Exit.OK, "2 records, the chain is whole\n")
    trail.write_bytes(trail.read_bytes().replace(b"no_grant", b"granted!"))
    broken = taskgrant("audit", "verify", trail)
    assert broken.exit_code == Exit.FAULTS
    assert broken.stdout.startswith("line 2: ")
    told = json.loads(taskgrant("--output", "json", "audit", "verify", trail).stdout)
    assert (told["records"], told["fault"]["line"]) == (1, 2)


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    for command in (("audit", "tail"), ("audit", "verify"), ("config", "check"), ("run",)):
        assert taskgrant(*command, tmp_path / "none").exit_code == Exit.USAGE


QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "taskgrant.yaml"


def test_a_configuration_is_checked_without_running_it(tmp_path: Path) -> None:
    fine = taskgrant("config", "check", QUICKSTART)
    assert (fine.exit_code, fine.stdout) == (Exit.OK, f"{QUICKSTART}: no fault found\n")
    assert json.loads(taskgrant("--output", "json", "config", "check", QUICKSTART).stdout)["faults"] == []
    wrong = tmp_path / "taskgrant.yaml"
    wrong.write_text("trust_domain: 7\nno_such_key: 1\n")
    for command in (("config", "check"), ("run",)):
        result = taskgrant(*command, wrong)
        assert result.exit_code == Exit.CONFIGURATION
        assert f"{wrong}:2: no_such_key: " in result.stderr
        assert len(result.stderr.splitlines()) > 1


def test_a_guard_names_every_option_at_fault() -> None:
    line = [
        "guard",
        "--server",
        "mail",
        "--trust-domain",
        "example.org",
        "--listen",
        "nowhere",
        "--upstream",
        "ftp://x",
    ]
    result = taskgrant(*line)
    assert result.exit_code == Exit.CONFIGURATION
    assert "listen: " in result.stderr
    assert "upstream: " in result.stderr
