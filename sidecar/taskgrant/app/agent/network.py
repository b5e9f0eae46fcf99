"""The veth pair between the agent's network namespace, which we are in, and the host's."""

import os
import secrets
import subprocess
from collections.abc import Sequence
from pathlib import Path

from taskgrant.app.agent.plan import Uplink
from taskgrant.errors import TaskgrantError

_AGENT_END = "eth0"


def connect(uplink: Uplink, host: int) -> None:
    """``host`` is a descriptor of the host's network namespace. Raises ``TaskgrantError``.

    The kernel takes the pair away with the namespace, so nothing is left behind however we end.
    """
    there = f"/proc/self/fd/{host}"
    name = f"tg-{secrets.token_hex(4)}"
    enter = ("nsenter", f"--net={there}")
    _ip(host, (), [f"link add name {_AGENT_END} type veth peer name {name} netns {there}", "link set lo up"])
    _ip(host, enter, [*_addresses(name, uplink.host), f"link set {name} up"])
    gateways = [address.partition("/")[0] for address in _usable(uplink.host)]
    _ip(
        host,
        (),
        [
            *_addresses(_AGENT_END, uplink.agent),
            f"link set {_AGENT_END} up",
            *(f"route add default via {gateway} dev {_AGENT_END}" for gateway in gateways),
        ],
    )


def _addresses(name: str, addresses: Sequence[str]) -> list[str]:
    # nodad: nobody else is on this link, and an address that is still being tried cannot be bound to.
    return [
        f"addr add {address} dev {name}" + (" nodad" if ":" in address else "")
        for address in _usable(addresses)
    ]


def _usable(addresses: Sequence[str]) -> list[str]:
    with_ipv6 = Path("/proc/sys/net/ipv6").exists()
    return [address for address in addresses if with_ipv6 or ":" not in address]


def _ip(host: int, enter: Sequence[str], lines: Sequence[str]) -> None:
    done = subprocess.run(
        [*enter, "ip", "-batch", "-"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        pass_fds=(host,),
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    if done.returncode != 0:
        raise TaskgrantError(f"the veth pair cannot be made: {done.stderr.strip().splitlines()[0]}")
