"""The authority's section of the configuration: where it keeps its state, and the bounds that nobody can ask beyond."""

from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Binding(StrEnum):
    """Which task a call belongs to: configured, never guessed."""

    SINGLE = "single"  # one task at a time
    HANDLE = "handle"  # each call shows its task's handle
    UID = "uid"  # each task has a uid of its own, which owns the sockets that its calls come by


class AuthorityConfig(BaseModel):
    """Times are seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state_dir: Path = Field(
        default=Path("state"),
        description="Directory of the database; made with mode 0700. One authority at a time holds it.",
    )
    task_binding: Binding = Field(
        default=Binding.SINGLE,
        description=(
            "single: one task at a time, a second start is refused; handle: calls show their task's handle;"
            " uid: calls belong to the task that was started with the uid of their client's process."
        ),
    )
    task_max_life: float = Field(
        default=8 * 3600.0, gt=0, description="Longest life of a task, asked for or not."
    )
    grant_max_life: float = Field(
        default=3600.0, gt=0, description="Longest life of a grant, asked for or not."
    )
    credential_ttl: float = Field(
        default=120.0, ge=5, le=300, description="Life of a certificate and its token."
    )
    credential_backdate: float = Field(
        default=60.0,
        ge=0,
        le=60,
        description="How far a certificate's notBefore lies back, for clocks that are behind.",
    )
    guard_ttl: float = Field(
        default=3600.0, ge=60, le=86400, description="Life of a guard's server certificate."
    )
    heartbeat_seconds: float = Field(default=0.5, gt=0, description="Longest silence on the event stream.")
    staleness_seconds: float = Field(
        default=2.0,
        gt=0,
        description="A guard that has heard nothing for so long refuses; revoking waits no longer than this.",
    )
    max_live_tasks: int = Field(default=10_000, ge=1, description="Tasks that may run at once.")
    max_grants_per_task: int = Field(
        default=256, ge=1, description="Grants, live or over, that one task may gather."
    )
    event_buffer: int = Field(default=10_000, ge=16, description="Events kept for subscribers that resume.")
    subscriber_queue: int = Field(
        default=1_000,
        ge=16,
        description="Events that may wait for one subscriber; a slower one is cut and must resume.",
    )
    ended_kept: int = Field(
        default=1_000, ge=1, description="Ended tasks kept in memory; older ones are read from the database."
    )
    retention: float = Field(
        default=30 * 86400.0, ge=3600, description="How long ended tasks stay in the database."
    )
    idempotency_age: float = Field(
        default=86400.0, ge=60, description="How long an Idempotency-Key is remembered."
    )
    idempotency_kept: int = Field(
        default=10_000, ge=1, description="How many Idempotency-Keys are remembered."
    )
    fsync: Literal["interval", "always"] = Field(
        default="interval",
        description="interval: records are with the kernel at once, on the disk within 1 s; always: on the disk first.",
    )
