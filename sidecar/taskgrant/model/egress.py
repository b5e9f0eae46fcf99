"""Egress: traffic that is no tool call (model APIs, package mirrors), and the hosts that it may be for.

A host is listed by a person; policy decides on what is listed, request by request, or for a connection that is let
through unread once, when it is opened.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from taskgrant.model.call import Headers
from taskgrant.model.catalogue import DEFAULT_PORTS
from taskgrant.model.codes import Code
from taskgrant.model.ids import CallId
from taskgrant.model.json import JsonObject
from taskgrant.model.task import Task
from taskgrant.model.time import Instant


class Mode(StrEnum):
    """How much of the traffic with a host is looked at."""

    READ = "read"  # HTTP: each request is decided on
    SPLICE = "splice"  # TLS, let through unread
    OPAQUE = "opaque"  # any protocol, let through unread


class Body(StrEnum):
    """What requests to a host may carry."""

    JSON = "json"  # an object, read strictly and encoded anew
    ANY = "any"


@dataclass(frozen=True, slots=True)
class EgressHost:
    """``name`` is what the agent dials: ``host`` or ``host:port``, in lower case."""

    name: str
    mode: Mode = Mode.READ
    upstream: str = ""  # the absolute https:// URL that paths are appended to
    trust: str = "system"  # who vouches for the host's certificate: "system", or a PEM file of roots
    body: Body = Body.JSON
    headers: tuple[str, ...] = ()  # that pass beside the usual ones, for policy to see
    secrets: tuple[str, ...] = ()  # that pass too, of which policy sees the names only
    visible: tuple[str, ...] = ()  # members of a JSON body that policy sees with their values
    addresses: tuple[str, ...] = ()  # for opaque: where the host is
    idle_timeout: float = 600.0  # for splice and opaque: seconds without a byte either way

    @property
    def host(self) -> str:
        return self.name.rpartition(":")[0] or self.name

    @property
    def port(self) -> int | None:
        """None: the one of the scheme that it is dialled by."""
        host, _, port = self.name.rpartition(":")
        return int(port) if host else None


@dataclass(frozen=True, slots=True)
class EgressHosts:
    hosts: tuple[EgressHost, ...] = ()
    _by_name: Mapping[str, EgressHost] = field(init=False, repr=False, compare=False)
    _by_address: Mapping[tuple[str, int], EgressHost] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {each.name: each for each in self.hosts})
        by_address = {
            (address, each.port or 0): each
            for each in self.hosts
            if each.mode is Mode.OPAQUE
            for address in (*each.addresses, each.host)
        }
        object.__setattr__(self, "_by_address", by_address)

    def dialled(self, scheme: str, host: str, port: int) -> EgressHost | None:
        """The host that is dialled so, by HTTP; one that is listed without a port is dialled at the scheme's own."""
        bare = self._by_name.get(host) if port == DEFAULT_PORTS[scheme] else None
        found = bare or self._by_name.get(f"{host}:{port}")
        if found is None or found.mode is Mode.OPAQUE or (found.mode is Mode.SPLICE and scheme != "https"):
            return None
        return found

    def opaque(self, host: str, port: int) -> EgressHost | None:
        """The same for one whose traffic is let through whatever it is, by its name or by an address of it."""
        return self._by_address.get((host, port))


@dataclass(frozen=True, slots=True)
class EgressRequest:
    """One HTTP request. ``path`` is in the one form in which it is sent on; ``secrets`` are for the host alone."""

    id: CallId
    host: EgressHost
    method: str
    path: str
    query: tuple[tuple[str, str | None], ...] = ()
    headers: Headers = ()
    secrets: Headers = ()
    body: bytes = b""
    members: tuple[str, ...] = ()  # names of all members of a JSON body
    visible: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EgressConnection:
    """One connection that is to be let through unread."""

    id: CallId
    host: EgressHost


class EgressAction(StrEnum):
    PASS = "pass"  # noqa: S105 - no password
    SPLICE = "splice"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class EgressQuery:
    """May this pass? ``request``: for policy only."""

    about: EgressRequest | EgressConnection
    agent: str
    task: Task | None
    now: Instant
    request: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EgressDecision:
    """The answer; never ``PASS`` for a connection, nor ``SPLICE`` for a request."""

    action: EgressAction
    code: Code
    reasons: tuple[str, ...] = ()
    decision_id: str = ""
    revision: str = ""

    @property
    def reason(self) -> str:
        return "; ".join(self.reasons)
