"""What a start cannot have is told in one sentence that names the setting, with exit code 3."""

import errno
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from taskgrant.app.starting import asked_by
from taskgrant.errors import ConfigurationError
from tests.e2e.processes import TRUST_DOMAIN, Installation, installation

CONFIGURATION = 3


@pytest.fixture
def place(tmp_path, opa_binary):
    with installation(tmp_path, opa_binary) as installed:
        installed.servers["office"] = {"protocol": "mcp", "upstream": "https://127.0.0.1:9/mcp"}
        yield installed


@pytest.fixture
def taken():
    """An address that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def told(place: Installation, *arguments: str) -> str:
    """What a command that must not start says, beside its log."""
    ended = subprocess.run(
        [sys.executable, "-m", "taskgrant.cli.main", *arguments],
        env={"PATH": "/usr/bin:/bin", "TASKGRANT_OPA": str(place.opa)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == CONFIGURATION, ended.stderr
    return "\n".join(line for line in ended.stderr.splitlines() if not line.startswith("{"))


def test_an_error_of_the_system_is_told_with_the_value():
    with pytest.raises(ConfigurationError) as raised, asked_by("audit.file", "/x"):
        raise PermissionError(errno.EACCES, "some library's text")
    assert raised.value.faults == ["audit.file: /x: Permission denied"]


@pytest.mark.parametrize("name", ["gateway", "proxy", "admin"])
def test_an_address_that_is_taken(place, taken, name):
    place.sections["listen"] = {name: taken}
    assert (
        told(place, "run", str(place.write())) == f"taskgrant: listen.{name}: {taken}: Address already in use"
    )


def test_a_second_sidecar_leaves_the_first_alone(place):
    place.run()
    ready = place.directory / "run" / "addresses.json"
    second = told(place, "run", str(place.directory / "taskgrant.yaml"))
    assert second == f"taskgrant: audit.file: {place.directory}/audit.jsonl: another process is writing it"
    assert json.loads(ready.read_text()) == place.addresses


def test_an_audit_file_that_is_no_trail(place):
    (place.directory / "audit.jsonl").write_text("hello\n")
    assert "move the file away to begin a new trail" in told(place, "run", str(place.write()))


def test_a_guard_whose_address_is_taken(place, taken, tmp_path):
    place.run()
    said = told(
        place, "--socket", str(place.control), "guard", "--server", "office", "--trust-domain", TRUST_DOMAIN,
        "--listen", taken, "--upstream", f"unix://{Path(tmp_path)}/tools.sock:/mcp",
    )  # fmt: skip
    assert said == f"taskgrant: guard: listen: {taken}: Address already in use"
