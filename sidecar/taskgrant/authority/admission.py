"""From what is asked to tasks and grants: checked, made canonical, put to policy, clamped to the configured bounds.

Policy may narrow what was asked and never widen it: its answer's tools, uses and times are bounded by what was asked,
and where it rewrites the arguments, both schemas have to be satisfied. Only for a task whose ``type`` names a
template, and that asks for no grants itself, does policy say what the grants are.
"""

import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from taskgrant.authority import effects as fx
from taskgrant.authority import lifecycle
from taskgrant.authority.config import Binding
from taskgrant.authority.credentials import digest
from taskgrant.authority.engine import Engine
from taskgrant.authority.idempotency import Attempt
from taskgrant.authority.lifecycle import TaskLife
from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.decision import Admission, Admitted, Ask
from taskgrant.model.grant import Grant, GrantSpec, GrantState
from taskgrant.model.ids import TaskId, new_grant_id, new_task_id
from taskgrant.model.json import JsonObject
from taskgrant.model.ports import Decider
from taskgrant.model.principal import Principal
from taskgrant.model.record import Record
from taskgrant.model.schema import SchemaFault, canonical
from taskgrant.model.task import Started, Task, TaskSpec, TaskState
from taskgrant.model.time import Instant

N = TypeVar("N", int, float)

_MAX_TEXT = 2000
_MAX_TOOLS = 100


def new_handle() -> str:
    return "tgh_" + secrets.token_urlsafe(32)


class Admitter:
    """``agent`` is the SPIFFE ID of the one agent that this authority serves; ``uids`` are those that its tasks may
    have where tasks are told apart by them.
    """

    def __init__(self, engine: Engine, decider: Decider, agent: str, uids: Collection[int]) -> None:
        self._engine = engine
        self._decider = decider
        self._agent = agent
        self._uids = uids
        self._starting: list[int | None] = []  # the uid of each task that is being started

    async def start(self, spec: TaskSpec, by: Principal, attempt: Attempt) -> Started:
        self._engine.check_fence()
        self._check_room(spec)
        self._starting.append(
            spec.uid
        )  # counts as live: of two that start at once for one place, one is refused
        try:
            return await self._start(spec, by, attempt)
        finally:
            self._starting.remove(spec.uid)

    async def _start(self, spec: TaskSpec, by: Principal, attempt: Attempt) -> Started:
        engine = self._engine
        now = engine.clock.now()
        handle = new_handle()
        task = self._task(spec, by, handle, now)
        specs = self._specs(spec.grants)
        engine.freezes.check(task, _tools(specs))
        admitted = await self._ask(task, specs, by, now)
        if admitted.admission is Admission.ASK and not admitted.grants:
            raise Refused(
                Code.DENIED_BY_POLICY,
                "policy wants a person to approve this task; only grants can wait for one",
            )
        grants = self._grants(task, specs, admitted, by, now)
        engine.freezes.check(task, _tools(grants))
        written = attempt.remember(task.id, [grant.id for grant in grants], now)
        await engine.begin(
            lifecycle.start(task, grants), written, (_admitted(task.id, by, admitted, now),),
            lambda: engine.freezes.check(task, _tools(grants)),
        )  # fmt: skip
        attempt.answered(task.id, [grant.id for grant in grants], now)
        life = engine.registry.require(task.id)
        return Started(life.shown(), tuple(life.grants.values()), handle)

    async def request(
        self, task: TaskId, asked: Sequence[GrantSpec], by: Principal, attempt: Attempt
    ) -> tuple[Grant, ...]:
        engine = self._engine
        engine.check_fence()
        now = engine.clock.now()
        life = engine.registry.require(task)
        specs = self._specs(tuple(asked))
        if not specs:
            raise Refused(Code.INVALID, "no grant was asked for")
        if len(life.grants) + len(specs) > engine.config.max_grants_per_task:
            raise Refused(Code.INVALID, f"a task has at most {engine.config.max_grants_per_task} grants")
        engine.freezes.check(life.task, _tools(specs))
        admitted = await self._ask(life.shown(), specs, by, now)
        grants = self._grants(life.task, specs, admitted, by, now)
        ids = [grant.id for grant in grants]
        life = await engine.permit(
            task, fx.Requested(grants), attempt.remember(task, ids, now), (_admitted(task, by, admitted, now),),
            lambda: engine.freezes.check(life.task, _tools(grants)),
        )  # fmt: skip
        attempt.answered(task, ids, now)
        return tuple(life.grants[each] for each in ids)

    # --- what was asked ------------------------------------------------------------------------------------------

    def _check_room(self, spec: TaskSpec) -> None:
        engine = self._engine
        lives = engine.registry.lives
        if len(lives) + len(self._starting) >= engine.config.max_live_tasks:
            raise Refused(
                Code.OVERLOADED, f"{engine.config.max_live_tasks} tasks are running; no more are started"
            )
        match engine.config.task_binding:
            case Binding.SINGLE:
                self._check_alone(lives.values(), bool(self._starting), "this agent runs one at a time")
            case Binding.UID:
                uid = self._uid(spec)
                self._check_alone(
                    engine.registry.of_uid(uid), uid in self._starting, f"uid {uid} has one at a time"
                )

    def _uid(self, spec: TaskSpec) -> int:
        if spec.uid is None:
            raise Refused(Code.INVALID, "a task needs the uid that works on it: task_binding is uid")
        if spec.uid == 0 or spec.uid not in self._uids:
            raise Refused(Code.INVALID, f"uid {spec.uid} is none that the agent's tasks may have")
        return spec.uid

    def _check_alone(self, lives: Iterable[TaskLife], starting: bool, rule: str) -> None:
        now = self._engine.clock.now()
        for life in lives:
            if lifecycle.at(life, now).task.live:
                task = life.task
                raise Refused(Code.CONFLICT, f"task {task.id} ({task.purpose!r}) is running; {rule}")
        if starting:
            raise Refused(Code.CONFLICT, f"another task is being started; {rule}")

    def _task(self, spec: TaskSpec, by: Principal, handle: str, now: Instant) -> Task:
        if not spec.purpose.strip():
            raise Refused(Code.INVALID, "a task needs a purpose")
        for text in (spec.purpose, spec.type, spec.on_behalf_of, spec.session):
            if len(text) > _MAX_TEXT:
                raise Refused(Code.INVALID, f"a text has at most {_MAX_TEXT} characters")
        _positive("expires_in", spec.expires_in)
        _positive("idle_timeout", spec.idle_timeout)
        most = self._engine.config.task_max_life
        life = min(spec.expires_in if spec.expires_in is not None else most, most)
        return Task(
            id=new_task_id(), agent=self._agent, purpose=spec.purpose, state=TaskState.ACTIVE, created_at=now,
            deadline=Instant(now + life), created_by=by.id, handle_digest=digest(handle), type=spec.type,
            params=spec.params, on_behalf_of=spec.on_behalf_of, session=spec.session, uid=spec.uid,
            idle_timeout=spec.idle_timeout, last_active_at=now,
        )  # fmt: skip

    def _specs(self, asked: tuple[GrantSpec, ...]) -> tuple[GrantSpec, ...]:
        """The asked grants with canonical schemas. Raises ``Refused`` (invalid), naming the grant and the fault."""
        if len(asked) > self._engine.config.max_grants_per_task:
            raise Refused(
                Code.INVALID, f"a task has at most {self._engine.config.max_grants_per_task} grants"
            )
        return tuple(_checked(index, spec) for index, spec in enumerate(asked))

    # --- what policy says ----------------------------------------------------------------------------------------

    async def _ask(self, task: Task, specs: tuple[GrantSpec, ...], by: Principal, now: Instant) -> Admitted:
        admitted = await self._decider.admit(Ask(task, specs, by.id, now, task.agent))
        if admitted.admission is Admission.DENY:
            code = Code.DENIED_BY_POLICY if admitted.code is Code.GRANTED else admitted.code
            reason = "; ".join(admitted.reasons) or "policy refuses it"
            fields: JsonObject = {
                "task": task.id, "by": by.id, "code": code.value, "reasons": list(admitted.reasons),
                "decision_id": admitted.decision_id, "revision": admitted.revision,
            }  # fmt: skip
            self._engine.store.writer.post((), (Record("grant.refused", now, fields),))
            raise Refused(code, reason, decision_id=admitted.decision_id)
        return admitted

    def _grants(
        self, task: Task, specs: tuple[GrantSpec, ...], admitted: Admitted, by: Principal, now: Instant
    ) -> tuple[Grant, ...]:
        templated = bool(task.type) and not specs
        if not templated and len(admitted.grants) != len(specs):
            raise Refused(
                Code.POLICY_ERROR, "policy answered for another number of grants than were asked for"
            )
        state = GrantState.ACTIVE if admitted.admission is Admission.APPROVE else GrantState.PENDING
        made = []
        for index, given in enumerate(admitted.grants):
            try:
                given = _checked(index, given)
            except Refused as fault:
                raise Refused(
                    Code.POLICY_ERROR, f"policy made a grant that cannot be: {fault.reason}"
                ) from fault
            asked = given if templated else specs[index]
            spec, schemas = _narrowed(asked, given)
            most = self._engine.config.grant_max_life
            life = min(spec.expires_in if spec.expires_in is not None else most, most)
            made.append(
                Grant(
                    id=new_grant_id(), task=task.id, server=spec.server, tools=spec.tools, schemas=schemas,
                    state=state, created_at=now, expires_at=Instant(min(now + life, task.deadline)),
                    requested_by=by.id, max_uses=spec.max_uses, idle_timeout=spec.idle_timeout,
                    reason=spec.reason, notes=admitted.reasons, approvers=admitted.approvers,
                    activated_at=now if state is GrantState.ACTIVE else None,
                )
            )  # fmt: skip
        if len(made) > self._engine.config.max_grants_per_task:
            raise Refused(Code.POLICY_ERROR, "policy made more grants than a task may have")
        return tuple(made)


def _checked(index: int, spec: GrantSpec) -> GrantSpec:
    where = f"grants[{index}]"
    if not spec.server or not spec.tools or not all(spec.tools):
        raise Refused(Code.INVALID, f"{where}: a grant names a server and at least one tool")
    if len(spec.tools) > _MAX_TOOLS or len(set(spec.tools)) != len(spec.tools):
        raise Refused(Code.INVALID, f"{where}: a grant names at most {_MAX_TOOLS} tools, each once")
    if max(len(text) for text in (spec.server, spec.reason, *spec.tools)) > _MAX_TEXT:
        raise Refused(Code.INVALID, f"{where}: a text has at most {_MAX_TEXT} characters")
    if spec.max_uses is not None and not 1 <= spec.max_uses <= 2**53:
        raise Refused(Code.INVALID, f"{where}: max_uses is a whole number, 1 or more")
    _positive(f"{where}: expires_in", spec.expires_in)
    _positive(f"{where}: idle_timeout", spec.idle_timeout)
    try:
        return replace(spec, arguments=canonical(spec.arguments))
    except SchemaFault as fault:
        raise Refused(Code.INVALID, f"{where}.arguments{fault}", pointer=fault.pointer) from fault


def _narrowed(asked: GrantSpec, given: GrantSpec) -> tuple[GrantSpec, tuple[JsonObject, ...]]:
    """The lesser of what was asked and what policy gives, and every schema that arguments have to satisfy: what was
    asked, what policy made of it, and the agent's boundary."""
    if given.server != asked.server or not set(given.tools) <= set(asked.tools):
        raise Refused(Code.POLICY_ERROR, "policy widened a grant beyond what was asked")
    schemas: list[JsonObject] = []
    for each in (asked.arguments, given.arguments, *given.within):
        if each is not None and each not in schemas:
            schemas.append(each)
    spec = replace(
        given,
        max_uses=_least(asked.max_uses, given.max_uses),
        expires_in=_least(asked.expires_in, given.expires_in),
        idle_timeout=_least(asked.idle_timeout, given.idle_timeout),
        reason=asked.reason,
    )
    return spec, tuple(schemas)


def _least(one: N | None, other: N | None) -> N | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _positive(name: str, seconds: float | None) -> None:
    if seconds is not None and not 0 < seconds < float("inf"):
        raise Refused(Code.INVALID, f"{name} is a number of seconds, more than 0")


def _tools(grants: Sequence[GrantSpec | Grant]) -> list[tuple[str, str | None]]:
    return [(grant.server, tool) for grant in grants for tool in grant.tools]


def _admitted(task: TaskId, by: Principal, admitted: Admitted, now: Instant) -> Record:
    fields: JsonObject = {
        "task": task, "by": by.id, "admission": admitted.admission.value, "reasons": list(admitted.reasons),
        "decision_id": admitted.decision_id, "revision": admitted.revision,
    }  # fmt: skip
    return Record("grant.decided", now, fields)
