"""The policy commands on a real OPA."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from taskgrant.cli.exits import Exit
from taskgrant.cli.main import cli

DENIES = """# A security author's own rule.
package taskgrant.authz

deny contains {"code": "denied_by_policy", "reason": "not today"} if input.resource.id == "send_message"
"""

FAILS = """package house_test

test_that_fails if 1 == 2
"""

INPUT = {
    "version": 1,
    "subject": {"type": "agent", "id": "spiffe://example.org/agent/a", "properties": {}},
    "action": {"name": "tools/call", "properties": {"protocol": "mcp", "version": "2025-11-25"}},
    "resource": {
        "type": "tool",
        "id": "send_message",
        "properties": {"server": "mail", "arguments": {}, "meta": {}, "params": {}, "headers": {}},
    },
}


@pytest.fixture(autouse=True)
def opa(opa_binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKGRANT_OPA", str(opa_binary))


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A house's own policy beside ours."""
    directory = tmp_path / "house"
    directory.mkdir()
    (directory / "house.rego").write_text(DENIES)
    return directory


def taskgrant(*line: object) -> Result:
    return CliRunner().invoke(cli, [str(part) for part in line], prog_name="taskgrant")


def test_faults_of_policy_are_an_exit_code_of_their_own(house: Path) -> None:
    fine = taskgrant("policy", "check", house)
    assert (fine.exit_code, fine.stdout) == (Exit.OK, "no fault found\n")
    (house / "house.rego").write_text(DENIES.replace("deny contains", "deny contians"))
    faulty = taskgrant("policy", "check", house)
    assert faulty.exit_code == Exit.FAULTS
    assert "house.rego:4: " in faulty.stdout
    assert json.loads(taskgrant("--output", "json", "policy", "check", house).stdout)["faults"]


def test_a_test_that_fails_is_one_too(house: Path) -> None:
    assert taskgrant("policy", "test", house).exit_code == Exit.OK
    (house / "house_test.rego").write_text(FAILS)
    result = taskgrant("policy", "test", house)
    assert result.exit_code == Exit.FAULTS
    assert "test_that_fails" in result.stdout


def test_an_input_that_does_not_fit_is_told(house: Path) -> None:
    result = taskgrant("policy", "try", house, "--input", json.dumps(INPUT))  # without its context
    assert result.exit_code == Exit.CONFIGURATION
    assert "context" in result.stderr


def test_a_question_gets_the_whole_answer(house: Path) -> None:
    task = {
        "id": "t",
        "type": "",
        "purpose": "p",
        "params": {},
        "deadline": "2026-01-01T01:00:00Z",
    }
    context = {"time": "2026-01-01T00:00:00Z", "task": task, "grants": [], "calls": 0, "request": {}}
    result = taskgrant("policy", "try", house, "--input", json.dumps({**INPUT, "context": context}))
    assert result.exit_code == Exit.OK, result.stderr
    decision = json.loads(result.stdout)
    assert decision["allow"] is False
    assert "not today" in result.stdout
