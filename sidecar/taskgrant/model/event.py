"""What the authority tells everyone: a snapshot, then changes in order, then heartbeats when nothing changes."""

from dataclasses import dataclass
from enum import StrEnum

from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.json import JsonObject
from taskgrant.model.time import Instant


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the event stream. Another epoch, or a gap, means: take a snapshot. Wire form ``<epoch>:<seq>``."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Raises ValueError when the text is no cursor."""
        epoch, _, seq = text.rpartition(":")
        if not epoch or not seq.isascii() or not seq.isdigit():
            raise ValueError(f"not a cursor: {text!r}")
        return cls(epoch, int(seq))


class EventKind(StrEnum):
    SNAPSHOT = "snapshot"
    TASK = "task"
    GRANT = "grant"
    CREDENTIAL = "credential"
    REVOCATION = "revocation"
    FREEZE = "freeze"
    HEARTBEAT = "heartbeat"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``body`` holds identifiers and states only, never a secret or an argument."""

    cursor: Cursor
    kind: EventKind
    at: Instant
    body: JsonObject


@dataclass(frozen=True, slots=True)
class Revocation:
    """What has ended. A task that is named ends with all its grants; a grant that is named ends alone.

    ``serials`` are the certificates and ``jtis`` the tokens that end with them: those issued for the named tasks, and
    those that name an ended grant. Of traffic that is no tool call, what is with one of ``servers`` ends, and what
    belongs to no task if ``taskless``.
    """

    at: Instant
    reason: str
    tasks: frozenset[TaskId] = frozenset()
    grants: frozenset[GrantId] = frozenset()
    serials: frozenset[str] = frozenset()
    jtis: frozenset[str] = frozenset()
    servers: frozenset[str] = frozenset()
    taskless: bool = False

    @property
    def ends_something(self) -> bool:
        return bool(self.tasks or self.grants or self.servers or self.taskless)


class ScopeKind(StrEnum):
    GRANT = "grant"
    TASK = "task"
    AGENT = "agent"
    TOOL = "tool"  # "server" or "server/tool"
    SESSION = "session"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a verdict is about. ``id`` is empty for ALL."""

    kind: ScopeKind
    id: str = ""


class Verdict(StrEnum):
    APPROVE = "approve"
    REJECT = "reject"
    REVOKE = "revoke"
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of ending something, or of a verdict.

    ``enforced_at``: from then on nothing covered was sent or read. ``durable_at`` is None when it could not be stored:
    it is enforced all the same. ``unacknowledged`` names the guards that did not answer before their staleness bound,
    after which they refuse by themselves. ``begun`` names calls that a tool had received: their outcome is unknown.
    """

    enforced_at: Instant
    durable_at: Instant | None
    tasks: tuple[TaskId, ...] = ()
    grants: tuple[GrantId, ...] = ()
    unacknowledged: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()
