"""The life of a task and its grants: ``(state, event, now) → (state, effects)``, pure.

::

    task    active ──▶ completed | cancelled | expired | revoked
    grant   pending ──▶ active ◀──▶ exhausted          pending ──▶ rejected
               └──────────┴─────────────┴──▶ expired | revoked

What has ended stays ended; only an exhausted grant becomes active again, when a use is given back before it expires. A
grant never outlives its task. An event that the state does not allow raises ``Refused`` and changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from taskgrant.authority import effects as fx
from taskgrant.authority.deadlines import grant_due, next_due, task_due
from taskgrant.authority.descriptions import described_grant, described_task, recorded_grant, recorded_task
from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.event import EventKind
from taskgrant.model.grant import Grant, GrantState
from taskgrant.model.ids import GrantId
from taskgrant.model.record import Record
from taskgrant.model.task import Outcome, Task, TaskState
from taskgrant.model.time import Instant


@dataclass(frozen=True, slots=True)
class TaskLife:
    """One task with all its grants, those that are over included. ``active_at`` is when it last did something."""

    task: Task
    grants: Mapping[GrantId, Grant]
    active_at: Instant

    def shown(self) -> Task:
        return replace(self.task, last_active_at=self.active_at)

    def due(self) -> Instant:
        """When the next thing of it expires; meaningless for a task that has ended."""
        return next_due(self.task, tuple(self.grants.values()), self.active_at)


Step = tuple[TaskLife, tuple[fx.Effect, ...]]


def start(task: Task, grants: Iterable[Grant]) -> Step:
    """A new task with its first grants."""
    life = TaskLife(task, {}, task.created_at)
    record = Record("task.started", task.created_at, recorded_task(task))
    begun: tuple[fx.Effect, ...] = (
        fx.Persist(task=task),
        fx.Recorded(record),
        fx.Publish(EventKind.TASK, described_task(task)),
    )
    life, more = apply(life, fx.Requested(tuple(grants)), task.created_at)
    return life, begun + more


def apply(life: TaskLife, event: fx.Event, now: Instant) -> Step:
    """The one transition function. Raises ``Refused`` (task_ended, conflict, not_found, uses_exhausted, …)."""
    match event:
        case fx.Reserved():
            return _reserve(life, event, now)
        case fx.Settled():
            return _settle(life, event, now)
        case fx.Requested():
            return _request(life, event, now)
        case fx.Approved():
            return _approve(life, event, now)
        case fx.Rejected():
            grant = _pending(life, event.grant)
            return _end_grants(life, (grant,), GrantState.REJECTED, event.by, event.reason or "rejected", now)
        case fx.Revoked(grants=None):
            return _end_task(life, TaskState.REVOKED, GrantState.REVOKED, event.by, event.reason, now)
        case fx.Revoked():
            return _revoke(life, event, now)
        case fx.Finished():
            how = TaskState.COMPLETED if event.how is Outcome.COMPLETE else TaskState.CANCELLED
            return _end_task(life, how, GrantState.REVOKED, event.by, f"task {how.value}", now)
        case fx.Rotated():
            _live(life)
            task = replace(life.task, handle_digest=event.digest)
            record = Record("task.rotated", now, {"task": task.id, "by": event.by})
            return TaskLife(task, life.grants, life.active_at), (fx.Persist(task=task), fx.Recorded(record))
        case fx.Ticked():
            return _tick(life, now)


def at(life: TaskLife, now: Instant) -> TaskLife:
    """The task as it stands at ``now``, whether or not its expiry has been carried out: what is over looks over."""
    if life.task.live and life.due() <= now:
        return _tick(life, now)[0]
    return life


# --- uses ------------------------------------------------------------------------------------------------------------


_UNUSABLE = {
    GrantState.PENDING: (Code.PENDING_APPROVAL, "the grant still waits for approval"),
    GrantState.EXHAUSTED: (Code.USES_EXHAUSTED, "all uses of the grant are used up"),
    GrantState.EXPIRED: (Code.GRANT_EXPIRED, "the grant has expired"),
    GrantState.REVOKED: (Code.REVOKED, "the grant was revoked"),
    GrantState.REJECTED: (Code.NO_GRANT, "the grant was rejected"),
}


def _reserve(life: TaskLife, event: fx.Reserved, now: Instant) -> Step:
    grant = _usable(life, event, now)
    used = grant.used + 1 if event.counted else grant.used
    exhausted = grant.max_uses is not None and used >= grant.max_uses
    state = GrantState.EXHAUSTED if exhausted else grant.state
    counted = _count(grant, state, used, grant.in_flight + 1, now)
    out: list[fx.Effect] = [fx.Count(counted)]
    if state is not grant.state:
        out.append(fx.Publish(EventKind.GRANT, described_grant(counted)))
    return TaskLife(life.task, {**life.grants, grant.id: counted}, now), tuple(out)


def _usable(life: TaskLife, event: fx.Reserved, now: Instant) -> Grant:
    _live(life)
    grant = life.grants.get(event.grant)
    if grant is None:
        raise Refused(Code.NO_GRANT, "the task has no such grant")
    if now >= task_due(life.task, tuple(life.grants.values()), life.active_at):
        raise Refused(Code.TASK_ENDED, "the task has expired")
    due = grant_due(grant)
    if due is not None and now >= due:
        raise Refused(Code.GRANT_EXPIRED, "the grant has expired")
    retry = grant.state is GrantState.EXHAUSTED and not event.counted
    if grant.state is not GrantState.ACTIVE and not retry:
        code, reason = _UNUSABLE[grant.state]
        raise Refused(code, reason)
    return grant


def _settle(life: TaskLife, event: fx.Settled, now: Instant) -> Step:
    grant = life.grants.get(event.grant)
    if grant is None or grant.in_flight == 0:
        raise Refused(Code.CONFLICT, "no use of this grant is in flight")
    refund = event.counted and not event.sent
    used = grant.used - 1 if refund else grant.used
    revives = refund and grant.state is GrantState.EXHAUSTED and now < grant.expires_at
    state = GrantState.ACTIVE if revives else grant.state
    counted = _count(grant, state, used, grant.in_flight - 1, max(now, grant.last_used_at or now))
    out: list[fx.Effect] = [fx.Count(counted)] if refund else []
    if revives:
        out.append(fx.Publish(EventKind.GRANT, described_grant(counted)))
    return TaskLife(
        life.task, {**life.grants, grant.id: counted}, now if life.task.live else life.active_at
    ), tuple(out)


def _count(grant: Grant, state: GrantState, used: int, in_flight: int, at: Instant | float) -> Grant:
    # dataclasses.replace costs twice as much, twice a call.
    return Grant(
        grant.id, grant.task, grant.server, grant.tools, grant.schemas, state, grant.created_at, grant.expires_at,
        grant.requested_by, grant.max_uses, grant.idle_timeout, grant.reason, used, in_flight, Instant(at),
        grant.ended_at, grant.ended_by, grant.notes, grant.approvers, grant.activated_at,
    )  # fmt: skip


# --- grants ----------------------------------------------------------------------------------------------------------


def _request(life: TaskLife, event: fx.Requested, now: Instant) -> Step:
    _live(life)
    grants = dict(life.grants)
    out: list[fx.Effect] = []
    for asked in event.grants:
        if asked.id in grants or asked.task != life.task.id:
            raise Refused(Code.CONFLICT, "the grant belongs elsewhere")
        grant = replace(asked, expires_at=Instant(min(asked.expires_at, life.task.deadline)))
        grants[grant.id] = grant
        out.append(fx.Recorded(Record("grant.requested", now, recorded_grant(grant))))
        out.append(fx.Publish(EventKind.GRANT, described_grant(grant)))
    new = tuple(grants[g.id] for g in event.grants)
    return TaskLife(life.task, grants, now), (fx.Persist(grants=new), *out)


def _approve(life: TaskLife, event: fx.Approved, now: Instant) -> Step:
    grant = _pending(life, event.grant)
    if now >= grant.expires_at:
        raise Refused(Code.GRANT_EXPIRED, "nobody approved the grant in time; ask again")
    # Its life begins when somebody says yes: waiting takes nothing from it, and adds nothing beyond the task's.
    until = Instant(min(now + (grant.expires_at - grant.created_at), life.task.deadline))
    active = replace(grant, state=GrantState.ACTIVE, activated_at=now, expires_at=until)
    record = Record("grant.approved", now, {**recorded_grant(active), "by": event.by})
    return (
        TaskLife(life.task, {**life.grants, grant.id: active}, now),
        (
            fx.Persist(grants=(active,)),
            fx.Recorded(record),
            fx.Publish(EventKind.GRANT, described_grant(active)),
        ),
    )


def _revoke(life: TaskLife, event: fx.Revoked, now: Instant) -> Step:
    _live(life)
    named = event.grants or frozenset()
    if not named <= life.grants.keys():
        raise Refused(Code.NOT_FOUND, "the task has no such grant")
    over = tuple(g for g in life.grants.values() if g.id in named and _unended(g))
    if not over:
        raise Refused(Code.CONFLICT, "the grant is over already")
    return _end_grants(life, over, GrantState.REVOKED, event.by, event.reason, now)


def _pending(life: TaskLife, grant_id: GrantId) -> Grant:
    _live(life)
    grant = life.grants.get(grant_id)
    if grant is None:
        raise Refused(Code.NOT_FOUND, "the task has no such grant")
    if grant.state is not GrantState.PENDING:
        raise Refused(Code.CONFLICT, f"the grant is {grant.state.value}, not pending")
    return grant


# --- ends ------------------------------------------------------------------------------------------------------------


def _tick(life: TaskLife, now: Instant) -> Step:
    if not life.task.live:
        return life, ()
    if now >= task_due(life.task, tuple(life.grants.values()), life.active_at):
        reason = "task deadline passed" if now >= life.task.deadline else "task idle for too long"
        return _end_task(life, TaskState.EXPIRED, GrantState.EXPIRED, "taskgrant", reason, now)
    over = tuple(g for g in life.grants.values() if (due := grant_due(g)) is not None and now >= due)
    if not over:
        return life, ()
    return _end_grants(life, over, GrantState.EXPIRED, "taskgrant", "grant expired", now)


def _end_task(life: TaskLife, how: TaskState, each: GrantState, by: str, reason: str, now: Instant) -> Step:
    _live(life)
    over = tuple(g for g in life.grants.values() if _unended(g))
    ended = replace(life.task, state=how, ended_at=now, ended_by=by, last_active_at=life.active_at)
    life, effects = _end_grants(life, over, each, by, reason, now)
    record = Record("task.ended", now, {"task": ended.id, "state": how.value, "by": by, "reason": reason})
    out: tuple[fx.Effect, ...] = (
        fx.Persist(task=ended),
        fx.Recorded(record),
        fx.Publish(EventKind.TASK, described_task(ended)),
        fx.Sever(reason, whole=True, grants=frozenset(g.id for g in over)),
        *(effect for effect in effects if not isinstance(effect, fx.Sever)),
    )
    return TaskLife(ended, life.grants, life.active_at), out


def _end_grants(
    life: TaskLife, over: tuple[Grant, ...], how: GrantState, by: str, reason: str, now: Instant
) -> Step:
    ended = tuple(replace(g, state=how, ended_at=now, ended_by=by) for g in over)
    out: list[fx.Effect] = [fx.Persist(grants=ended)]
    for grant in ended:
        fields = {
            "task": grant.task,
            "grant": grant.id,
            "state": how.value,
            "by": by,
            "reason": reason,
            "used": grant.used,
        }
        out.append(fx.Recorded(Record("grant.ended", now, fields)))
        out.append(fx.Publish(EventKind.GRANT, described_grant(grant)))
    out.append(fx.Sever(reason, whole=False, grants=frozenset(g.id for g in ended)))
    # While a grant waited for a person the task was not idle: that time must not count afterwards.
    active_at = now if any(g.state is GrantState.PENDING for g in over) else life.active_at
    return TaskLife(life.task, {**life.grants, **{g.id: g for g in ended}}, active_at), tuple(out)


def _unended(grant: Grant) -> bool:
    return grant.state.live or grant.state is GrantState.PENDING


def _live(life: TaskLife) -> None:
    if not life.task.live:
        raise Refused(Code.TASK_ENDED, f"the task is {life.task.state.value}")
