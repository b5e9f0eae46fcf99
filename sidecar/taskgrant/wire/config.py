"""Where the agent is listened to, and what of it is bounded (``listen:`` in the configuration)."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class ListenConfig(BaseModel):
    """Addresses are ``host:port`` on loopback; port 0 takes any free one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gateway: str = Field("127.0.0.1:15002", description="for agents that take a base URL: /<server>/…")
    proxy: str = Field(
        "127.0.0.1:15001",
        description="for agents that honour HTTP(S)_PROXY: absolute-form targets, and CONNECT",
    )
    transparent: str | None = Field(
        None,
        description="for redirected connections, on 127.0.0.1 and ::1 (default: none); at the address of proxy, both",
    )
    ca_dir: Path | None = Field(
        None,
        description="where the pod's CA keeps its key, so that agents trust it across a restart: on tmpfs or ramfs, "
        "and this user's alone (default: none, and TLS of the agent is not intercepted)",
    )
    trust_dir: Path | None = Field(
        None,
        description="where the files are written by which the agent trusts the pod's CA; the agent reads it",
    )
    admin: str = Field("127.0.0.1:15090", description="/healthz, /readyz and /metrics")
    body_limit: int = Field(4 << 20, ge=1024, le=256 << 20, description="bytes of a request's body")
    max_connections: int = Field(1024, ge=1, le=65536, description="connections of the agent to one listener")
    http2_streams: int = Field(
        100, ge=1, le=1000, description="requests that one HTTP/2 connection of the agent may have at once"
    )
    head_timeout: float = Field(
        10.0, gt=0, le=120, description="seconds for the first request's head to arrive"
    )
    body_timeout: float = Field(30.0, gt=0, le=600, description="seconds for a request's body to arrive")
    keepalive_timeout: float = Field(
        75.0, gt=0, le=3600, description="seconds between two requests of a connection"
    )
