"""What a guard is told: where it listens, what it stands in front of, and how long it believes what it last
heard.
"""

import re
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from taskgrant.identity import spiffe
from taskgrant.model.catalogue import MCP_VERSIONS, Operation, Server, ServerProtocol

_LISTEN = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:\[\]\s]+):(?P<port>[0-9]{1,5})")
_UNIX = re.compile(r"unix://(?P<socket>/[^:]+)(?::(?P<path>/.*))?")

Seconds = Annotated[float, Field(gt=0, le=3600)]


class GuardConfig(BaseModel):
    """One guard, for one tool server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    server: str = Field(description="The tool server's name, as grants and the catalogue use it.")
    trust_domain: str = Field(description="The SPIFFE trust domain whose credentials are let in.")
    listen: str = Field(description="HOST:PORT to accept mutual TLS on; port 0 takes a free one.")
    upstream: str | None = Field(
        None, description="The tool server: http://…, https://…, or unix:///socket:/path (default: none)."
    )
    command: tuple[str, ...] = Field(
        (), description="In place of upstream: a tool server on stdio, started for each task."
    )
    environment: dict[str, str] = Field(
        {}, description="Variables that the command gets, beside a few usual ones."
    )
    children: int = Field(16, gt=0, description="Commands that run at once.")
    children_per_task: int = Field(4, gt=0, description="Commands that run at once for one task.")
    line_limit: int = Field(16 * 2**20, gt=0, description="Bytes of one message of the command.")
    idle_seconds: float = Field(
        3600.0, gt=0, description="From a command's last call to its end, where the task goes on."
    )
    protocol: ServerProtocol = Field(ServerProtocol.MCP, description="What the tool server speaks.")
    versions: tuple[str, ...] = Field(MCP_VERSIONS, description="MCP revisions that are let through.")
    operations: tuple[Operation, ...] = Field((), description="For HTTP: the operations that are tools.")
    staleness_seconds: Seconds = Field(
        2.0, description="Silence of the authority after which all is refused."
    )
    body_limit: int = Field(4 * 2**20, gt=0, description="Bytes of a request's body.")
    connections: int = Field(1024, gt=0, description="Open connections; more are closed at once.")
    sessions: int = Field(10_000, gt=0, description="MCP sessions remembered; beyond it the oldest ends.")
    header_seconds: Seconds = Field(10.0, description="From a request's first byte to the end of its head.")
    body_seconds: Seconds = Field(30.0, description="From the end of a request's head to that of its body.")
    connect_seconds: Seconds = Field(5.0, description="To connect to the tool server.")

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        found = _LISTEN.fullmatch(value)
        if found is None or int(found["port"]) > 65535:
            raise ValueError("must be HOST:PORT, an IPv6 host in brackets")
        return value

    @field_validator("upstream")
    @classmethod
    def _upstream(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme == "unix" and _UNIX.fullmatch(value):
            return value
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(
                "must be http://host[:port]/path, https://host[:port]/path or unix:///socket:/path"
            )
        return value

    @model_validator(mode="after")
    def _names(self) -> Self:
        spiffe.guard_dns(
            self.trust_domain, self.server
        )  # raises ValueError, which names the one that is wrong
        if bool(self.command) == (self.upstream is not None):
            raise ValueError("a guard has an upstream or a command, and not both")
        if self.command and self.protocol is not ServerProtocol.MCP:
            raise ValueError("a command speaks MCP: a guard for HTTP needs an upstream")
        if self.protocol is ServerProtocol.GRPC:
            raise ValueError("a guard speaks MCP or HTTP; a gRPC server checks certificates itself")
        if self.protocol is ServerProtocol.HTTP and not self.operations:
            raise ValueError("a guard for HTTP needs operations: without them it would let nothing in")
        return self

    @property
    def address(self) -> tuple[str, int]:
        found = _LISTEN.fullmatch(self.listen)
        assert found is not None  # noqa: S101 - validated above
        return found["host"].strip("[]"), int(found["port"])

    @property
    def socket(self) -> str | None:
        """The Unix socket of the tool server, when it is on one."""
        found = _UNIX.fullmatch(self.upstream or "")
        return found["socket"] if found else None

    @property
    def url(self) -> str:
        """The tool server as HTTP names it."""
        if self.upstream is None:
            return "http://localhost/"  # codecs want one; a command is not dialled
        found = _UNIX.fullmatch(self.upstream)
        return f"http://localhost{found['path'] or '/'}" if found else self.upstream

    def catalogue_entry(self) -> Server:
        """The tool server as codecs want it."""
        return Server(
            self.server, self.protocol, self.url, versions=self.versions, operations=self.operations
        )
