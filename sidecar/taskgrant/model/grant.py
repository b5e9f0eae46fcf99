"""Grants: in one task, which tools of one server, with which arguments, how often, until when.

States (design, section 5)::

    pending ──approve──▶ active ──last use reserved──▶ exhausted ──refund──▶ active
       │                   │                               │
       └──reject──▶ rejected   └── expired · revoked ◀─────┘

A use goes reserved → sent → settled. A reserved use counts as used at once; it is given back only if not one byte of
the call was written upstream.
"""

from dataclasses import dataclass
from enum import StrEnum

from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.json import JsonObject
from taskgrant.model.time import Instant


class GrantState(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    EXHAUSTED = "exhausted"
    EXPIRED = "expired"
    REVOKED = "revoked"
    REJECTED = "rejected"

    @property
    def live(self) -> bool:
        """True while calls already admitted under the grant may still run."""
        return self in (GrantState.ACTIVE, GrantState.EXHAUSTED)


@dataclass(frozen=True, slots=True)
class GrantSpec:
    """What is asked for. ``arguments`` is a schema of the closed fragment (``model.schema``); None admits no argument.

    ``expires_in`` and ``idle_timeout`` are seconds; None takes the configured maximum, or no idle time-out. ``within``
    is set by policy, never by who asks: canonical schemas of the agent's boundary, each of which arguments must satisfy
    too.
    """

    server: str
    tools: tuple[str, ...]
    arguments: JsonObject | None = None
    max_uses: int | None = None
    expires_in: float | None = None
    idle_timeout: float | None = None
    reason: str = ""
    within: tuple[JsonObject, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as the authority holds it.

    ``schemas`` are canonical schema documents, one per ancestor and its own; arguments must satisfy each of them.
    ``used`` counts uses that are reserved or settled; ``in_flight`` those reserved and not yet settled.
    """

    id: GrantId
    task: TaskId
    server: str
    tools: tuple[str, ...]
    schemas: tuple[JsonObject, ...]
    state: GrantState
    created_at: Instant
    expires_at: Instant
    requested_by: str
    max_uses: int | None = None
    idle_timeout: float | None = None
    reason: str = ""
    used: int = 0
    in_flight: int = 0
    last_used_at: Instant | None = None
    ended_at: Instant | None = None
    ended_by: str = ""
    notes: tuple[str, ...] = ()  # what policy narrowed or why it asked, for people
    approvers: tuple[str, ...] = ()  # who may approve a pending grant, when policy names them
    activated_at: Instant | None = None  # when it was approved; its idle time counts from there

    @property
    def remaining(self) -> int | None:
        return None if self.max_uses is None else self.max_uses - self.used
