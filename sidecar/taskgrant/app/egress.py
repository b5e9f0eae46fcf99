"""The ``egress`` section: hosts that the agent may speak with beside its tool servers, and what policy sees of that."""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from taskgrant.app.yaml_source import Place
from taskgrant.model.egress import Body, EgressHost, EgressHosts, Mode
from taskgrant.protocols.egress import NEVER

Host = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$", max_length=253)
]
Header = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
_ADDRESS = re.compile(r"^[0-9.]+$")

#: Members by which requests to model APIs say what the provider itself is to run, or to connect to, and at what cost.
_VISIBLE = (
    "connectors", "container", "include", "max_output_tokens", "max_tokens", "mcp_servers", "metadata", "model",
    "plugins", "service_tier", "store", "stream", "tool_choice", "tools", "web_search_options",
)  # fmt: skip


class EgressHostConfig(BaseModel):
    """A host that is no tool server, such as a model API or a package mirror. The key is what the agent dials: `host`
    or `host:port`. Policy says what passes: docs/egress.md.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = Field(
        Mode.READ,
        description="`read`: HTTP, each request is decided; `splice`: TLS, let through unread in a running task, for "
        "clients that pin certificates; `opaque`: any protocol, the same",
    )
    upstream: str | None = Field(
        None,
        description="for read: the absolute https:// URL that paths are appended to; default: the host's own",
    )
    trust: str = Field("system", description='for read: "system", or a PEM file of roots')
    body: Body = Field(
        Body.JSON,
        description="for read: `json` (requests carry a JSON object, read strictly and written anew) or `any`",
    )
    headers: tuple[Header, ...] = Field(
        (), description="for read: request headers that pass beside the usual ones; policy sees them"
    )
    secrets: tuple[Header, ...] = Field(
        (),
        description="for read: request headers that pass and of which policy sees the name only, such as the agent's "
        "own `authorization` or `x-api-key` for this host",
    )
    visible: tuple[Annotated[str, StringConstraints(min_length=1, max_length=128)], ...] = Field(
        (), description="for read: further members of a JSON body that policy sees with their values"
    )
    addresses: tuple[str, ...] = Field(
        (),
        description="for opaque: where the host is, which is what its name leads to; needed if the host is a name",
    )
    idle_timeout: float = Field(
        600.0,
        gt=0,
        le=86400,
        description="for splice and opaque: seconds without a byte either way after which a connection is closed",
    )


def hosts_of(config: Mapping[str, EgressHostConfig]) -> EgressHosts:
    return EgressHosts(
        tuple(
            EgressHost(
                name,
                host.mode,
                host.upstream or f"https://{name}",
                host.trust,
                host.body,
                host.headers,
                host.secrets,
                tuple(dict.fromkeys((*_VISIBLE, *host.visible))),
                host.addresses,
                host.idle_timeout,
            )
            for name, host in config.items()
        )
    )


def conflicts(config: Mapping[str, EgressHostConfig], servers: Mapping[str, str]) -> list[tuple[Place, str]]:
    """``servers``: by the hosts that they are dialled by, the names of the catalogue's."""
    faults: list[tuple[Place, str]] = []
    for name, host in config.items():
        at: Place = ("egress", name)
        bare, _, port = name.rpartition(":")
        if bare and not 0 < int(port) < 65536:
            faults.append((at, f"{port} is no port"))
        for named in {
            name,
            *([f"{name}:443", f"{name}:80"] if not bare else [bare] if port in ("80", "443") else []),
        }:
            if named in servers:
                faults.append(
                    (at, f"{name!r} is a host of servers.{servers[named]}: what it gets are tool calls")
                )
        for key in sorted(host.model_fields_set - {"mode", *_KEYS[host.mode]}):
            faults.append(((*at, key), f"is not for mode: {host.mode.value}"))
        if host.mode is Mode.READ:
            faults.extend(_read_conflicts(at, host))
        if host.mode is Mode.OPAQUE:
            faults.extend(_opaque_conflicts(at, name, host))
    return faults


def unreadable(config: Mapping[str, EgressHostConfig]) -> list[tuple[Place, str]]:
    """Files that are named and that cannot be read."""
    return [
        (("egress", name, "trust"), f'is "system" or a PEM file; {host.trust} is none')
        for name, host in config.items()
        if host.trust != "system" and not os.access(host.trust, os.R_OK)
    ]


def resolved(config: Mapping[str, EgressHostConfig], base: Path) -> dict[str, EgressHostConfig]:
    """The same, every relative path made absolute from ``base``."""
    return {
        name: host if host.trust == "system" else host.model_copy(update={"trust": str(base / host.trust)})
        for name, host in config.items()
    }


_KEYS = {
    Mode.READ: frozenset({"upstream", "trust", "body", "headers", "secrets", "visible"}),
    Mode.SPLICE: frozenset({"idle_timeout"}),
    Mode.OPAQUE: frozenset({"addresses", "idle_timeout"}),
}


def _read_conflicts(at: Place, host: EgressHostConfig) -> list[tuple[Place, str]]:
    faults: list[tuple[Place, str]] = []
    if host.upstream is not None:
        url = urlsplit(host.upstream)
        if url.scheme != "https" or not url.hostname or url.query or url.fragment or url.username:
            faults.append(((*at, "upstream"), "must be an https:// URL without user, query or fragment"))
    for key, names in (("headers", host.headers), ("secrets", host.secrets)):
        for index, name in enumerate(names):
            if name in NEVER:
                faults.append(((*at, key, index), f"{name} is the sidecar's own to say"))
            elif key == "secrets" and name in host.headers:
                faults.append(((*at, key, index), f"{name} is in headers, which policy sees"))
    return faults


def _opaque_conflicts(at: Place, name: str, host: EgressHostConfig) -> list[tuple[Place, str]]:
    bare = name.rpartition(":")[0]
    if not bare:
        return [(at, "an opaque host is dialled at one port: say host:port")]
    faults: list[tuple[Place, str]] = []
    if not host.addresses and not _ADDRESS.match(bare):
        faults.append((at, f"{bare} is a name: say in addresses where it is"))
    for index, address in enumerate(host.addresses):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            faults.append(((*at, "addresses", index), f"{address!r} is no IP address"))
    return faults
