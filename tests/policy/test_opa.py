"""Finding the program, and what its builtins may be."""

import json
from pathlib import Path

import pytest

from taskgrant.errors import ConfigurationError
from taskgrant.policy import opa


def _program(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TASKGRANT_OPA", raising=False)
    monkeypatch.setenv("TASKGRANT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def test_configured_then_environment_then_path_then_cache(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="OPA is needed and not here: "):
        opa.find_opa()
    _program(nowhere / "cache" / "opa-1.9.0-aa" / "opa", "")
    cached = _program(nowhere / "cache" / "opa-1.22.2-aa" / "opa", "")
    assert opa.find_opa() == str(cached)
    on_path = _program(nowhere / "bin" / "opa", "echo 'Version: 1.19.9'")
    assert opa.find_opa() == str(cached)
    _program(on_path, "echo 'Version: 1.20.0'")
    assert opa.find_opa() == str(on_path)
    named = _program(nowhere / "named", "")
    monkeypatch.setenv("TASKGRANT_OPA", str(named))
    assert opa.find_opa() == str(named)
    assert opa.find_opa(str(on_path)) == str(on_path)


@pytest.mark.parametrize("variable", [True, False])
def test_one_that_is_named_must_be_there(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, variable: bool
) -> None:
    monkeypatch.setenv("TASKGRANT_OPA", "/nonexistent/opa" if variable else "")
    with pytest.raises(ConfigurationError, match="/nonexistent/opa, which is no program"):
        opa.find_opa(None if variable else "/nonexistent/opa")


def test_cache_folders(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TASKGRANT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(nowhere / "xdg"))
    program = _program(nowhere / "xdg" / "taskgrant" / "opa-1.22.2-aa" / "opa", "")
    assert opa.find_opa() == str(program)


def test_one_on_path_that_does_not_run_is_passed_over(nowhere: Path) -> None:
    broken = nowhere / "bin" / "opa"
    broken.parent.mkdir()
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    with pytest.raises(ConfigurationError, match="OPA is needed"):
        opa.find_opa()


def test_capabilities_lack_what_reaches_out(opa_binary: Path) -> None:
    document = json.loads(opa.capabilities(str(opa_binary)))
    names = {one["name"] for one in document["builtins"]}
    assert "json.match_schema" in names
    assert not names & opa.FORBIDDEN
    assert document["allow_net"] == []


def test_what_is_no_opa(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is it an OPA"):
        opa.capabilities(str(_program(tmp_path / "not-opa", "echo hello")))


def test_faults_of_a_command_that_speaks_no_json(tmp_path: Path) -> None:
    answer = opa.run(str(_program(tmp_path / "opa", "echo one >&2; exit 1")), ["check"])
    assert opa.faults(answer) == ["one"]
