"""The example's manifest: what it must say for the promises to hold, and that its configuration is one."""

import dataclasses

import pytest
import yaml

from taskgrant.model.trust import trust_environment
from tests.containers import manifest
from tests.containers.manifest import Manifest, read
from tests.containers.pod import MANIFEST

TRUST = "/run/taskgrant-trust"


@pytest.fixture(scope="module")
def example() -> Manifest:
    return read(MANIFEST)


@pytest.fixture(scope="module")
def config(example):
    return yaml.safe_load(example.configs["researcher-taskgrant"]["taskgrant.yaml"])


def test_one_container_alone_has_a_capability(example):
    rules, sidecar, check = example.init
    having = [
        one.name for one in (*example.init, *example.containers) if "--cap-add" in " ".join(one.options)
    ]
    assert having == [rules.name]
    assert "--cap-add=NET_ADMIN" in rules.options
    assert not rules.restarts
    assert sidecar.restarts
    assert sidecar.probe is not None
    assert not check.restarts
    assert [one.args[:2] for one in (rules, check)] == [("net", "apply"), ("net", "check")]


def test_uids_are_those_of_the_configuration(example, config):
    rules, sidecar, check = example.init
    agent, orchestrator = example.containers
    assert sidecar.uid == config["redirect"]["uid"]
    assert check.uid == agent.uid == config["agent"]["uid"]
    assert {uid for uids in config["control"]["roles"].values() for uid in uids} == {orchestrator.uid}
    assert len({one.uid for one in (rules, sidecar, agent, orchestrator)}) == 4


def test_nothing_of_the_sidecars_is_mounted_elsewhere(example, config):
    writable: dict[str, set[str]] = {}
    for one in (*example.init, *example.containers):
        for volume, _, read_only in one.mounts:
            if not read_only:
                writable.setdefault(volume, set()).add(one.name)
    assert writable == {
        "private": {"sidecar"},
        "ca": {"sidecar"},
        "trust": {"sidecar"},
        "control": {"sidecar", "orchestrator"},
    }
    agent, _ = example.containers
    assert agent.mounts == (("trust", TRUST, True),)
    assert example.volumes["ca"] == "memory"
    assert config["listen"]["ca_dir"].startswith("/run/taskgrant-ca/")


def test_the_agent_is_told_to_trust_what_the_sidecar_writes(example, config):
    agent, _ = example.containers
    assert config["listen"]["trust_dir"] == TRUST
    assert agent.env == trust_environment(TRUST)


def test_what_nothing_reads_is_an_error(tmp_path):
    """So that the tests run what the manifest says, all of it."""
    text = MANIFEST.read_text()
    wrong = tmp_path / "pod.yaml"
    for given, written, told in (
        ("runAsNonRoot: true", "runAsNonRoot: true\n        privileged: true", "privileged"),
        ("enableServiceLinks: false", "enableServiceLinks: false\n  hostAliases: []", "hostAliases"),
        ("restartPolicy: Always", "restartPolicy: Always\n      tty: true", "tty"),
    ):
        wrong.write_text(text.replace(given, written, 1))
        with pytest.raises(AssertionError, match=told):
            read(wrong)


def test_what_kubernetes_does_not_do_is_refused(tmp_path):
    """There a capability comes to nothing for who is not root."""
    wrong = tmp_path / "pod.yaml"
    text = MANIFEST.read_text().replace("runAsUser: 0", "runAsUser: 65534\n        runAsNonRoot: true", 1)
    wrong.write_text(text)
    with pytest.raises(AssertionError):
        read(wrong)


def test_options_of_podman_say_the_same(example, tmp_path):
    agent, _ = example.containers
    options = manifest.run_options(agent, {"trust": tmp_path})
    assert f"--volume={tmp_path}:{TRUST}:ro" in options
    assert "--user=10001:10001" in options
    assert {"--cap-drop=ALL", "--security-opt=no-new-privileges"} <= set(options)
    entered = dataclasses.replace(agent, command=("sleep", "1"))
    assert '--entrypoint=["sleep", "1"]' in manifest.run_options(entered, {"trust": tmp_path})
