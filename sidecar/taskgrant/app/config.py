"""What the one configuration file can say. Each package owns its section; this module owns the agent and the catalogue,
and puts the sections together. ``app.loading`` reads it.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from taskgrant.api.config import ControlConfig
from taskgrant.app import egress as outlets
from taskgrant.audit.config import AuditConfig
from taskgrant.authority.config import AuthorityConfig, Binding
from taskgrant.errors import ConfigurationError
from taskgrant.model.catalogue import MCP_VERSIONS, Catalogue, Operation, Server, ServerProtocol
from taskgrant.model.egress import EgressHosts
from taskgrant.policy.config import PolicyConfig
from taskgrant.protocols.grpc.methods import Method
from taskgrant.proxy.config import ProxyConfig
from taskgrant.wire.config import ListenConfig
from taskgrant.wire.redirect.config import RedirectConfig

_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_DOMAIN = r"^[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?$"
Name = Annotated[str, StringConstraints(pattern=_NAME)]
#: Neither root's nor (uid_t) -1, which means none.
TaskUid = Annotated[int, Field(ge=1, le=(1 << 32) - 2)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AgentConfig(_Section):
    """The agent beside this sidecar."""

    name: Name = Field(description="its SPIFFE ID is spiffe://<trust_domain>/agent/<name>")
    uid: int | None = Field(
        None, ge=0, description="the uid that its processes run as; default: the sidecar's own uid"
    )
    uids: tuple[TaskUid, ...] = Field(
        (), description="with authority.task_binding: uid, the uids that its tasks may have, each its own"
    )
    uid_range: tuple[TaskUid, TaskUid] | None = Field(
        None, description="the same as a range, `[first, last]`, both included"
    )
    own_orchestrator: bool = Field(
        False,
        description="true lets the agent's uid use the control API: for one machine without separate users",
    )

    @property
    def uids_key(self) -> str:
        """The setting that says which uids are the agent's where there are several."""
        return "uids" if self.uid_range is None else "uid_range"


class OperationConfig(_Section):
    """An HTTP operation that is a tool."""

    tool: Annotated[str, StringConstraints(min_length=1, max_length=256)] = Field(
        description="its name, as grants and policy use it"
    )
    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = Field(
        description="the method that it is called with"
    )
    path: Annotated[str, StringConstraints(pattern=r"^/")] = Field(
        description="below the upstream; a segment {name} is the argument of that name"
    )
    query: tuple[str, ...] = Field(
        (), description="query parameters that are arguments; any other is refused. The rest is a JSON object"
    )
    websocket: bool = Field(
        False, description="with method GET: it opens a WebSocket (RFC 6455), and is nothing else"
    )


class ServerConfig(_Section):
    """A tool server. The key is its name, as grants and policy use it."""

    protocol: ServerProtocol = Field(description="what it speaks")
    upstream: str = Field(description="absolute https:// URL; for MCP, of its endpoint")
    hosts: tuple[str, ...] = Field(
        (), description="names that the agent dials it by, through the proxy listener"
    )
    versions: tuple[Literal["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"], ...] = Field(
        (), description="for MCP, the revisions that it speaks; none said: those with sessions"
    )
    operations: tuple[OperationConfig, ...] = Field(
        (), description="for http, what can be called; nothing else can"
    )
    descriptors: Path | None = Field(
        None,
        description="for grpc, a file with a serialized FileDescriptorSet, imports included: its methods are the tools",
    )
    trust: str = Field(
        "taskgrant", description='"taskgrant" (behind a guard), "system", or a PEM file of roots'
    )


class Config(_Section):
    trust_domain: Annotated[str, StringConstraints(pattern=_DOMAIN)] = Field(
        description="the SPIFFE trust domain of all that is signed here; nobody else's"
    )
    agent: AgentConfig
    servers: dict[Name, ServerConfig] = Field(
        min_length=1, description="the catalogue: what the agent can reach, by name; all else is refused"
    )
    egress: dict[outlets.Host, outlets.EgressHostConfig] = Field(
        {},
        description="hosts that are no tool servers and that policy may let the agent speak with, by what it dials",
    )
    runtime_dir: Path = Field(Path("run"), description="sockets; private to this process")
    listen: ListenConfig = ListenConfig()
    redirect: RedirectConfig = RedirectConfig()
    proxy: ProxyConfig = ProxyConfig()
    policy: PolicyConfig = PolicyConfig()
    authority: AuthorityConfig = AuthorityConfig()
    control: ControlConfig = ControlConfig()
    audit: AuditConfig = AuditConfig()

    @property
    def agent_uids(self) -> Collection[int]:
        """All uids that the agent's processes may have: one, or with ``task_binding: uid`` one for each task."""
        if self.authority.task_binding is not Binding.UID:
            return (os.getuid() if self.agent.uid is None else self.agent.uid,)
        if self.agent.uid_range is None:
            return frozenset(self.agent.uids)
        first, last = self.agent.uid_range
        return range(first, last + 1)

    def methods(self) -> dict[str, dict[str, Method]]:
        """What the grpc servers can be called with, by the server's name. Raises OSError, DescriptorFault."""
        return {
            name: methods_of(server.descriptors)
            for name, server in self.servers.items()
            if server.descriptors is not None
        }

    def catalogue(self) -> Catalogue:
        return Catalogue(tuple(_server(name, server) for name, server in self.servers.items()))

    def egress_hosts(self) -> EgressHosts:
        return outlets.hosts_of(self.egress)


def check_own_uid(config: Config) -> None:
    """Raises ``ConfigurationError`` when a task could have the uid that we run as, and with it all that is ours."""
    if config.authority.task_binding is Binding.UID and (own := os.getuid()) in config.agent_uids:
        raise ConfigurationError([f"agent.{config.agent.uids_key}: contains {own}, the sidecar's own uid"])


def methods_of(descriptors: Path) -> dict[str, Method]:
    """What a file of descriptors names. Raises OSError, DescriptorFault."""
    # Two MiB and some time that a sidecar without gRPC servers need not spend.
    from taskgrant.protocols.grpc.descriptors import read_descriptors

    return read_descriptors(descriptors.read_bytes())


def operations_of(config: ServerConfig) -> tuple[Operation, ...]:
    return tuple(
        Operation(each.tool, each.method, each.path, each.query, each.websocket) for each in config.operations
    )


def _server(name: str, config: ServerConfig) -> Server:
    versions = tuple(version for version in MCP_VERSIONS if version in config.versions)
    return Server(
        name, config.protocol, config.upstream, config.hosts, versions, operations_of(config), config.trust
    )
