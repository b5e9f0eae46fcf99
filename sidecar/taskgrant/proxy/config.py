"""The proxy's own settings."""

from pydantic import BaseModel, ConfigDict, Field


class ProxyConfig(BaseModel):
    """Bounds of the call pipeline. Reaching one refuses the call; nothing is queued without a bound."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_calls: int = Field(
        1024, ge=1, le=65536, description="calls in flight at once; one more is refused (overloaded)"
    )
    max_streams: int = Field(256, ge=1, le=65536, description="standing streams of clients at once")
    list_ttl_ms: int = Field(
        5000, ge=0, le=3_600_000, description="how long a client may cache a tool list, at most"
    )
    keepalive_seconds: float = Field(
        15.0, gt=0, le=300, description="how often a quiet standing stream gets a comment"
    )
    cut_grace_ms: int = Field(
        250, ge=0, le=5000, description="how long a cut stream may take to deliver its error event"
    )
