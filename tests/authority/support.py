"""What the authority's tests share: a clock advanced by hand, a decider that is told what to say, trails."""

import heapq
import itertools
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from taskgrant.authority.config import AuthorityConfig, Binding
from taskgrant.authority.embedded import EmbeddedAuthority
from taskgrant.identity import csr, spiffe
from taskgrant.identity.signer import LocalSigner
from taskgrant.model.decision import Admission, Admitted, Ask, Decision, Query
from taskgrant.model.event import Revocation
from taskgrant.model.grant import Grant, GrantSpec
from taskgrant.model.ids import CallId
from taskgrant.model.principal import Principal, Role
from taskgrant.model.record import Record
from taskgrant.model.task import Task, TaskSpec
from taskgrant.model.time import Instant

TRUST_DOMAIN = "example.org"
AGENT = spiffe.agent_id(TRUST_DOMAIN, "researcher")
NOON = Instant(1_800_000_000.0)

ORCHESTRATOR = Principal("uid:1000", frozenset({Role.ORCHESTRATOR}))
APPROVER = Principal("uid:1001", frozenset({Role.APPROVER}))
ADMIN = Principal("uid:0", frozenset({Role.ADMIN}))
GUARD = Principal("uid:1002", frozenset({Role.GUARD}))
NOBODY = Principal("uid:65534", frozenset())

MAIL = GrantSpec(
    "mail", ("send_message",), {"properties": {"to": {"const": "a@example.org"}}, "required": ["to"]}
)


class ManualClock:
    """Time stands still until ``advance``."""

    def __init__(self, now: float = NOON) -> None:
        self._now = float(now)
        self._alarms: list[tuple[float, int, Callable[[], None], list[bool]]] = []
        self._order = itertools.count()
        self.offset = 0.0

    def now(self) -> Instant:
        return Instant(self._now)

    def hold(self, offset: float) -> None:
        self.offset = max(self.offset, offset)

    def call_at(self, at: Instant, callback: Callable[[], None]) -> "ManualAlarm":
        cancelled = [False]
        heapq.heappush(self._alarms, (at, next(self._order), callback, cancelled))
        return ManualAlarm(cancelled)

    def advance(self, seconds: float) -> None:
        until = self._now + seconds
        while self._alarms and self._alarms[0][0] <= until:
            at, _, callback, cancelled = heapq.heappop(self._alarms)
            self._now = max(self._now, at)
            if not cancelled[0]:
                callback()
        self._now = until


class ManualAlarm:
    def __init__(self, cancelled: list[bool]) -> None:
        self._cancelled = cancelled

    def cancel(self) -> None:
        self._cancelled[0] = True


class MemoryTrail:
    """Keeps records in a list; ``fails`` makes it a full disk."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.synced = 0
        self.fails = False

    def append(self, records: Sequence[Record]) -> None:
        if self.fails:
            raise OSError(28, "No space left on device")
        self.records.extend(records)

    def sync(self) -> None:
        self.synced += 1

    def events(self) -> list[str]:
        return [record.event for record in self.records]

    def fields(self, event: str) -> list[dict[str, Any]]:
        return [dict(record.fields) for record in self.records if record.event == event]


class ToldDecider:
    """Admits what it is asked, unless ``answer`` says otherwise."""

    def __init__(self) -> None:
        self.answer: Callable[[Ask], Admitted] = lambda ask: Admitted(Admission.APPROVE, ask.grants)
        self.asked: list[Ask] = []

    async def admit(self, ask: Ask) -> Admitted:
        self.asked.append(ask)
        return self.answer(ask)

    async def decide(self, query: Query) -> Decision:
        raise NotImplementedError

    async def visible(
        self, task: Task, grants: Sequence[Grant], server: str, tools: Sequence[str], now: Instant
    ) -> frozenset[str]:
        raise NotImplementedError


class Cutter:
    """A severer that notes what it was told, and in which state the authority was then."""

    def __init__(self, begun: tuple[str, ...] = ()) -> None:
        self.applied: list[Revocation] = []
        self.begun = tuple(CallId(call) for call in begun)

    async def apply(self, revocation: Revocation) -> tuple[CallId, ...]:
        self.applied.append(revocation)
        return self.begun


class Setting:
    """An open authority with everything around it."""

    def __init__(
        self, authority: EmbeddedAuthority, clock: ManualClock, trail: Any, decider: ToldDecider
    ) -> None:
        self.authority = authority
        self.clock = clock
        self.trail = trail
        self.decider = decider


@asynccontextmanager
async def opened(
    directory: Path,
    *,
    clock: ManualClock | None = None,
    trail: Any = None,
    boot_id: str = "boot-1",
    uids: Collection[int] = (),
    **changes: Any,
) -> AsyncIterator[Setting]:
    """An authority on real SQLite in ``directory``; ``changes`` go to its configuration."""
    clock = clock or ManualClock()
    trail = MemoryTrail() if trail is None else trail
    decider = ToldDecider()
    config = AuthorityConfig(state_dir=directory, **{"task_binding": Binding.HANDLE, **changes})
    authority = await EmbeddedAuthority.open(
        config, agent=AGENT, trust_domain=TRUST_DOMAIN, signer=LocalSigner.create(TRUST_DOMAIN, clock),
        decider=decider, trail=trail, clock=clock, uids=uids, boot_id=boot_id,
    )  # fmt: skip
    try:
        yield Setting(authority, clock, trail, decider)
    finally:
        await authority.close()


def spec(*grants: GrantSpec, **changes: Any) -> TaskSpec:
    return TaskSpec(**{"purpose": "summarise the week", "grants": grants, **changes})


def record(event: str = "call.decided", at: Instant = NOON) -> Record:
    return Record(event, at, {"code": "granted"})


def new_csr() -> bytes:
    return csr.new_key().csr("spiffe://example.org/whatever")
