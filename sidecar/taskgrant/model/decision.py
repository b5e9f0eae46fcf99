"""What OPA is asked, and what it answers. Every decision has a code and a reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from taskgrant.model.call import Call
from taskgrant.model.codes import Code
from taskgrant.model.grant import Grant, GrantSpec
from taskgrant.model.ids import GrantId
from taskgrant.model.json import JsonObject
from taskgrant.model.task import Task
from taskgrant.model.time import Instant


@dataclass(frozen=True, slots=True)
class Query:
    """May this call pass under these grants? ``calls``: the task's earlier calls; ``request``: for policy only."""

    call: Call
    task: Task
    grants: tuple[Grant, ...]
    now: Instant
    calls: int = 0
    request: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Obligations:
    """What a permit asks of us. Merged one way: masks unite, the lowest rate wins, scopes are the chosen grant's."""

    scopes: tuple[str, ...] = ()
    rate_per_minute: int | None = None
    mask: tuple[str, ...] = ()  # JSON pointers into the arguments


@dataclass(frozen=True, slots=True)
class Decision:
    """OPA's answer. ``decision_id`` and ``revision`` tie it to OPA's own log and to the policy that was loaded."""

    allow: bool
    code: Code
    reasons: tuple[str, ...] = ()
    grant_id: GrantId | None = None
    can_ask: bool = False
    obligations: Obligations = Obligations()
    miss: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # grant → what failed, for people only
    decision_id: str = ""
    revision: str = ""

    @property
    def reason(self) -> str:
        return "; ".join(self.reasons)


class Admission(StrEnum):
    APPROVE = "approve"
    ASK = "ask"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Ask:
    """May this task be started, or these grants be added to it? ``task`` is the task as it would stand."""

    task: Task
    grants: tuple[GrantSpec, ...]
    requested_by: str
    now: Instant
    agent: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """The answer: what each asked grant may become, in the order asked. Policy may narrow, and says so in ``notes``."""

    admission: Admission
    grants: tuple[GrantSpec, ...] = ()
    reasons: tuple[str, ...] = ()
    approvers: tuple[str, ...] = ()
    code: Code = Code.GRANTED
    decision_id: str = ""
    revision: str = ""
