"""What can happen to a task, and what comes of it: events and effects of the pure life-cycle, as data."""

from dataclasses import dataclass, field
from typing import TypeAlias

from taskgrant.model.event import EventKind
from taskgrant.model.grant import Grant
from taskgrant.model.ids import GrantId
from taskgrant.model.json import JsonObject
from taskgrant.model.record import Record
from taskgrant.model.task import Outcome, Task

# --- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Requested:
    """Grants, already admitted by policy, are added; each is active, or pending until a person approves it."""

    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class Approved:
    grant: GrantId
    by: str


@dataclass(frozen=True, slots=True)
class Rejected:
    grant: GrantId
    by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Revoked:
    """``grants`` of None ends the whole task. Fencing and freezing are revocations too; ``reason`` says which."""

    by: str
    reason: str
    grants: frozenset[GrantId] | None = None


@dataclass(frozen=True, slots=True)
class Reserved:
    """A use is taken. ``counted`` is False for a retry under the identity of a use that was counted already."""

    grant: GrantId
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Settled:
    """A reserved use is over. If nothing was sent, it is given back."""

    grant: GrantId
    sent: bool
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Finished:
    """The orchestrator completed or cancelled the task."""

    how: Outcome
    by: str


@dataclass(frozen=True, slots=True)
class Rotated:
    """The task has a new handle; the old one is dead."""

    digest: bytes
    by: str


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed."""


Event: TypeAlias = (
    Requested | Approved | Rejected | Revoked | Reserved | Settled | Finished | Rotated | Ticked
)

# --- effects ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Persist:
    """Store these as they now stand."""

    task: Task | None = None
    grants: tuple[Grant, ...] = ()


@dataclass(frozen=True, slots=True)
class Count:
    """Store this grant's counters. ``used`` of one grant changed, nothing else did: the call path's only write."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class Publish:
    kind: EventKind
    body: JsonObject


@dataclass(frozen=True, slots=True)
class Sever:
    """Cut what runs under these grants; ``whole`` when the task itself is over."""

    reason: str
    whole: bool
    grants: frozenset[GrantId] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Recorded:
    record: Record


Effect: TypeAlias = Persist | Count | Publish | Sever | Recorded
