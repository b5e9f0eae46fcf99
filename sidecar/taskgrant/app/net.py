"""The rules of the network namespace that we are in, for the CLI: applied, removed, checked."""

import json
import os
import shutil
import subprocess

from taskgrant.app.config import Config
from taskgrant.errors import ConfigurationError, TaskgrantError
from taskgrant.wire.redirect import nft
from taskgrant.wire.redirect.check import Row, probe
from taskgrant.wire.redirect.ruleset import ruleset


def rules(config: Config) -> str:
    """Raises ``ConfigurationError`` when nothing is configured that they could lead to."""
    return ruleset(config.redirect, _port(config))


def apply(config: Config, force: bool = False) -> None:
    """Raises ``ConfigurationError``; ``TaskgrantError``, also for a namespace that looks like the machine's own."""
    text = rules(config)
    if not force and (devices := _hardware()):
        raise TaskgrantError(
            f"this network namespace has the machine's own devices ({', '.join(devices)}), and everybody in it but the"
            f" sidecar would be cut off; --force does it all the same"
        )
    nft.apply(text)


def remove() -> None:
    nft.remove()


def check(config: Config) -> list[Row]:
    """What the agent could do here, seen as the agent: root becomes a uid of the agent's, for good."""
    port = _port(config)
    uids = config.agent_uids
    uid = next(iter(uids))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    if os.geteuid() not in uids:
        raise TaskgrantError(f"the check is made as the agent: run it as root or as uid {uid}")
    others = {"gateway": config.listen.gateway, "proxy": config.listen.proxy, "admin": config.listen.admin}
    ports = {name: int(address.rpartition(":")[2]) for name, address in others.items()}
    return probe(port, {name: number for name, number in ports.items() if number not in (0, port)})


def _port(config: Config) -> int:
    if config.listen.transparent is None:
        raise ConfigurationError(["listen.transparent: is needed, since connections are redirected to it"])
    port = int(config.listen.transparent.rpartition(":")[2])
    if port == 0:
        raise ConfigurationError(
            ["listen.transparent: needs a port of its own here, so that rules can name it"]
        )
    return port


def _hardware() -> list[str]:
    """Devices that are no virtual ones: a pod or a namespace that was made has none."""
    program = shutil.which("ip")
    if program is None:
        raise TaskgrantError("ip is not installed; it is in the package iproute2")
    done = subprocess.run([program, "-details", "-json", "link"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TaskgrantError(f"the devices of this network namespace cannot be listed: {done.stderr.strip()}")
    return [
        link["ifname"]
        for link in json.loads(done.stdout)
        if link.get("link_type") != "loopback" and "info_kind" not in link.get("linkinfo", {})
    ]
