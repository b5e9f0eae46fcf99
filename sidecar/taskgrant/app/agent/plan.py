"""What is to be set up, and the command lines and environment that follow from it. Pure."""

import ipaddress
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

#: For the agent's resolv.conf: look-ups are redirected to the sidecar wherever they are for, and loopback is always up.
#: It answers at once, or is being started again.
RESOLVER = """\
# Answered by the sidecar, as any other address is.
nameserver 127.0.0.1
options timeout:1 attempts:5
"""
#: The documentation ranges, which are nobody's: a veth pair in them clashes with no real network.
NETWORK4 = "198.51.100.0/30"
NETWORK6 = "2001:db8:7467::/126"
_NOT_HANDED_ON = frozenset({"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"})
_OURS = "TASKGRANT_"


@dataclass(frozen=True, slots=True)
class Account:
    uid: int
    gid: int
    name: str
    home: str


@dataclass(frozen=True, slots=True)
class Uplink:
    """The two ends of the veth pair: addresses with their prefix length, the host's first."""

    host: tuple[str, ...]
    agent: tuple[str, ...]

    @classmethod
    def of(cls, networks: Iterable[str]) -> "Uplink":
        """The first two addresses of each network. Raises ValueError for what is none, or has no two."""
        host: list[str] = []
        agent: list[str] = []
        for network in map(ipaddress.ip_network, networks):
            hosts = iter(network.hosts())
            ends = (next(hosts, None), next(hosts, None))
            if ends[1] is None:
                raise ValueError(f"{network} has no two addresses")
            host.append(f"{ends[0]}/{network.prefixlen}")
            agent.append(f"{ends[1]}/{network.prefixlen}")
        return cls(tuple(host), tuple(agent))


@dataclass(frozen=True, slots=True)
class Plan:
    config: str
    sidecar: Account
    agent: Account
    command: tuple[str, ...]
    uplink: Uplink
    ruleset: str
    resolver_file: str  # what the agent has for resolv.conf
    ready_file: str
    sidecar_log: str | None
    trust: Mapping[str, str]  # variables by which the agent trusts the sidecar's CA
    ca_dir: str | None  # where that CA keeps its key
    namespace: int  # file descriptor of the host's network namespace

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> "Plan":
        data = json.loads(text)
        return cls(
            **{
                **data,
                "sidecar": Account(**data["sidecar"]),
                "agent": Account(**data["agent"]),
                "command": tuple(data["command"]),
                "uplink": Uplink(tuple(data["uplink"]["host"]), tuple(data["uplink"]["agent"])),
            }
        )


def unprivileged(account: Account, command: Sequence[str]) -> tuple[str, ...]:
    """The command as this account, with no capability and no way to gain one; killed when its parent dies."""
    return (
        "setpriv",
        f"--reuid={account.uid}",
        f"--regid={account.gid}",
        "--clear-groups",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--bounding-set=-all",
        "--no-new-privs",
        "--pdeathsig=KILL",
        "--",
        *command,
    )


def environment(account: Account, given: Mapping[str, str]) -> dict[str, str]:
    """The agent's: without proxies (it needs none, and they would name one that it cannot reach) and what is ours."""
    kept = {
        name: value
        for name, value in given.items()
        if name.lower() not in _NOT_HANDED_ON and not name.startswith(_OURS)
    }
    return {**kept, "HOME": account.home, "USER": account.name, "LOGNAME": account.name}
