"""The one configuration file: read, checked whole, and frozen, before a socket is bound.

What the sections must say of one another is checked here. Relative paths are relative to the file.
"""

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from taskgrant.app import egress as outlets
from taskgrant.app.config import Config, methods_of, operations_of
from taskgrant.app.yaml_source import Place, Source, read
from taskgrant.authority.config import Binding
from taskgrant.errors import ConfigurationError
from taskgrant.model.catalogue import Operation, ServerProtocol
from taskgrant.protocols.grpc.methods import DescriptorFault
from taskgrant.protocols.routes import RouteFault, compile_routes
from taskgrant.wire.config import ListenConfig
from taskgrant.wire.intake import is_loopback

_HOST = re.compile(r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$")


def load(path: str | Path) -> Config:
    """The configuration in a file. Raises ``ConfigurationError`` with every fault at once: file, line, key, reason."""
    source = read(Path(path))
    if not isinstance(source.data, dict):
        raise ConfigurationError([source.fault((), "must be a mapping of sections")])
    try:
        config = Config.model_validate(source.data)
    except ValidationError as invalid:
        faults = [_told(source, error) for error in invalid.errors()]
        raise ConfigurationError(faults) from None
    faults = [source.fault(place, reason) for place, reason in _conflicts(config)]
    if faults:
        raise ConfigurationError(faults)
    config = _resolved(config, source.path.resolve().parent)
    faults = [source.fault(place, reason) for place, reason in _unreadable(config)]
    if faults:
        raise ConfigurationError(faults)
    return config


def _told(source: Source, error: Any) -> str:
    place: Place = tuple(part for part in error["loc"] if part != "[key]")
    match error["type"]:
        case "extra_forbidden":
            reason = "is not a setting; see docs/configuration.md"
        case "missing":
            reason = "is missing"
        case _:
            reason = error["msg"].removeprefix("Value error, ")
            reason = reason[:1].lower() + reason[1:]
    return source.fault(place, reason)


def _conflicts(config: Config) -> list[tuple[Place, str]]:
    faults: list[tuple[Place, str]] = []
    hosts: dict[str, str] = {}
    for name, server in config.servers.items():
        at: Place = ("servers", name)
        url = urlsplit(server.upstream)
        if url.scheme != "https" or not url.hostname or url.query or url.fragment or url.username:
            faults.append(((*at, "upstream"), "must be an https:// URL without user, query or fragment"))
        for index, host in enumerate(server.hosts):
            if not _HOST.match(host):
                faults.append(((*at, "hosts", index), f"{host!r} is no lower-case host name or host:port"))
            if hosts.setdefault(host, name) != name:
                faults.append(((*at, "hosts", index), f"{host!r} is a host of servers.{hosts[host]} already"))
        if server.protocol is ServerProtocol.MCP and server.operations:
            faults.append(((*at, "operations"), "an MCP server names its tools itself"))
        if server.protocol is ServerProtocol.HTTP and not server.operations:
            faults.append((at, "an http server needs operations: nothing of it can be called"))
        if server.protocol is ServerProtocol.HTTP and server.versions:
            faults.append(((*at, "versions"), "are revisions of MCP; this server speaks http"))
        if server.protocol is ServerProtocol.GRPC:
            if server.descriptors is None:
                faults.append((at, "a grpc server needs descriptors: nothing of it can be called"))
            if server.operations:
                faults.append(((*at, "operations"), "are for http; the descriptors say what can be called"))
            if server.versions:
                faults.append(((*at, "versions"), "are revisions of MCP; this server speaks grpc"))
            if url.path not in ("", "/"):
                faults.append(((*at, "upstream"), "has a path, and gRPC has paths of its own"))
        elif server.descriptors is not None:
            faults.append(((*at, "descriptors"), "are for grpc"))
        faults.extend(_operation_conflicts(at, operations_of(server)))
    faults.extend(_uid_conflicts(config))
    faults.extend(_address_conflicts(config.listen))
    if config.listen.transparent is not None:
        faults.extend(_redirect_conflicts(config))
    if config.listen.trust_dir is not None and config.listen.ca_dir is None:
        faults.append((("listen", "trust_dir"), "has nothing to tell of without listen.ca_dir"))
    faults.extend(outlets.conflicts(config.egress, hosts))
    return faults


def _uid_conflicts(config: Config) -> list[tuple[Place, str]]:
    """What does not say in one way which uids are the agent's."""
    agent = config.agent
    faults: list[tuple[Place, str]] = []
    if config.authority.task_binding is not Binding.UID:
        for name in ("uids", "uid_range"):
            if getattr(agent, name):
                faults.append((("agent", name), "is for authority.task_binding: uid; else say agent.uid"))
        return faults
    if agent.uid is not None:
        faults.append(
            (("agent", "uid"), "is one uid; authority.task_binding: uid needs agent.uids or agent.uid_range")
        )
    if agent.uids and agent.uid_range is not None:
        faults.append((("agent", "uid_range"), "says what agent.uids says already; keep one of them"))
    elif not agent.uids and agent.uid_range is None:
        faults.append((("agent",), "needs uids or uid_range beside authority.task_binding: uid"))
    if agent.uid_range is not None and agent.uid_range[0] > agent.uid_range[1]:
        faults.append((("agent", "uid_range"), "ends before it begins"))
    return faults


def _address_conflicts(listen: ListenConfig) -> list[tuple[Place, str]]:
    """What no listener could bind: no address, not loopback where the agent is listened to, one taken by another."""
    faults: list[tuple[Place, str]] = []
    taken: dict[str, str] = {}
    for name in ("gateway", "proxy", "transparent", "admin"):
        address: str | None = getattr(listen, name)
        if address is None:
            continue
        host, _, port = address.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            faults.append((("listen", name), f"{address!r} is no host:port"))
        elif name != "admin" and not is_loopback(host.strip("[]")):
            faults.append((("listen", name), f"{address!r} is not on loopback (127.0.0.1 or [::1])"))
        elif (
            port != "0"
            and (other := taken.setdefault(address, name)) != name
            and (other, name) != ("proxy", "transparent")  # one listener may be both
        ):
            faults.append((("listen", name), f"{address} is the address of listen.{other} already"))
    return faults


def _redirect_conflicts(config: Config) -> list[tuple[Place, str]]:
    """The kernel tells the sidecar and the agent apart by their uids, and what is the agent's own by its port."""
    faults: list[tuple[Place, str]] = []
    if config.authority.task_binding is Binding.UID:
        if config.redirect.uid in config.agent_uids:
            reason = f"contains {config.redirect.uid}, which is redirect.uid, the sidecar's own"
            faults.append((("agent", config.agent.uids_key), reason))
    elif config.agent.uid is None:
        faults.append((("agent", "uid"), "is needed beside listen.transparent"))
    elif config.agent.uid in (0, config.redirect.uid):
        faults.append((("agent", "uid"), "must be neither root's nor redirect.uid, the sidecar's own"))
    listen = config.listen
    ours = {_port(each) for each in (listen.gateway, listen.proxy, listen.admin, listen.transparent)}
    dns = config.redirect.dns_port
    for name in ("gateway", "proxy", "admin", "transparent"):
        if _port(getattr(listen, name)) == dns:
            faults.append((("redirect", "dns_port"), f"{dns} is the port of listen.{name} already"))
    for index, port in enumerate(config.redirect.local_ports):
        if port in ours | {dns}:
            faults.append((("redirect", "local_ports", index), f"{port} is a port of the sidecar's own"))
    for index, port in enumerate(config.redirect.inbound_ports):
        if port in (ours - {_port(listen.admin)}) | {dns}:
            reason = f"{port} is a port of the sidecar's own, which is for the agent alone"
            faults.append((("redirect", "inbound_ports", index), reason))
    return faults


def _port(address: str | None) -> int:
    """0 for none, and for what is no port: the listener refuses that."""
    port = (address or "").rpartition(":")[2]
    return int(port) if port.isascii() and port.isdigit() else 0


def _unreadable(config: Config) -> list[tuple[Place, str]]:
    """Files that the configuration names and that cannot be read."""
    faults: list[tuple[Place, str]] = []
    for name, server in config.servers.items():
        if server.trust not in ("taskgrant", "system") and not os.access(server.trust, os.R_OK):
            faults.append(
                (
                    ("servers", name, "trust"),
                    f'is "taskgrant", "system" or a PEM file; {server.trust} is none',
                )
            )
    for name, server in config.servers.items():
        if server.descriptors is not None:
            try:
                methods_of(server.descriptors)
            except (OSError, DescriptorFault) as fault:
                faults.append((("servers", name, "descriptors"), f"{server.descriptors}: {fault}"))
    for index, directory in enumerate(config.policy.directories):
        if not directory.is_dir():
            faults.append((("policy", "directories", index), f"{directory} is no directory"))
    return faults + outlets.unreadable(config.egress)


def _operation_conflicts(at: Place, operations: tuple[Operation, ...]) -> list[tuple[Place, str]]:
    """What the HTTP codec will not take, at the first operation with which it does not."""
    for index in range(len(operations)):
        try:
            compile_routes(operations[: index + 1])
        except RouteFault as fault:
            return [((*at, "operations", index), str(fault))]
    return []


def _resolved(config: Config, base: Path) -> Config:
    """The same, every relative path made absolute from the file's directory."""

    def at(path: Path | str) -> Path:
        return base / path

    opa = config.policy.opa
    servers = {
        name: server.model_copy(
            update={
                "trust": server.trust if server.trust in ("taskgrant", "system") else str(at(server.trust)),
                "descriptors": server.descriptors and at(server.descriptors),
            }
        )
        for name, server in config.servers.items()
    }
    policy = config.policy.model_copy(
        update={
            "directories": tuple(at(directory) for directory in config.policy.directories),
            "opa": opa if opa.socket is None else opa.model_copy(update={"socket": at(opa.socket)}),
        }
    )
    return config.model_copy(
        update={
            "servers": servers,
            "egress": outlets.resolved(config.egress, base),
            "policy": policy,
            "runtime_dir": at(config.runtime_dir),
            "listen": config.listen.model_copy(
                update={
                    name: at(directory)
                    for name in ("ca_dir", "trust_dir")
                    if (directory := getattr(config.listen, name)) is not None
                }
            ),
            "authority": config.authority.model_copy(update={"state_dir": at(config.authority.state_dir)}),
            "control": config.control.model_copy(update={"socket": at(config.control.socket)}),
            "audit": config.audit
            if config.audit.file == "-"
            else config.audit.model_copy(update={"file": str(at(config.audit.file))}),
        }
    )
