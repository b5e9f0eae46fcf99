"""What ``taskgrant stdio`` and a guard with a command are told, and refuse before anything runs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from taskgrant.app import guard
from taskgrant.app.bridge import endpoint
from taskgrant.errors import ConfigurationError

GUARD = {"server": "notes", "trust_domain": "example.org", "listen": "127.0.0.1:0"}


def test_where_a_server_is() -> None:
    assert endpoint("http://127.0.0.1:15002", "notes") == "http://127.0.0.1:15002/notes/mcp"
    assert endpoint("http://[::1]:1/", "a/../b", "/v1") == "http://[::1]:1/a%2F..%2Fb/v1"


@pytest.mark.parametrize(
    ("gateway", "path"),
    [
        ("https://h:1", "/"),
        ("127.0.0.1:1", "/"),
        ("http://h?a=b", "/"),
        ("http://h#a", "/"),
        ("http://h", "mcp"),
    ],
)
def test_what_is_no_gateway_is_refused(gateway: str, path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--gateway|--path"):
        endpoint(gateway, "notes", path)


def test_input_that_is_no_pipe_is_told(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("{}\n")
    with (tmp_path / "in").open() as source:
        done = subprocess.run(
            [sys.executable, "-m", "taskgrant.cli.main", "stdio", "notes"],
            stdin=source, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    assert "must be pipes" in done.stderr


def test_a_command_gets_the_usual_variables_and_those_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSED", "on")
    monkeypatch.setenv("SECRET", "kept")
    config = guard.configured({**GUARD, "command": (sys.executable,), "environment": ("PASSED", "A=b")})
    assert config.command == (sys.executable,)
    assert {"PATH": "", "PASSED": "on", "A": "b"}.keys() <= config.environment.keys()
    assert "SECRET" not in config.environment


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"command": ("no-such-program",)}, "there is no program 'no-such-program'"),
        ({"command": ("sh",), "environment": ("NO_SUCH_VARIABLE",)}, "'NO_SUCH_VARIABLE' is not set"),
        ({"command": ("sh",), "environment": ("PATH=/nowhere",)}, "there is no program 'sh'"),
        ({"command": ("sh",), "upstream": "http://localhost/"}, "an upstream or a command"),
        ({}, "an upstream or a command"),
    ],
)
def test_a_command_that_cannot_work_is_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        guard.configured({**GUARD, **changed})
