"""Carrying out what the life-cycle decides. Two rules, one for each direction:

* what *permits* is written first and shown after: until the commit, nobody can use it;
* what *restricts* is shown first and written beside: a disk that is slow or full delays it by nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from taskgrant.authority import effects as fx
from taskgrant.authority import lifecycle
from taskgrant.authority.clock import AlarmClock
from taskgrant.authority.config import AuthorityConfig
from taskgrant.authority.credentials import CredentialRegister
from taskgrant.authority.descriptions import described_grant, described_task
from taskgrant.authority.events import EventLog
from taskgrant.authority.freezes import Freezes
from taskgrant.authority.lifecycle import Step, TaskLife
from taskgrant.authority.registry import Registry
from taskgrant.authority.store import statements
from taskgrant.authority.store.opening import Store
from taskgrant.authority.store.statements import Statement
from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.grant import Grant, GrantState
from taskgrant.model.ids import TaskId
from taskgrant.model.json import JsonObject
from taskgrant.model.record import Record
from taskgrant.model.task import TaskState
from taskgrant.model.time import Instant


class Engine:
    """What the collaborators of the embedded authority share. ``schedule`` tells expiry of a new deadline."""

    def __init__(
        self, config: AuthorityConfig, clock: AlarmClock, store: Store, registry: Registry,
        credentials: CredentialRegister, freezes: Freezes, events: EventLog,
    ) -> None:  # fmt: skip
        self.config = config
        self.clock = clock
        self.store = store
        self.registry = registry
        self.credentials = credentials
        self.freezes = freezes
        self.events = events
        self.schedule: Callable[[TaskLife], None] = lambda life: None

    def writes(self, effects: Iterable[fx.Effect]) -> tuple[list[Statement], list[Record]]:
        """What has to be stored, tasks before their grants, and what is recorded with it."""
        written: list[Statement] = []
        records: list[Record] = []
        for effect in effects:
            match effect:
                case fx.Persist():
                    if effect.task is not None:
                        written.append(statements.save_task(effect.task, self.store.epoch))
                    written += [statements.save_grant(grant) for grant in effect.grants]
                case fx.Count():
                    written.append(statements.count(effect.grant))
                case fx.Recorded():
                    records.append(effect.record)
        return written, records

    def show(self, life: TaskLife, effects: Iterable[fx.Effect]) -> None:
        """Makes the task's new state the one that everyone sees."""
        self.registry.put(life)
        if life.task.live:
            self.schedule(life)
        for effect in effects:
            if isinstance(effect, fx.Publish):
                self.events.publish(effect.kind, effect.body)

    async def begin(
        self, step: Step, extra: Sequence[Statement], records: Sequence[Record], allowed: Callable[[], None]
    ) -> None:
        """A new task. ``allowed`` is asked again once it is stored: a freeze may have come meanwhile."""
        life, effects = step
        written, recorded = self.writes(effects)
        keep_clock = statements.keep("clock_offset", repr(self.clock.offset))
        try:
            await self.store.writer.submit([*written, keep_clock, *extra], [*recorded, *records])
            allowed()
        except BaseException:
            self._undo_task(life)
            raise
        self.show(life, effects)

    async def permit(
        self, task: TaskId, event: fx.Event, extra: Sequence[Statement] = (), records: Sequence[Record] = (),
        allowed: Callable[[], None] = lambda: None,
    ) -> TaskLife:  # fmt: skip
        """Stores what the event permits, and shows it if the task still allows it then. Raises ``Refused``."""
        now = self.clock.now()
        _, effects = lifecycle.apply(self.registry.require(task), event, now)
        written, recorded = self.writes(effects)
        try:
            await self.store.writer.submit([*written, *extra], [*recorded, *records])
            allowed()
            # Applied anew: what happened to the task during the commit counts, and what has ended stays ended.
            life, effects = lifecycle.apply(self.registry.require(task), event, now)
        except BaseException:
            self._undo_grants(task, effects)
            raise
        self.show(life, effects)
        return life

    def _undo_task(self, life: TaskLife) -> None:
        """Of a task that was refused after all, nothing may live on in the database."""
        now = self.clock.now()
        ended = replace(life.task, state=TaskState.REVOKED, ended_at=now, ended_by="taskgrant")
        written = [statements.save_task(ended, self.store.epoch)]
        written += [statements.save_grant(_revoked(grant, now)) for grant in life.grants.values()]
        reason = "it was refused while it was being stored"
        fields = {"task": ended.id, "state": ended.state.value, "by": "taskgrant", "reason": reason}
        self.store.writer.owe(written, [Record("task.ended", now, fields)])

    def _undo_grants(self, task: TaskId, effects: Iterable[fx.Effect]) -> None:
        life = self.registry.find(task)
        known = {} if life is None else life.grants
        now = self.clock.now()
        touched = [grant for effect in effects if isinstance(effect, fx.Persist) for grant in effect.grants]
        written = [statements.save_grant(known.get(grant.id) or _revoked(grant, now)) for grant in touched]
        fields = {"task": task, "grants": [grant.id for grant in touched]}
        self.store.writer.owe(written, [Record("grant.withdrawn", now, fields)])

    def snapshot(self) -> JsonObject:
        """The body of a snapshot event: what is live, what was revoked before it ran out, what is frozen."""
        now = self.clock.now()
        lives = [lifecycle.at(life, now) for life in self.registry.lives.values()]
        revoked = self.credentials.revoked(now)
        return {
            "tasks": [described_task(life.task) for life in lives if life.task.live],
            "grants": [described_grant(g) for life in lives for g in life.grants.values() if g.state.live],
            "revoked": {"serials": [each.serial for each in revoked], "jtis": [each.jti for each in revoked]},
            "freezes": [{"kind": scope.kind.value, "id": scope.id} for scope in self.freezes],
            "heartbeat_seconds": self.config.heartbeat_seconds,
            "staleness_seconds": self.config.staleness_seconds,
        }

    def check_fence(self) -> None:
        if self.registry.fenced:
            raise Refused(Code.AUTHORITY_UNAVAILABLE, "another instance of the authority has taken over")


def _revoked(grant: Grant, now: Instant) -> Grant:
    return replace(grant, state=GrantState.REVOKED, ended_at=now, ended_by="taskgrant")
