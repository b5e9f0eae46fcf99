"""The pod of ``examples/kubernetes/pod.yaml`` as podman runs it; tool servers and the rest of the world on a far side.

::

    pod create ─ veth pair to the far side ─ redirect ─ sidecar … ready ─ check ─ agent, orchestrator
                                             └──────── as the manifest says ────────┘

Put in the place of the manifest's: images, tool servers, an agent that runs what it is told (``tests/net/driver.py``)
with this machine's programs as its image, and the tests as one more orchestrator.
"""

import json
import os
import secrets
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import yaml

from taskgrant.app.agent import network, plan
from taskgrant.client import SyncTaskgrantClient
from taskgrant.identity.contexts import server_context
from taskgrant.identity.csr import new_key
from taskgrant.identity.spiffe import guard_id
from tests.conftest import REPOSITORY
from tests.containers import manifest
from tests.containers.manifest import Container, Manifest, Probe
from tests.containers.podman import Images, podman
from tests.e2e.processes import TRUST_DOMAIN, wait_for
from tests.e2e.recorder import Recorder
from tests.net.pod import POLICY, Pod
from tests.net.world import UPSTREAM, World, enter, measured_by_all

AGENT4 = "198.51.100.2"
MANIFEST = REPOSITORY / "examples" / "kubernetes" / "pod.yaml"
#: What a kubelet would write; look-ups come to the sidecar wherever they are for.
_RESOLVER = "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"


@dataclass
class ContainerPod(Pod):
    images: Images = field(kw_only=True)
    manifest: Manifest = field(kw_only=True)
    volumes: dict[str, Path] = field(default_factory=dict)
    prefix: str = field(default_factory=lambda: f"tg-{secrets.token_hex(4)}")

    # -- setting up --------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._serve_https()
        self._make_volumes()
        self.stack.callback(podman, "pod", "rm", "--force", "--time=0", "--ignore", self.prefix)
        podman(
            "pod", "create", f"--name={self.prefix}", "--network=none", "--share=net,ipc,uts",
            f"--infra-image={self.images.base}", "--infra-command=/usr/bin/sleep infinity",
            f"--infra-name={self.prefix}-infra",
        )  # fmt: skip
        podman("pod", "start", self.prefix)
        self._connect()
        for container in self.manifest.init:
            self.run(container)
        for container in self.manifest.containers:
            self.run(container)
        wait_for(self.driver.exists, "the agent runs")
        self.control = SyncTaskgrantClient(self.volumes["control"] / "api" / "control.sock")
        self.enrol()

    def run(self, container: Container, status: int = 0) -> str:
        """What it has printed, of one that ends; one that does not is waited for as the manifest says."""
        image = self.images.ours
        options = [f"--volume={self.directory}/resolv.conf:/etc/resolv.conf:ro"]
        options += manifest.run_options(container, self.volumes)
        args = list(container.args)
        if container.name == "agent":
            image, args = self.images.base, [sys.executable, str(self._driver_program), str(self.driver)]
            options += self._programs()
        if container.name == "orchestrator":
            options.append("--entrypoint=sleep")
            args = ["infinity"]
        stays = container.restarts or container in self.manifest.containers
        name = f"{self.prefix}-{container.name}"
        podman("rm", "--force", "--ignore", "--time=0", name)
        started = podman(
            "run", "--pull=never", f"--pod={self.prefix}", f"--name={name}", *(["--detach"] if stays else []),
            *options, image, *args, status=status,
        )  # fmt: skip
        if container.probe is not None:
            self._wait_for_probe(container, container.probe)
        return started.stdout + started.stderr

    def named(self, name: str) -> Container:
        return next(one for one in (*self.manifest.init, *self.manifest.containers) if one.name == name)

    def exec(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        return podman("exec", f"{self.prefix}-{name}", *command, status=None)

    def _wait_for_probe(self, container: Container, probe: Probe) -> None:
        """From outside of the pod, as a kubelet does."""

        def asks() -> bool:
            with closing(HTTPConnection(AGENT4, probe.port, timeout=5)) as client, suppress(OSError):
                self.world.enter(client.connect)
                client.request("GET", probe.path)
                return client.getresponse().status == 200
            state = podman("inspect", "--format={{.State.Status}}", f"{self.prefix}-{container.name}").stdout
            assert state.strip() == "running", self.log(container.name)
            return False

        wait_for(asks, f"{container.name} is ready")

    def log(self, name: str) -> str:
        done = podman("logs", f"{self.prefix}-{name}", status=None)
        return done.stdout + done.stderr

    def _serve_https(self) -> None:
        """The one tool server is behind a guard, whose certificate is the authority's; the other has one of its own."""
        key, certificate = self.directory / "tools.key", self.directory / "tools.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=tools", "-addext", f"subjectAltName=IP:{UPSTREAM}", "-keyout", key, "-out", certificate],
            capture_output=True, check=True,
        )  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.tools.serve(context)

    def enrol(self) -> None:
        assert self.control is not None
        key = new_key()
        enrolled = self.control.enrol("desk", key.csr(guard_id(TRUST_DOMAIN, "desk")))
        self.desk.serve(server_context(enrolled.certificate, key, enrolled.bundle))

    def _make_volumes(self) -> None:
        (self.directory / "resolv.conf").write_text(_RESOLVER)
        configs = {name: dict(data) for name, data in self.manifest.configs.items()}
        config = yaml.safe_load(configs["researcher-taskgrant"]["taskgrant.yaml"])
        config |= {"trust_domain": TRUST_DOMAIN, "servers": self.servers}
        config["servers"]["tools"]["trust"] = "/etc/taskgrant/tools.pem"
        config["listen"]["head_timeout"] = 1.0
        for role, uids in {"guard": [], **config["control"]["roles"]}.items():
            config["control"]["roles"][role] = [*uids, 0]
        configs["researcher-taskgrant"] = {
            "taskgrant.yaml": yaml.safe_dump(config),
            "tools.pem": (self.directory / "tools.pem").read_text(),
        }
        configs["researcher-policy"] = {"data.json": json.dumps(POLICY)}
        for name, kind in self.manifest.volumes.items():
            self.volumes[name] = path = self.directory / "volumes" / name
            path.mkdir(parents=True)
            if kind == "memory":
                subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", path], check=True)
                self.stack.callback(self._unmount, path)
            if kind in ("memory", "directory"):
                path.chmod(0o777)
            else:
                manifest.config_volume(path, configs[kind.removeprefix("config:")])
        rendezvous = self.directory / "agent"
        rendezvous.mkdir()
        agent = self.named("agent").uid
        os.chown(rendezvous, agent, agent)

    @staticmethod
    def _unmount(path: Path) -> None:
        subprocess.run(["umount", path], check=True)

    def _connect(self) -> None:
        """As a network plugin would: before anything runs in the pod."""
        pid = podman("inspect", "--format={{.State.Pid}}", f"{self.prefix}-infra").stdout.strip()
        descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            uplink = plan.Uplink.of((plan.NETWORK4, plan.NETWORK6))
            enter(descriptor, lambda: network.connect(uplink, self.world.descriptor))
        finally:
            os.close(descriptor)

    @property
    def _driver_program(self) -> Path:
        return REPOSITORY / "tests" / "net" / "driver.py"

    def _programs(self) -> list[str]:
        """This machine's programs, and the tests' Python with its packages, as the agent's image."""
        places = {
            Path("/usr"),
            Path("/etc/alternatives"),
            Path("/etc/ssl"),
            Path(sys.base_prefix),
            Path(sys.prefix),
        }
        places |= {REPOSITORY / "tests" / "net", *Path("/etc").glob("java-*")}
        mounts = [f"--volume={path}:{path}:ro" for path in sorted(places)]
        # Root's home, where Python may live, is closed to others in the image.
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        return [*mounts, f"--volume={home}:/root", f"--volume={self.driver.parent}:{self.driver.parent}"]

    # -- the processes -----------------------------------------------------------------------------------------

    @property
    def audit(self) -> Path:
        return self.volumes["private"] / "audit.jsonl"

    def sidecar_pid(self) -> int:
        return int(podman("inspect", "--format={{.State.Pid}}", f"{self.prefix}-sidecar").stdout)


@contextmanager
def container_pod(images: Images) -> Iterator[ContainerPod]:
    # Not tmp_path: uids of others have to get there.
    directory = Path(tempfile.mkdtemp(prefix="tg-pod-"))
    directory.chmod(0o755)
    with ExitStack() as stack:
        # Last of all, when nothing is mounted in it any more.
        stack.callback(shutil.rmtree, directory)
        environment = stack.enter_context(measured_by_all(directory))
        world = World()
        stack.callback(world.close)
        tools, desk = (Recorder(world.listen()) for _ in range(2))
        for recorder in (tools, desk):
            stack.callback(recorder.close)
        world.record(tools.port, desk.port)
        yield ContainerPod(
            directory, Path(), world, stack, tools, desk, environment,
            images=images, manifest=manifest.read(MANIFEST),
        )  # fmt: skip
