"""Nothing unrecorded, and no secret on record: the trail of whole lives, a disk that is full, metrics and health."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from taskgrant.client import SyncTaskgrantClient
from taskgrant.errors import Refused
from taskgrant.identity.contexts import client_context
from taskgrant.identity.csr import new_key
from taskgrant.identity.spiffe import guard_dns
from tests.e2e.office import MAIL, SERVER
from tests.e2e.processes import AGENT, TRUST_DOMAIN, Installation, installation, wait_for
from tests.e2e.stand import LEGACY, Stand, grant, rpc_headers

CANARY = "swordfish"  # in every value that the agent sends; names of members may be told
ALLOWED = {"properties": {"text": {"type": "string"}, "network": {"type": "string"}}}


@pytest.fixture(scope="module")
def stand(tmp_path_factory, opa_binary) -> Iterator[Stand]:
    with installation(tmp_path_factory.mktemp("stand"), opa_binary) as place:
        yield Stand.start(place)


def taskgrant(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "taskgrant.cli.main", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def trail(place: Installation) -> list[dict[str, Any]]:
    return place.audit


def verified(place: Installation) -> bool:
    answer = taskgrant("--output", "json", "audit", "verify", str(place.directory / "audit.jsonl"))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    found = json.loads(answer.stdout)
    return bool(found["fault"] is None and found["records"] == len(trail(place)))


# -- a whole life -----------------------------------------------------------------------------------------------------


class Life:
    """Two tasks from start to end: every sort of call, of judgement and of end. Holds what must never be on record."""

    def __init__(self, stand: Stand) -> None:
        control = stand.control
        self.secrets: set[str] = set()
        self.started = control.start(
            {
                "purpose": "audited",
                "grants": [grant(), grant("scan"), grant("other", max_uses=2)],
            },
            key=f"key-{CANARY}",
        )
        task = self.task = self.started.task.id
        self.handles = [self.started.handle or "", control.rotate(task)]
        handle = self.handles[-1]
        (self.pending,) = control.request(task, [grant("guarded")])
        text = {"text": f"{CANARY} argument"}
        headers = {"authorization": f"Bearer {CANARY}", "cookie": f"a={CANARY}", "x_anything": CANARY}
        assert stand.call(handle, arguments=text, **headers).granted
        assert stand.call(handle, "other", text).granted
        assert stand.call(handle, "guarded", text).code == "pending_approval"
        assert stand.call(handle, "scan", {"network": CANARY}).code == "policy_error"
        assert stand.call(handle, arguments={"more": CANARY}).code == "arguments_refused"
        assert stand.call(self.handles[0], arguments=text).code == "handle_invalid"
        assert (
            stand.send("/tools/mcp", f'{{"a": {CANARY}'.encode(), rpc_headers(handle=handle)).code
            == "malformed"
        )
        double = f'{{"a":"{CANARY}","a":"{CANARY}"}}'.encode()
        assert stand.send("/tools/mcp", double, rpc_headers(handle=handle)).code == "malformed"
        assert (
            stand.send(f"/{CANARY}/mcp?{CANARY}", b"{}", {"proxy-authorization": CANARY}).code
            == "handle_invalid"
        )
        with suppress(Refused):
            control.request(task, [grant("read", "elsewhere")])
        control.request(task, [grant("limited")])
        control.revoke(self.started.grants[2].id, "no longer needed")
        assert stand.call(handle, "other", text).code == "revoked"
        control.complete(task)
        assert stand.call(handle, arguments=text).code == "task_ended"
        self.second = control.start({"purpose": "ended by a freeze", "grants": [grant()]})
        assert stand.call(self.second.handle, arguments=text).granted
        control.freeze("task", self.second.task.id, "an incident")
        control.unfreeze("task", self.second.task.id)
        self.handles.append(self.second.handle or "")
        self.tokens = {
            request.headers["authorization"].removeprefix("Bearer ") for request in stand.tools.calls
        }


@pytest.fixture(scope="module")
def life(stand) -> Life:
    life = Life(stand)
    wait_for(
        lambda: stand.records("freeze.lifted") and stand.metric("taskgrant_live_calls") == 0,
        "the life is on record",
    )
    return life


def test_every_event_of_a_life_is_on_record(stand, life):
    records = [one for one in trail(stand.place) if one.get("task") in (life.task, life.second.task.id)]
    events = {one["event"] for one in records}
    assert events >= {
        "task.started", "task.rotated", "task.ended", "grant.decided", "grant.requested", "grant.ended",
        "credential.issued", "call.decided", "call.settled",
    }  # fmt: skip
    everything = {one["event"] for one in trail(stand.place)}
    assert everything >= {
        "authority.opened",
        "guard.enrolled",
        "freeze.set",
        "freeze.lifted",
        "revocation.enforced",
    }
    ends = {one["grant"]: one["state"] for one in trail(stand.place) if one["event"] == "grant.ended"}
    assert all(asked.id in ends for asked in (*life.started.grants, life.pending, *life.second.grants))


def test_each_line_is_one_json_object_of_the_chain(stand, life):
    for line in (stand.place.directory / "audit.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert {"time", "event", "seq", "prev", "hash"} <= record.keys()
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", record["time"])
        assert re.fullmatch(r"[a-z]+\.[a-z]+", record["event"])
    assert verified(stand.place)
    assert (stand.place.directory / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_trail_that_was_changed_does_not_verify(stand, life, tmp_path):
    lines = (stand.place.directory / "audit.jsonl").read_text().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if '"revoked"' in line)
    changed = tmp_path / "audit.jsonl"
    for spoilt in (
        [*lines[:at], lines[at].replace('"revoked"', '"granted"'), *lines[at + 1 :]],
        [*lines[:at], *lines[at + 1 :]],
        [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]],
    ):
        changed.write_text("".join(spoilt))
        answer = taskgrant("audit", "verify", str(changed))
        assert answer.returncode == 5
        assert f"line {at + 1}" in answer.stdout


def test_what_policy_decided_names_its_revision_and_decision(stand, life):
    decided = [one for one in trail(stand.place) if one["event"] in ("call.decided", "grant.decided")]
    by_policy = [
        one
        for one in decided
        if one.get("code") in (None, "granted", "no_grant", "arguments_refused", "pending_approval", "policy_error",
                               "revoked", "denied_by_policy")
        and one.get("reason") != "answered by the sidecar"
    ]  # fmt: skip
    assert len(by_policy) >= 8
    for one in by_policy:
        assert re.fullmatch(r"[0-9a-f]{12,}", one["revision"])
        assert one["decision_id"].startswith("decision-")
    assert len({one["decision_id"] for one in by_policy}) == len(by_policy)


def test_every_call_is_on_record_with_its_code(stand, life):
    decided = [one for one in trail(stand.place) if one["event"] == "call.decided"]
    assert [one["code"] for one in decided] == [
        "granted", "granted", "pending_approval", "policy_error", "arguments_refused", "handle_invalid", "malformed",
        "malformed", "handle_invalid", "revoked", "task_ended", "granted",
    ]  # fmt: skip
    for one in decided:
        assert one["listener"] == "gateway"
        assert one["uid"] == os.getuid()
        assert one["code"] == "granted" or one["reason"]
    settled = {one["call"]: one for one in trail(stand.place) if one["event"] == "call.settled"}
    issued = {one["serial"] for one in trail(stand.place) if one["event"] == "credential.issued"}
    for one in decided:
        if one["code"] == "granted":
            assert settled[one["call"]]["outcome"] == "completed"
            assert one["serial"] in issued
            assert re.fullmatch("[0-9a-f]{64}", one["arguments_digest"])


def test_no_secret_is_written_down_anywhere(stand, life):
    """Not in the trail, not in a log, not in the state, not in the metrics; nor what the agent sent."""
    assert len(life.tokens) >= 2
    written = {
        path.relative_to(stand.place.directory): path.read_bytes()
        for path in stand.place.directory.rglob("*")
        if path.is_file() and path.name != "opa"
    }
    names = {str(path) for path in written}
    assert {"audit.jsonl", "process-1.log"} <= names
    assert any(name.startswith("state/") for name in names)
    written[Path("metrics")] = stand.admin("/metrics")[1].encode()
    for handle in life.handles:
        _absent(written, handle)
    for token in life.tokens:
        _absent(written, token)
        _absent(written, token.rpartition(".")[2])
    for marker in ("PRIVATE KEY", "Bearer ey"):
        _absent(written, marker)
    for path, content in written.items():
        if path.parts[0] != "state":  # an idempotency key is kept there, to know it again
            assert CANARY.encode() not in content, path
        if path.suffix in (".jsonl", ".log"):
            assert b"-----BEGIN" not in content, path


def _absent(written: dict[Path, bytes], secret: str) -> None:
    assert secret
    for path, content in written.items():
        assert secret.encode() not in content, path


def test_nor_by_a_guard(office):
    """Neither of what it lets through, nor of a credential that is shown to it with a token that is not its own."""
    place, key = office.place, new_key()
    control = SyncTaskgrantClient(place.control)
    started = control.start({"purpose": "guarded", "grants": [MAIL]})
    assert started.handle is not None
    arguments = {"to": "alice@example.org", "subject": CANARY}
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "send_mail", "arguments": arguments},
    }
    headers = {"content-type": "application/json", "mcp-protocol-version": LEGACY, "cookie": CANARY}
    gateway = urlsplit(place.addresses["gateway"])
    client = http.client.HTTPConnection(gateway.hostname or "", gateway.port, timeout=30)
    client.request("POST", "/office/mcp", json.dumps(message), headers | {"taskgrant-task": started.handle})
    assert b"sent to" in client.getresponse().read()
    client.close()
    issued = control.issue(started.task.id, SERVER, key.csr(AGENT))
    context = client_context(issued.certificate, key, issued.bundle)
    forged = issued.token[:-4] + "AAAA"
    with (
        socket.create_connection(("127.0.0.1", office.guard_port), 30) as plain,
        context.wrap_socket(plain, server_hostname=guard_dns(TRUST_DOMAIN, SERVER)) as secure,
    ):
        lines = ["POST /mcp HTTP/1.1", "host: a", f"authorization: Bearer {forged}", "content-length: 2"]
        secure.sendall("\r\n".join(lines).encode() + b"\r\n\r\n{}")
        assert secure.recv(4096).startswith(b"HTTP/1.1 401 ")
    control.complete(started.task.id)
    written = {path: path.read_bytes() for path in place.directory.rglob("*.log")}
    assert len(written) == 3
    written[place.directory / "audit.jsonl"] = (place.directory / "audit.jsonl").read_bytes()
    for secret in (
        started.handle,
        issued.token,
        forged,
        issued.token.split(".")[1],
        CANARY,
        "PRIVATE KEY",
        "-----BEGIN",
    ):
        _absent(written, secret)


# -- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path) -> Iterator[Path]:
    """A file system of 1 MiB for the trail."""
    mount = tmp_path / "tiny"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


def fill(mount: Path) -> Path:
    filler = mount / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return filler


@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, to mount a file system that is small enough to fill"
)
def test_what_cannot_be_recorded_does_not_happen(tmp_path, tiny, opa_binary):
    place_directory = tmp_path / "place"
    place_directory.mkdir()
    with installation(place_directory, opa_binary) as place:
        (place.directory / "audit.jsonl").symlink_to(tiny / "audit.jsonl")
        quick = {"task_binding": "handle", "heartbeat_seconds": 0.1, "staleness_seconds": 0.3}
        stand = Stand.start(place, authority=quick)
        completed, revoked = stand.task(grant()), stand.task(grant(), grant("scan"))
        frozen = stand.task(grant(), session="frozen")
        everyone = (completed, revoked, frozen)
        for one in everyone:
            assert (reply := stand.call(one.handle)).granted, reply
        filler = fill(tiny)
        # What is left of the file's last page may still take a few records.
        wait_for(lambda: not stand.call(completed.handle).granted, "the disk is full")
        before = stand.received
        for one in everyone:
            reply = stand.call(one.handle)
            assert reply.code == "audit_unavailable"
            assert "again later" in reply.text
        with pytest.raises(Refused) as refused:
            stand.task(grant())
        assert refused.value.code == "audit_unavailable"
        # What takes away never waits for the trail.
        ended = stand.control.complete(completed.task.id)
        assert ended.tasks == (completed.task.id,)
        assert ended.durable_at is None, "it holds, and is not written down yet"
        stand.control.revoke(revoked.grants[0].id)
        stand.control.freeze("session", "frozen", "an incident")
        assert stand.call(completed.handle).code == "task_ended"
        assert stand.call(revoked.handle).code == "revoked"
        assert stand.call(frozen.handle).code == "task_ended"
        assert stand.received == before, "a tool server was reached without a record"
        # Room again: what was owed is written, and life goes on.
        filler.unlink()
        wait_for(
            lambda: stand.call(revoked.handle, "scan", {"network": "192.0.2.0/24"}).granted,
            "calls pass again",
        )
        wait_for(
            lambda: {"task.ended", "grant.ended", "freeze.set"} <= events(place), "what was owed is written"
        )
        assert verified(place)
        ends = {one["task"] for one in trail(place) if one["event"] == "task.ended"}
        assert {completed.task.id, frozen.task.id} <= ends
        assert revoked.task.id not in ends


def events(place: Installation) -> set[str]:
    return {one["event"] for one in trail(place)}
