"""On the host: checks what is needed, starts the stage, and hands on signals and the exit code."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from taskgrant.app import net
from taskgrant.app.agent.plan import RESOLVER, Account, Plan, Uplink
from taskgrant.app.agent.reaper import Reaper
from taskgrant.app.config import Config
from taskgrant.app.loading import load
from taskgrant.authority.config import Binding
from taskgrant.errors import ConfigurationError, TaskgrantError
from taskgrant.model.trust import trust_environment

_PROGRAMS = ("ip", "mount", "nft", "nsenter", "setpriv", "unshare")
#: linux/capability.h
_CAPABILITIES = {
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_ADMIN": 21,
}


def run_agent(
    path: Path, command: Sequence[str], networks: Sequence[str], sidecar_log: Path | None = None
) -> int:
    """The command's exit code, or 125. Raises ``ConfigurationError``, ``TaskgrantError``."""
    config = load(path)
    if config.authority.task_binding is Binding.UID:
        raise ConfigurationError(
            ["authority.task_binding: run-agent runs one agent, as agent.uid; uid needs one for each task"]
        )
    (agent_uid,) = config.agent_uids
    ruleset = net.rules(config)
    try:
        uplink = Uplink.of(networks)
    except ValueError as wrong:
        raise ConfigurationError([f"--network: {wrong}"]) from None
    _check_machine()
    with tempfile.TemporaryDirectory(prefix="taskgrant-") as name:
        resolver = Path(name) / "resolv.conf"
        resolver.write_text(RESOLVER)
        resolver.chmod(0o644)
        namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            plan = Plan(
                config=str(path.resolve()),
                sidecar=_account(config.redirect.uid),
                agent=_account(agent_uid),
                command=tuple(command),
                uplink=uplink,
                ruleset=ruleset,
                resolver_file=str(resolver),
                ready_file=str(config.runtime_dir / "addresses.json"),
                trust=_trust(config),
                ca_dir=None if config.listen.ca_dir is None else str(config.listen.ca_dir),
                sidecar_log=None if sidecar_log is None else str(sidecar_log.resolve()),
                namespace=namespace,
            )
            return _stage(plan)
        finally:
            os.close(namespace)


def _stage(plan: Plan) -> int:
    apart = ["setpriv", "--pdeathsig=KILL", "unshare", "--net", "--mount", "--propagation=private"]
    with Reaper() as reaper:
        # A session of its own, so that Ctrl-C comes once, through us.
        stage = subprocess.Popen(
            [*apart, sys.executable, "-P", "-m", "taskgrant.app.agent.stage", plan.encode()],
            pass_fds=(plan.namespace,),
            start_new_session=True,
        )
        while True:
            signals, ended, _ = reaper.wait()
            if stage.pid in ended:
                stage.returncode = ended[stage.pid]
                return stage.returncode
            for number in signals:
                os.kill(stage.pid, number)


def _check_machine() -> None:
    if sys.platform != "linux":
        raise TaskgrantError("run-agent needs Linux: it is made of its namespaces and of nftables")
    held = _effective_capabilities()
    missing = [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    if missing:
        raise TaskgrantError(
            f"run-agent makes namespaces and changes users: run it as root, or with {', '.join(missing)}"
        )
    absent = [program for program in _PROGRAMS if shutil.which(program) is None]
    if absent:
        raise TaskgrantError(f"not installed: {', '.join(absent)} (packages iproute2, nftables, util-linux)")


def _effective_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return int(value, 16)
    return 0


def _trust(config: Config) -> dict[str, str]:
    directory = config.listen.trust_dir
    return {} if directory is None else trust_environment(directory)


def _account(uid: int) -> Account:
    try:
        found = pwd.getpwuid(uid)
    except KeyError:
        return Account(uid, uid, str(uid), "/")
    return Account(uid, found.pw_gid, found.pw_name, found.pw_dir)
