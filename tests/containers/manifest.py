"""A Kubernetes manifest as podman's command lines: of a pod, what the kubelet and its runtime make of it.

Only what ``examples/kubernetes`` uses, and all of that: a key that nothing here reads is an error, so that no line of a
manifest goes untested. Where podman and Kubernetes differ, Kubernetes' way is taken, or what it cannot do is refused.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Probe:
    path: str
    port: int
    attempts: int


@dataclass(frozen=True)
class Container:
    name: str
    options: tuple[str, ...]  # of ``podman run``, without what it mounts
    mounts: tuple[tuple[str, str, bool], ...]  # volume, path, whether read-only
    args: tuple[str, ...]
    command: tuple[str, ...]
    env: dict[str, str]
    uid: int
    restarts: bool  # a sidecar: the next one does not wait for its end, but for its probe
    probe: Probe | None


@dataclass(frozen=True)
class Manifest:
    """``volumes``: by name, ``config:NAME`` (of ``configs``), ``memory`` or ``directory``."""

    name: str
    configs: dict[str, dict[str, str]]
    volumes: dict[str, str]
    init: tuple[Container, ...]
    containers: tuple[Container, ...]


def read(path: Path) -> Manifest:
    documents: dict[str, list[dict[str, Any]]] = {kind: [] for kind in ("ConfigMap", "Pod")}
    for document in yaml.safe_load_all(path.read_text()):
        assert document.pop("apiVersion") == "v1"
        documents[document.pop("kind")].append(document)
    configs = {}
    for document in documents["ConfigMap"]:
        with _whole(document) as left:
            configs[left.pop("metadata")["name"]] = left.pop("data")
    (document,) = documents["Pod"]
    with _whole(document) as left:
        name = left.pop("metadata")["name"]
        spec = left.pop("spec")
    with _whole(spec) as left:
        # Nothing that reaches out of the pod, and nothing in it that the agent could use.
        for setting in ("automountServiceAccountToken", "enableServiceLinks", "shareProcessNamespace"):
            assert left.pop(setting) is False
        for setting in ("hostNetwork", "hostPID", "hostIPC"):
            assert left.pop(setting) is False
        assert left.pop("securityContext") == {
            "seccompProfile": {"type": "RuntimeDefault"}
        }  # podman's default
        volumes = {volume.pop("name"): _volume(volume) for volume in left.pop("volumes")}
        init = tuple(map(_container, left.pop("initContainers")))
        containers = tuple(map(_container, left.pop("containers")))
    return Manifest(name, configs, volumes, init, containers)


def _volume(volume: dict[str, Any]) -> str:
    with _whole(volume) as left:
        if "configMap" in left:
            return f"config:{left.pop('configMap')['name']}"
        with _whole(left.pop("emptyDir")) as kind:
            kind.pop("sizeLimit", None)
            return {"Memory": "memory", None: "directory"}[kind.pop("medium", None)]


def _container(container: dict[str, Any]) -> Container:
    with _whole(container) as left:
        left.pop("image")
        probe = _probe(left.pop("startupProbe", None))
        again = _probe(left.pop("readinessProbe", None))
        assert again is None or probe is None or (again.path, again.port) == (probe.path, probe.port)
        uid, options = _security(left.pop("securityContext"))
        return Container(
            name=left.pop("name"),
            options=options,
            mounts=tuple(map(_mount, left.pop("volumeMounts"))),
            args=tuple(left.pop("args", ())),
            command=tuple(left.pop("command", ())),
            env={one["name"]: one["value"] for one in left.pop("env", ())},
            uid=uid,
            restarts=left.pop("restartPolicy", None) == "Always",
            probe=probe,
        )


def _security(context: dict[str, Any]) -> tuple[int, tuple[str, ...]]:
    with _whole(context) as left:
        uid = left.pop("runAsUser")
        options = [f"--user={uid}:{left.pop('runAsGroup')}"]
        assert left.pop("runAsNonRoot", False) is (uid != 0)
        assert left.pop("allowPrivilegeEscalation") is False
        options.append("--security-opt=no-new-privileges")
        if left.pop("readOnlyRootFilesystem", False):
            options += [
                "--read-only",
                "--read-only-tmpfs=false",
            ]  # Kubernetes mounts nothing writable by itself
        with _whole(left.pop("capabilities")) as capabilities:
            assert capabilities.pop("drop") == ["ALL"]
            options.append("--cap-drop=ALL")
            added = capabilities.pop("add", [])
            # podman makes them ambient for other users, Kubernetes does not: there they would come to nothing.
            assert uid == 0 or not added
            options += [f"--cap-add={name}" for name in added]
    return uid, tuple(options)


def _mount(mount: dict[str, Any]) -> tuple[str, str, bool]:
    with _whole(mount) as left:
        return left.pop("name"), left.pop("mountPath"), left.pop("readOnly", False)


def _probe(probe: dict[str, Any] | None) -> Probe | None:
    if probe is None:
        return None
    with _whole(probe) as left:
        assert left.pop("periodSeconds") > 0
        with _whole(left.pop("httpGet")) as get:
            return Probe(get.pop("path"), get.pop("port"), left.pop("failureThreshold", 3))


@contextmanager
def _whole(mapping: dict[str, Any]) -> Iterator[dict[str, Any]]:
    left = dict(mapping)
    yield left
    assert not left, f"nothing here knows of {sorted(left)}"


def config_volume(directory: Path, data: Mapping[str, str]) -> None:
    """Files as the kubelet lays them: links to a hidden directory, which is exchanged as a whole."""
    inner = directory / "..2026_01_01_00_00_00.1"
    inner.mkdir()
    for name, text in data.items():
        (inner / name).write_text(text)
        (inner / name).chmod(0o644)
        (directory / name).symlink_to(Path("..data", name))
    (directory / "..data").symlink_to(inner.name)
    for path in (directory, inner):
        path.chmod(0o755)


def run_options(container: Container, volumes: Mapping[str, Path]) -> list[str]:
    """Options of ``podman run`` that are the manifest's."""
    mounts = [
        f"--volume={volumes[volume]}:{path}{':ro' if read_only else ''}"
        for volume, path, read_only in container.mounts
    ]
    env = [f"--env={name}={value}" for name, value in container.env.items()]
    entry = [f"--entrypoint={json.dumps(list(container.command))}"] if container.command else []
    return [*container.options, *mounts, *env, *entry]
