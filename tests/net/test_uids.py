"""``task_binding: uid`` behind a redirect: each uid has its own task by every way, and nobody else has any."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from taskgrant.app.agent.plan import NETWORK4, NETWORK6
from tests.e2e.processes import Process, wait_for
from tests.net.pod import SIDECAR_UID, Done, Pod
from tests.net.pod import pod as a_pod
from tests.net.test_dns import LOOK_UP
from tests.net.test_reach import COMMENT, NOTE
from tests.net.world import ELSEWHERE, readable_by_all

COMMENTS, NOTES, IDLE, STRANGER = 20_001, 20_002, 20_003, 20_009
#: As a pod's init container and its sidecar: rules, network, and then no more capabilities.
SIDECAR = """
import os, subprocess, sys
from taskgrant.app import net
from taskgrant.app.agent import network
from taskgrant.app.agent.plan import Uplink
from taskgrant.app.loading import load
config, world, uid, *networks = sys.argv[1:]
net.apply(load(config))
network.connect(Uplink.of(networks), int(world))
ca = str(load(config).listen.ca_dir)
os.mkdir(ca)
subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0700,uid={uid},gid={uid}", "none", ca], check=True)
become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
os.execvp("setpriv", [*become, "--", sys.executable, "-m", "taskgrant.cli.main", "run", config])
"""


@pytest.fixture(scope="module")
def shared(opa_binary) -> Iterator[Pod]:
    """A pod in which several agents run, each as a uid of its own."""
    sections = {
        "agent": {"name": "researcher", "uids": [COMMENTS, NOTES, IDLE]},
        "authority": {"state_dir": "state", "task_binding": "uid"},
    }
    with a_pod(opa_binary, **sections) as here:
        log = here.directory / "sidecar.log"
        with log.open("wb") as out:
            popen = subprocess.Popen(
                [
                    *here.world.prefix, *readable_by_all(), "unshare", "--net", "--mount",
                    sys.executable, "-c", SIDECAR, str(here.write()), str(here.world.descriptor), str(SIDECAR_UID),
                    NETWORK4, NETWORK6,
                ],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=here.environment,
                pass_fds=(here.world.descriptor,), start_new_session=True,
            )  # fmt: skip
        here.process = Process(popen, log)
        here.stack.callback(here.process.stop)
        ready = here.directory / "run" / "addresses.json"
        wait_for(ready.exists, "the sidecar is ready", here.process)
        here.connect()
        yield here


@contextmanager
def tasks(pod: Pod) -> Iterator[dict[int, str]]:
    """One for each of two uids: who has which, by its id."""
    assert pod.control is not None
    given = {COMMENTS: COMMENT, NOTES: NOTE}
    started = {
        uid: pod.control.start({"purpose": "the net tests", "uid": uid, "grants": [grant]}).task.id
        for uid, grant in given.items()
    }
    try:
        yield {uid: str(task) for uid, task in started.items()}
    finally:
        for task in started.values():
            pod.control.complete(task)


def comment(pod: Pod, uid: int, url: str, *more: str) -> Done:
    return pod.inside(
        "curl", "-sS", "--max-time", "20", "--cacert", str(pod.directory / "trust" / "ca.pem"), *more,
        "--resolve", f"desk.internal:80:{ELSEWHERE}", "--resolve", f"desk.internal:443:{ELSEWHERE}",
        "--header", "content-type: application/json", "--data", '{"text": "hello"}', url,
        uid=uid,
    )  # fmt: skip


WAYS = {
    "http": ("http://desk.internal/tickets/7/comments",),
    "https": ("https://desk.internal/tickets/7/comments",),
    "a proxy anywhere": (
        "http://desk.internal/tickets/7/comments",
        "--proxy",
        f"http://{ELSEWHERE}:3128",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_uid_has_its_own_task_and_no_other(shared, way):
    with tasks(shared) as who:
        before = len(shared.desk.calls)
        assert "done" in comment(shared, COMMENTS, *WAYS[way]).out
        assert len(shared.desk.calls) == before + 1
        assert json.loads(comment(shared, NOTES, *WAYS[way]).out)["code"] == "no_grant"
        assert json.loads(comment(shared, IDLE, *WAYS[way]).out)["code"] == "no_task"
        for uid in (0, STRANGER):
            # Reset as soon as it is accepted: before, while or after the client says something.
            assert comment(shared, uid, *WAYS[way]).status in (7, 35, 56)
            assert shared.recorded(uid=uid)["code"] == "peer_refused"
        assert len(shared.desk.calls) == before + 1
        assert shared.recorded(code="granted", uid=COMMENTS)["task"] == who[COMMENTS]
        assert shared.recorded(code="no_grant", uid=NOTES)["task"] == who[NOTES]


@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_names_are_told_to_the_agents_uids_alone(shared, over):
    look_up = [sys.executable, "-c", LOOK_UP, over, ELSEWHERE, "desk.internal", "A"]
    for uid in (COMMENTS, NOTES, IDLE):
        assert json.loads(shared.inside(*look_up, uid=uid).out) == ["NOERROR", [ELSEWHERE]]
    look_up[2] = LOOK_UP.replace("timeout=20", "timeout=0.5")
    assert shared.inside(*look_up, uid=STRANGER).status != 0
    assert shared.recorded(listener="dns", uid=STRANGER)["code"] == "peer_refused"
