"""Tasks: one unit of an agent's work, with a purpose, on somebody's behalf, until a deadline."""

from dataclasses import dataclass, field
from enum import StrEnum

from taskgrant.model.grant import Grant, GrantSpec
from taskgrant.model.ids import TaskId
from taskgrant.model.json import JsonObject
from taskgrant.model.time import Instant


class TaskState(StrEnum):
    ACTIVE = "active"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REVOKED = "revoked"


class Outcome(StrEnum):
    """How an orchestrator ends a task."""

    COMPLETE = "complete"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What an orchestrator asks for. ``expires_in`` and ``idle_timeout`` are seconds; None: the configured maximum."""

    purpose: str
    grants: tuple[GrantSpec, ...] = ()
    type: str = ""
    params: JsonObject = field(default_factory=dict)
    on_behalf_of: str = ""
    session: str = ""
    expires_in: float | None = None
    idle_timeout: float | None = None
    uid: int | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the authority holds it. ``handle_digest`` is the SHA-256 of its handle, which is kept nowhere."""

    id: TaskId
    agent: str  # a SPIFFE ID
    purpose: str
    state: TaskState
    created_at: Instant
    deadline: Instant
    created_by: str
    handle_digest: bytes
    type: str = ""
    params: JsonObject = field(default_factory=dict)
    on_behalf_of: str = ""
    session: str = ""
    uid: int | None = None
    idle_timeout: float | None = None
    last_active_at: Instant | None = None
    ended_at: Instant | None = None
    ended_by: str = ""

    @property
    def live(self) -> bool:
        return self.state is TaskState.ACTIVE


@dataclass(frozen=True, slots=True)
class Started:
    """The answer to starting a task. ``handle`` is shown once: None when the answer is a replay."""

    task: Task
    grants: tuple[Grant, ...]
    handle: str | None
