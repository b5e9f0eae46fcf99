"""When policy is killed, slow, wrong or silent: nothing passes, each fault has its code, and the sidecar recovers."""

import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.processes import Installation, installation, wait_for
from tests.e2e.stand import Stand, grant

CALLERS = 4


@pytest.fixture(scope="module")
def stand(tmp_path_factory, opa_binary) -> Iterator[Stand]:
    with installation(tmp_path_factory.mktemp("stand"), opa_binary) as place:
        yield Stand.start(place)


class Callers:
    """Agents that call one after the other until they are told to stop; ``codes`` counts their answers."""

    def __init__(self, stand: Stand, handle: str) -> None:
        self.codes: Counter[str] = Counter()
        self.done = [0] * CALLERS
        self._stand, self._handle = stand, handle
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CALLERS)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        while not self._stop.is_set():
            reply = self._stand.call(self._handle, arguments={"text": str(number)})
            code = "granted" if reply.granted else reply.code
            with self._lock:
                self.codes[code] += 1
                self.done[number] += 1

    def wait(self, more: int) -> None:
        """Until each has made so many calls more."""
        goal = [count + more for count in self.done]
        wait_for(lambda: all(map(int.__ge__, self.done, goal)), "callers go on", self._stand.sidecar)


def test_opa_is_killed_under_load(stand):
    handle = stand.handle(grant())
    stand.mark()
    effects = len(stand.tools.calls)
    with Callers(stand, handle) as callers:
        callers.wait(5)
        # Gone for a while, and it cannot be started.
        stand.opa.rename(stand.opa.with_suffix(".away"))
        stand.signal_opa(signal.SIGKILL)
        wait_for(lambda: not stand.ready(), "the sidecar is not ready")
        callers.wait(1)  # what was decided before has arrived
        reached = len(stand.tools.calls)
        callers.wait(5)
        assert len(stand.tools.calls) == reached, "a call passed while there was no policy"
        stand.opa.with_suffix(".away").rename(stand.opa)
        wait_for(stand.ready, "the sidecar has started another OPA", stand.sidecar)
        callers.wait(3)
        assert len(stand.tools.calls) > reached
        # Killed again and again, as fast as it comes back.
        for _ in range(3):
            stand.signal_opa(signal.SIGKILL)
            wait_for(lambda: not stand.ready(), "the sidecar is not ready")
            wait_for(stand.ready, "the sidecar has started another OPA", stand.sidecar)
        callers.wait(3)
    assert callers.codes.keys() == {"granted", "policy_unavailable"}
    granted = callers.codes["granted"]
    assert len(stand.tools.calls) - effects == granted

    def settled() -> bool:
        return sum(one["outcome"] == "completed" for one in stand.records("call.settled")) == granted

    wait_for(settled, "each call is settled", stand.sidecar)
    decided = [one for one in stand.records() if one["code"] == "granted"]
    assert len({one["call"] for one in decided}) == len(decided) == granted
    assert stand.control.report(stand.records()[0]["task"])["uses"] == granted
    assert "OPA has ended, killed by SIGKILL" in stand.sidecar.log()


def test_a_policy_that_takes_too_long(stand):
    handle = stand.handle(grant())
    before = stand.received
    reply = stand.call(handle, arguments={"text": "slow"})
    assert reply.code == "policy_unavailable"
    assert stand.received == before
    wait_for(lambda: stand.call(handle).granted, "other calls pass")
    assert stand.ready()


def test_a_policy_that_fails_on_what_the_agent_sends(stand):
    """The agent can do it at will, so it stops nobody else, and is no reason to take the sidecar out of service."""
    handle = stand.handle(grant("scan"))
    before = stand.received
    for network in ("", "10.0.0.0/99", "everything", "10.0.0.0/8/8", "\u2028"):
        reply = stand.call(handle, "scan", {"network": network})
        assert reply.code == "policy_error"
        assert "cidr" not in reply.text.lower(), "what OPA says is not for the agent"
        assert stand.ready()
    assert stand.received == before
    assert stand.call(handle, "scan", {"network": "10.0.0.0/8"}).code == "denied_by_policy"
    assert stand.call(handle, "scan", {"network": "192.0.2.0/24"}).granted
    assert "net.cidr_contains" in stand.sidecar.log()


# -- an OPA that somebody else runs -----------------------------------------------------------------------------------

#: As bad as policies get: each tool is answered in another wrong way.
ODD = """package taskgrant.authz

import rego.v1

_granted(id) := {
	"allow": true, "code": "granted", "reasons": [], "grant_id": id, "elevate": null, "miss": {},
	"obligations": {"scopes": [], "mask": [], "rate_per_minute": null},
}

decision := _granted(input.context.grants[0].id) if input.resource.id in {"note", "scan"}

decision := _granted("grant-of-another-task") if input.resource.id == "other"

decision := object.union(_granted(input.context.grants[0].id), {"allow": "yes"}) if input.resource.id == "limited"

decision := object.union(_granted(input.context.grants[0].id), {"code": "no_grant"}) if input.resource.id == "guarded"

decision := {"allow": false} if input.resource.id == "probe"
"""
REST = {
    "visible": "package taskgrant.visible\n\nimport rego.v1\n\ntools := []\n",
    "egress": """package taskgrant.egress

import rego.v1

decision := {"action": "pass", "code": "granted", "reasons": []}
""",
    "grants": """package taskgrant.grants

import rego.v1

decision := {
	"decision": "approve", "code": "granted", "grants": input.context.grants, "reasons": [], "approvers": [],
}
""",
}


@contextmanager
def running(place: Installation, opa: Path, socket: Path) -> Iterator[None]:
    rules = place.directory / "odd"
    rules.mkdir(exist_ok=True)
    for name, rule in {"authz": ODD, **REST}.items():
        (rules / f"{name}.rego").write_text(rule)
    socket.unlink(missing_ok=True)
    with (place.directory / "opa.log").open("ab") as log:
        command = [
            str(opa),
            "run",
            "--server",
            "--addr",
            f"unix://{socket}",
            "--skip-version-check",
            str(rules),
        ]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(socket.exists, "OPA listens")
        yield
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait(10)


@pytest.fixture(scope="module")
def odd(tmp_path_factory, opa_binary) -> Iterator[Stand]:
    with installation(tmp_path_factory.mktemp("odd"), opa_binary) as place:
        socket = place.directory / "elsewhere.sock"
        with running(place, opa_binary, socket):
            yield Stand.start(place, policy={"directories": [], "opa": {"socket": str(socket)}})


@pytest.mark.parametrize(
    ("tool", "code"),
    [
        ("forbidden", "policy_error"),  # undefined
        ("other", "policy_error"),  # under a grant that the task does not have
        ("limited", "policy_error"),  # neither true nor false
        ("guarded", "policy_error"),  # allowed with a code of a denial
        ("scan", "arguments_refused"),  # allowed, and the grant does not cover it
    ],
)
def test_a_permit_is_not_taken_on_trust(odd, tool, code):
    odd.mark()
    handle = odd.handle(grant(tool, arguments={"properties": {"text": {"type": "string"}}}))
    before = odd.received
    assert odd.call(handle, tool, {"network": "10.0.0.0/8"}).code == code
    assert odd.received == before
    assert odd.recorded(code)["tool"] == tool
    assert odd.ready()


def test_an_opa_that_somebody_else_runs(tmp_path, opa_binary):
    with installation(tmp_path, opa_binary) as place:
        socket = place.directory / "elsewhere.sock"
        with running(place, opa_binary, socket):
            stand = Stand.start(place, policy={"directories": [], "opa": {"socket": str(socket)}})
            handle = stand.handle(grant())
            assert stand.call(handle).granted
        before = stand.received
        assert stand.call(handle).code == "policy_unavailable"
        assert stand.received == before
        wait_for(lambda: not stand.ready(), "the sidecar sees that it is gone")
        with running(place, opa_binary, socket):
            wait_for(stand.ready, "the sidecar sees that it is back")
            assert stand.call(handle).granted
