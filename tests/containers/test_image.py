"""The image: what it holds, and what it does not."""

import json
from pathlib import Path

import pytest

from tests.containers import manifest
from tests.containers.pod import MANIFEST
from tests.containers.podman import Images, podman

CONFINED = ("run", "--rm", "--network=none", "--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL")


@pytest.fixture(scope="module")
def inspected(built: Images):
    return json.loads(podman("image", "inspect", built.ours).stdout)[0]["Config"]


def test_it_runs_as_a_user_of_its_own_by_number(inspected):
    """Without a name to look up, ``runAsNonRoot`` can tell that it is not root."""
    assert inspected["User"] == "1337:1337"
    assert inspected["Entrypoint"] == ["taskgrant"]


def test_it_holds_what_it_needs_and_nothing_to_build_or_install_with(built):
    look = "for each in opa nft ip python gcc go pip; do command -v $each; done; true"
    found = podman(*CONFINED, "--entrypoint=sh", built.ours, "-c", look).stdout.split()
    assert [Path(path).name for path in found] == ["opa", "nft", "ip", "python"]
    imported = "import taskgrant, pathlib; print(pathlib.Path(taskgrant.__file__).parent)"
    where = podman(*CONFINED, "--entrypoint=python", built.ours, "-c", imported).stdout
    assert where.startswith("/opt/taskgrant/lib/")


def test_the_examples_configuration_has_no_fault(built, tmp_path):
    """As it stands in the manifest."""
    example = manifest.read(MANIFEST)
    sidecar = next(one for one in example.init if one.restarts)
    volumes = {name: tmp_path / name for name in example.volumes}
    for name, kind in example.volumes.items():
        volumes[name].mkdir()
        if kind.startswith("config:"):
            manifest.config_volume(volumes[name], example.configs[kind.removeprefix("config:")])
    options = manifest.run_options(sidecar, volumes)
    done = podman("run", "--rm", "--network=none", *options, built.ours, "config", "check", sidecar.args[1])
    assert "no fault found" in done.stdout
