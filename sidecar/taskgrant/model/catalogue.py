"""The catalogue: the tool servers that this sidecar knows. What is not in it is refused (``unknown_server``)."""

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import SplitResult, urlsplit

#: MCP revisions, oldest first. The first three keep a session; the last does not.
MCP_VERSIONS = ("2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
DEFAULT_PORTS = {"http": 80, "https": 443}
MODERN_MCP_VERSION = "2026-07-28"


class ServerProtocol(StrEnum):
    MCP = "mcp"
    HTTP = "http"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class Operation:
    """An HTTP operation that is a tool: ``POST /tickets/{id}/comments`` with a JSON body → tool and arguments.

    Arguments are the path's placeholders, the ``query`` parameters named here, and the members of the JSON body.
    """

    tool: str
    method: str
    path: str
    query: tuple[str, ...] = ()
    websocket: bool = False  # it opens a WebSocket, and is nothing else


@dataclass(frozen=True, slots=True)
class Server:
    """One tool server. ``upstream`` is an absolute URL; for MCP its path is the endpoint."""

    name: str
    protocol: ServerProtocol
    upstream: str
    hosts: tuple[str, ...] = ()  # what agents dial it by, lower case, with or without a port
    versions: tuple[str, ...] = ()  # MCP revisions that it speaks; empty: learned at the first contact
    operations: tuple[Operation, ...] = ()
    trust: str = "taskgrant"  # who vouches for the server's certificate: "taskgrant" (a guard), "system", or a PEM file

    @property
    def url(self) -> SplitResult:
        return urlsplit(self.upstream)


@dataclass(frozen=True, slots=True)
class Catalogue:
    servers: tuple[Server, ...]
    by_name: dict[str, Server] = field(init=False, repr=False, compare=False)
    by_host: dict[str, Server] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {server.name: server for server in self.servers})
        object.__setattr__(
            self, "by_host", {host: server for server in self.servers for host in server.hosts}
        )

    def dialled(self, scheme: str, host: str, port: int) -> Server | None:
        """The server that an agent dials by this host, in lower case. A host that is listed without a port is dialled
        at the scheme's own.
        """
        bare = self.by_host.get(host) if port == DEFAULT_PORTS[scheme] else None
        return bare or self.by_host.get(f"{host}:{port}")
