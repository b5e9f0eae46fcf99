"""The example's pod, in real containers: clients that know of nothing reach what they were granted, and nothing else.

What an agent can reach and try is told in ``tests/net``; here it is tried again, by an agent in a container of its own.
"""

import dataclasses
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.containers.pod import ContainerPod, container_pod
from tests.containers.podman import Images, podman
from tests.e2e.processes import wait_for
from tests.net.test_bypass import (
    REFUSED,
    STOPPED,
    attempt,
    nobody_hears,
    test_an_attempt_comes_to_nothing,
    test_what_does_come_out_is_heard,
    test_who_may_have_a_ping_socket_pings_nobody,
)
from tests.net.test_clients import test_an_unmodified_client_reaches_what_is_granted_and_nothing_else
from tests.net.test_reach import (
    COMMENT,
    HTTPS,
    comment,
    test_curl_calls_a_granted_tool_and_no_other,
    test_curl_reaches_a_granted_operation_and_nothing_else,
    test_fetch_of_node_reaches_a_granted_operation_and_nothing_else,
    test_https_is_reached_with_nothing_but_what_the_environment_says,
    test_https_to_anybody_else_gets_no_certificate,
    test_the_agent_has_nothing_to_work_with,
)

#: Tests of other modules that are collected here too: with this module's pod.
__all__ = [
    "test_an_attempt_comes_to_nothing",
    "test_an_unmodified_client_reaches_what_is_granted_and_nothing_else",
    "test_curl_calls_a_granted_tool_and_no_other",
    "test_curl_reaches_a_granted_operation_and_nothing_else",
    "test_fetch_of_node_reaches_a_granted_operation_and_nothing_else",
    "test_https_is_reached_with_nothing_but_what_the_environment_says",
    "test_https_to_anybody_else_gets_no_certificate",
    "test_the_agent_has_nothing_to_work_with",
    "test_what_does_come_out_is_heard",
    "test_who_may_have_a_ping_socket_pings_nobody",
]


def process(pod: ContainerPod, name: str) -> Path:
    """Of a container's first process."""
    pid = podman("inspect", "--format={{.State.Pid}}", f"{pod.prefix}-{name}").stdout.strip()
    return Path("/proc", pid)


def test_containers_are_confined_as_the_manifest_says(pod):
    for name, uid, gid in (("sidecar", 1337, 1337), ("agent", 10001, 10001), ("orchestrator", 10002, 1337)):
        status = (process(pod, name) / "status").read_text()
        for line in (
            f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}",
            f"Gid:\t{gid}\t{gid}\t{gid}\t{gid}",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
        ):
            assert line in status, name


def test_containers_share_a_network_and_nothing_else(pod):
    def namespaces(kind: str) -> set[str]:
        return {
            os.readlink(process(pod, name) / "ns" / kind) for name in ("sidecar", "agent", "orchestrator")
        }

    assert len(namespaces("net")) == 1
    assert len(namespaces("pid")) == len(namespaces("mnt")) == 3
    assert namespaces("net") != {os.readlink("/proc/self/ns/net")}


def test_the_agent_sees_of_the_sidecar_what_it_is_to_trust_and_no_more(pod):
    places = "/run/*taskgrant* /etc/*taskgrant* /var/lib/*taskgrant* /opt/*taskgrant*"
    assert pod.agent("sh", "-c", f"ls -d {places}").out.split() == ["/run/taskgrant-trust"]
    there = pod.agent("ls", "/run/taskgrant-trust")
    assert there.out.split() == ["bundle.pem", "ca.pem", "truststore.p12"]
    for change in ("> ca.pem", "> other.pem", "rm ca.pem"):
        done = pod.agent("sh", "-c", f"cd /run/taskgrant-trust && {change}")
        assert "Read-only file system" in done.err
    assert pod.exec("sidecar", "sh", "-c", "> /tmp/here").returncode != 0


def test_the_sidecar_writes_where_it_is_to_and_nowhere_else(pod):
    """The CA's key is in memory, and its alone."""
    (ca,) = (pod.volumes["ca"] / "ca").iterdir()
    assert (ca.stat().st_uid, ca.stat().st_mode & 0o777) == (1337, 0o600)
    found = pod.exec(
        "sidecar", "find", "/", "-xdev", "-writable", "-not", "-type", "l", "-not", "-path", "/proc/*"
    )
    mounted = {path for _, path, read_only in pod.named("sidecar").mounts if not read_only}
    # The image's own world-writable directories are on a read-only file system.
    assert mounted <= set(found.stdout.split()) <= mounted | {"/tmp", "/var/tmp", "/run/lock"}


def test_an_orchestrator_in_a_container_of_its_own_starts_tasks(pod):
    """As its own uid, by the socket that it shares with the sidecar."""
    command = ["taskgrant", "--socket=/run/taskgrant-control/api/control.sock", "--output=json", "task"]
    grant = json.dumps(COMMENT)
    started = pod.exec("orchestrator", *command, "start", "--purpose=the pod's tests", f"--grant={grant}")
    assert started.returncode == 0, started.stderr
    assert comment(pod)[0] == 200
    done = pod.exec("orchestrator", *command, "complete", json.loads(started.stdout)["task"]["id"])
    assert done.returncode == 0, done.stderr
    assert comment(pod)[1]["code"] in ("no_task", "task_ended")


def test_without_rules_the_check_keeps_the_agent_from_starting(pod):
    """And the container that applies them may run again; with podman's ambient capabilities, as any uid."""
    removed = pod.inside(sys.executable, "-m", "taskgrant.cli.main", "net", "remove")
    assert removed.status == 0, removed.err
    try:
        told = pod.run(pod.named("check"), status=5)
        assert "FAIL UDP over IPv4, port 443" in told
    finally:
        rules = pod.named("redirect")
        pod.run(rules)
        nobody = tuple(option.replace("--user=0:0", "--user=65534:65534") for option in rules.options)
        assert nobody != rules.options
        pod.run(dataclasses.replace(rules, options=nobody))
    assert "FAIL" not in pod.run(pod.named("check"))


ASK_TWICE = """
import json, pathlib, ssl, sys, time, urllib.request
url, between, go_on = sys.argv[1:]
trust = ssl.create_default_context()  # read once, as programs do
def ask():
    request = urllib.request.Request(url, b'{"text": "hello"}', {"content-type": "application/json"})
    return urllib.request.urlopen(request, timeout=20, context=trust).status
first = ask()
pathlib.Path(between).touch()
while not pathlib.Path(go_on).exists():
    time.sleep(0.02)
print(first, ask())
"""


def test_a_sidecar_that_is_killed_leaves_no_way_out_and_its_next_container_is_trusted(pod):
    between, go_on = (pod.driver.parent / name for name in ("between", "go-on"))
    with pod.task(COMMENT), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(pod.try_python, ASK_TWICE, HTTPS, between, go_on)
        try:
            wait_for(between.exists, "the agent has asked")
            podman("kill", "--signal=KILL", f"{pod.prefix}-sidecar")
            podman("wait", f"{pod.prefix}-sidecar")
            with nobody_hears(pod):
                assert attempt(pod, "tcp4") == attempt(pod, "tcp6") == REFUSED
                assert attempt(pod, "udp4") == STOPPED
                assert re.fullmatch(f"{STOPPED}|{REFUSED}", attempt(pod, "dns-udp"))
                assert pod.agent("curl", "-sS", "--max-time", "5", HTTPS).status == 6  # not even its name
            pod.run(pod.named("sidecar"))
            pod.enrol()
        finally:
            go_on.touch()
        assert asked.result(60) == "200 200"
    assert "FAIL" not in pod.run(pod.named("check"))


def test_a_pod_that_fails_to_start_leaves_nothing(pod):
    wrong = Images(ours="localhost/taskgrant:none", base=pod.images.base)
    with pytest.raises(AssertionError, match="localhost/taskgrant:none"), container_pod(wrong) as another:  # noqa: PT012
        assert another.directory.exists()
        another.start()
    assert not another.directory.exists()
    assert str(another.directory) not in Path("/proc/self/mounts").read_text()
    assert another.prefix not in podman("ps", "--all", "--format={{.Names}}").stdout
    assert another.prefix not in podman("pod", "ps", "--format={{.Name}}").stdout
