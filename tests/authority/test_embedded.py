"""The embedded authority as its callers see it: starting, asking, judging, ending."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from taskgrant.authority.config import Binding
from taskgrant.errors import Refused
from taskgrant.model.call import Caller, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.decision import Admission, Admitted, Ask
from taskgrant.model.event import Ended, Scope, ScopeKind, Verdict
from taskgrant.model.grant import GrantSpec, GrantState
from taskgrant.model.ids import CallId, GrantId, TaskId
from taskgrant.model.ports import Authority, Ledger, Recorder, View
from taskgrant.model.schema import canonical
from taskgrant.model.task import Outcome, Task, TaskState
from tests.authority.support import (
    ADMIN,
    APPROVER,
    GUARD,
    MAIL,
    NOBODY,
    ORCHESTRATOR,
    Cutter,
    Setting,
    new_csr,
    opened,
    record,
    spec,
)  # fmt: skip

FILES = GrantSpec("files", ("read", "list"), None)


def shows(handle: str | None) -> Caller:
    return Caller(uid=1000, listener="gateway", handle=handle)


async def code_of(doing) -> Code:
    with pytest.raises(Refused) as caught:
        await doing
    return Code(caught.value.code)


def pending(s: Setting, *approvers: str) -> None:
    s.decider.answer = lambda ask: Admitted(Admission.ASK, ask.grants, ("ask someone",), approvers)


def of_grant(grant: GrantId) -> Scope:
    return Scope(ScopeKind.GRANT, grant)


async def test_it_is_what_the_ports_say(tmp_path: Path):
    async with opened(tmp_path) as s:
        authority: Authority = s.authority
        view: View = s.authority.view
        ledger: Ledger = s.authority.ledger
        recorder: Recorder = s.authority.ledger
        assert all((authority, view, ledger, recorder))


# --- starting --------------------------------------------------------------------------------------------------------


async def test_starting_a_task(tmp_path: Path):
    async with opened(tmp_path) as s:
        started = await s.authority.start(spec(MAIL, FILES, expires_in=60), ORCHESTRATOR, None)
        assert started.handle is not None
        assert started.handle.startswith("tgh_")
        assert started.task.deadline == s.clock.now() + 60
        assert [grant.state for grant in started.grants] == [GrantState.ACTIVE, GrantState.ACTIVE]
        assert all(grant.expires_at == started.task.deadline for grant in started.grants)
        assert started.grants[1].schemas[0]["additionalProperties"] is False
        assert s.authority.view.bind(shows(started.handle)) == started.task
        assert s.trail.events().count("grant.requested") == 2
        assert started.handle not in str(s.trail.records)


async def test_bounds_clamp_what_is_asked(tmp_path: Path):
    async with opened(tmp_path, task_max_life=100, grant_max_life=10) as s:
        started = await s.authority.start(
            spec(replace(MAIL, expires_in=1e6), expires_in=1e6), ORCHESTRATOR, None
        )
        assert started.task.deadline == s.clock.now() + 100
        assert started.grants[0].expires_at == s.clock.now() + 10


@pytest.mark.parametrize(
    "bad",
    [
        spec(purpose="  "),
        spec(expires_in=0),
        spec(idle_timeout=-1),
        spec(expires_in=float("nan")),
        spec(purpose="x" * 3000),
        spec(GrantSpec("", ("a",))),
        spec(GrantSpec("mail", ())),
        spec(GrantSpec("mail", ("a", "a"))),
        spec(replace(MAIL, max_uses=0)),
        spec(replace(MAIL, expires_in=0)),
        spec(replace(MAIL, arguments={"$ref": "#"})),
        spec(*[MAIL] * 300),
    ],
)
async def test_what_cannot_be_asked(tmp_path: Path, bad):
    async with opened(tmp_path) as s:
        assert await code_of(s.authority.start(bad, ORCHESTRATOR, None)) is Code.INVALID
        assert s.decider.asked == []


async def test_policy_refuses(tmp_path: Path):
    async with opened(tmp_path) as s:
        s.decider.answer = lambda ask: Admitted(
            Admission.DENY, code=Code.POLICY_UNAVAILABLE, reasons=("gone",)
        )
        assert await code_of(s.authority.start(spec(MAIL), ORCHESTRATOR, None)) is Code.POLICY_UNAVAILABLE
        assert await s.authority.tasks(None, 10) == ()
    assert "grant.refused" in s.trail.events()


@pytest.mark.parametrize(
    "given",
    [
        (),
        (MAIL, MAIL),
        (replace(MAIL, server="files"),),
        (replace(MAIL, tools=("send_message", "delete_everything")),),
        (replace(MAIL, arguments={"not": {}}),),
    ],
)
async def test_policy_never_widens(tmp_path: Path, given):
    async with opened(tmp_path) as s:
        s.decider.answer = lambda ask: Admitted(Admission.APPROVE, given)
        assert await code_of(s.authority.start(spec(MAIL), ORCHESTRATOR, None)) is Code.POLICY_ERROR


async def test_the_boundary_binds_the_arguments_of_every_grant(tmp_path: Path):
    """What policy says of the agent's boundary is among the schemas that a call has to satisfy, templated or not."""
    boundary = canonical({"properties": {"to": {"type": "string", "maxLength": 20}}})
    async with opened(tmp_path) as s:
        s.decider.answer = lambda ask: Admitted(Admission.APPROVE, (replace(MAIL, within=(boundary,)),))
        asked = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
        assert boundary in asked.grants[0].schemas
        assert len(asked.grants[0].schemas) == 2
        await s.authority.end(asked.task.id, Outcome.COMPLETE, ORCHESTRATOR)
        templated = await s.authority.start(spec(type="mailing"), ORCHESTRATOR, None)
        assert boundary in templated.grants[0].schemas


async def test_policy_narrows(tmp_path: Path):
    async with opened(tmp_path) as s:
        narrow = GrantSpec(
            "files", ("read",), {"properties": {"path": {"type": "string"}}}, max_uses=2, expires_in=9
        )
        s.decider.answer = lambda ask: Admitted(Admission.APPROVE, (narrow,), ("only reading",))
        wide = GrantSpec("files", ("read", "list"), {"additionalProperties": True}, max_uses=5, expires_in=5)
        (grant,) = (await s.authority.start(spec(wide), ORCHESTRATOR, None)).grants
        assert (grant.tools, grant.max_uses, len(grant.schemas)) == (("read",), 2, 2)
        assert grant.expires_at == s.clock.now() + 5
        assert grant.notes == ("only reading",)


async def test_a_template_makes_the_grants(tmp_path: Path):
    async with opened(tmp_path) as s:
        s.decider.answer = lambda ask: Admitted(Admission.APPROVE, (MAIL,))
        started = await s.authority.start(spec(type="digest"), ORCHESTRATOR, None)
        assert [grant.tools for grant in started.grants] == [("send_message",)]


async def test_one_task_at_a_time(tmp_path: Path):
    async with opened(tmp_path, task_binding=Binding.SINGLE) as s:
        first, second = await asyncio.gather(
            s.authority.start(spec(), ORCHESTRATOR, None),
            s.authority.start(spec(), ORCHESTRATOR, None),
            return_exceptions=True,
        )
        assert not isinstance(first, BaseException)
        assert isinstance(second, Refused)
        with pytest.raises(Refused, match=first.task.id):
            await s.authority.start(spec(), ORCHESTRATOR, None)
        await s.authority.end(first.task.id, Outcome.COMPLETE, ORCHESTRATOR)
        await s.authority.start(spec(), ORCHESTRATOR, None)


async def test_room_for_so_many(tmp_path: Path):
    async with opened(tmp_path, max_live_tasks=2) as s:
        for _ in range(2):
            await s.authority.start(spec(), ORCHESTRATOR, None)
        assert await code_of(s.authority.start(spec(), ORCHESTRATOR, None)) is Code.OVERLOADED


async def test_a_disk_that_is_full_starts_nothing(tmp_path: Path):
    async with opened(tmp_path) as s:
        s.trail.fails = True
        assert await code_of(s.authority.start(spec(MAIL), ORCHESTRATOR, None)) is Code.AUDIT_UNAVAILABLE
        s.trail.fails = False
    async with opened(tmp_path) as s:
        assert all(not task.live for task in await s.authority.tasks(None, 10))


# --- keys ------------------------------------------------------------------------------------------------------------


async def test_a_key_starts_one_task_and_shows_its_handle_once(tmp_path: Path):
    async with opened(tmp_path) as s:
        first, again = await asyncio.gather(
            s.authority.start(spec(MAIL), ORCHESTRATOR, "k"), s.authority.start(spec(MAIL), ORCHESTRATOR, "k")
        )
        assert first.task.id == again.task.id
        assert first.handle is not None
        assert again.handle is None
        assert await code_of(s.authority.start(spec(FILES), ORCHESTRATOR, "k")) is Code.CONFLICT
        other = await s.authority.start(spec(MAIL), ADMIN, "k")
        assert other.task.id != first.task.id
        asked = [await s.authority.request(first.task.id, [FILES], ORCHESTRATOR, "r") for _ in range(2)]
        assert asked[0] == asked[1]
        s.clock.advance(90_000)
        with pytest.raises(Refused):
            await s.authority.start(spec(MAIL), ORCHESTRATOR, "")
    async with opened(tmp_path, clock=s.clock) as s:
        fresh = await s.authority.start(spec(MAIL), ORCHESTRATOR, "k")
        assert fresh.task.id != first.task.id


async def test_a_key_outlives_the_process(tmp_path: Path):
    async with opened(tmp_path) as s:
        first = await s.authority.start(spec(MAIL), ORCHESTRATOR, "k")
    async with opened(tmp_path) as s:
        again = await s.authority.start(spec(MAIL), ORCHESTRATOR, "k")
        assert (again.task.id, again.handle) == (first.task.id, None)
        assert again.grants == first.grants


async def test_a_key_whose_request_failed_may_be_tried_again(tmp_path: Path):
    async with opened(tmp_path) as s:
        s.trail.fails = True
        await code_of(s.authority.start(spec(), ORCHESTRATOR, "k"))
        s.trail.fails = False
        assert (await s.authority.start(spec(), ORCHESTRATOR, "k")).handle is not None


# --- roles -----------------------------------------------------------------------------------------------------------


async def test_who_may_do_what(tmp_path: Path):
    async with opened(tmp_path) as s:
        started = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
        task, grant = started.task.id, started.grants[0].id
        other = replace(ORCHESTRATOR, id="uid:2000")
        for doing in (
            s.authority.start(spec(), APPROVER, None),
            s.authority.end(task, Outcome.COMPLETE, NOBODY),
            s.authority.request(task, [MAIL], GUARD, None),
            s.authority.rotate(task, APPROVER),
            s.authority.judge(of_grant(grant), Verdict.APPROVE, ORCHESTRATOR),
            s.authority.judge(of_grant(grant), Verdict.REVOKE, APPROVER),
            s.authority.judge(of_grant(grant), Verdict.REVOKE, other),
            s.authority.judge(Scope(ScopeKind.TASK, task), Verdict.REVOKE, other),
            s.authority.judge(Scope(ScopeKind.ALL), Verdict.FREEZE, ORCHESTRATOR),
            s.authority.judge(Scope(ScopeKind.ALL), Verdict.UNFREEZE, ORCHESTRATOR),
            s.authority.judge(Scope(ScopeKind.ALL), Verdict.REVOKE, ORCHESTRATOR),
            s.authority.enrol("mail", new_csr(), ORCHESTRATOR),
        ):
            assert await code_of(doing) is Code.FORBIDDEN
        assert (await s.authority.grant(grant)).state is GrantState.ACTIVE


async def test_nobody_approves_what_they_asked_for(tmp_path: Path):
    both = replace(APPROVER, id=ORCHESTRATOR.id)
    async with opened(tmp_path) as s:
        pending(s)
        (grant,) = (await s.authority.start(spec(MAIL), ORCHESTRATOR, None)).grants
        assert await code_of(s.authority.judge(of_grant(grant.id), Verdict.APPROVE, both)) is Code.FORBIDDEN
        pending(s, "uid:77")
        (named,) = await s.authority.request(grant.task, [FILES], ORCHESTRATOR, None)
        assert (
            await code_of(s.authority.judge(of_grant(named.id), Verdict.APPROVE, APPROVER)) is Code.FORBIDDEN
        )


# --- verdicts --------------------------------------------------------------------------------------------------------


async def test_approving_and_rejecting(tmp_path: Path):
    async with opened(tmp_path) as s:
        pending(s)
        first, second = (await s.authority.start(spec(MAIL, FILES), ORCHESTRATOR, None)).grants
        assert first.state is GrantState.PENDING
        refusal = await s.authority.ledger.reserve(first.id, CallId("c"), None, record())
        assert isinstance(refusal, Refusal)
        assert refusal.code is Code.PENDING_APPROVAL
        await s.authority.judge(of_grant(first.id), Verdict.APPROVE, APPROVER)
        assert (await s.authority.grant(first.id)).state is GrantState.ACTIVE
        ended = await s.authority.judge(of_grant(second.id), Verdict.REJECT, APPROVER, "no")
        assert ended.grants == (second.id,)
        assert (
            await code_of(s.authority.judge(of_grant(second.id), Verdict.APPROVE, APPROVER)) is Code.CONFLICT
        )
        assert (
            await code_of(s.authority.judge(of_grant(GrantId("x")), Verdict.APPROVE, APPROVER))
            is Code.NOT_FOUND
        )
    async with opened(tmp_path) as s:
        assert (await s.authority.grant(first.id)).state is GrantState.ACTIVE
        assert (await s.authority.grant(second.id)).state is GrantState.REJECTED


async def test_an_approval_that_cannot_be_recorded_is_none(tmp_path: Path):
    async with opened(tmp_path) as s:
        pending(s)
        (grant,) = (await s.authority.start(spec(MAIL), ORCHESTRATOR, None)).grants
        s.trail.fails = True
        doing = s.authority.judge(of_grant(grant.id), Verdict.APPROVE, APPROVER)
        assert await code_of(doing) is Code.AUDIT_UNAVAILABLE
        assert (await s.authority.grant(grant.id)).state is GrantState.PENDING
        s.trail.fails = False
    async with opened(tmp_path) as s:
        assert (await s.authority.grant(grant.id)).state is GrantState.PENDING


async def test_an_approval_and_a_revocation_at_once(tmp_path: Path):
    async with opened(tmp_path) as s:
        pending(s)
        started = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
        approval, revocation = await asyncio.gather(
            s.authority.judge(of_grant(started.grants[0].id), Verdict.APPROVE, APPROVER),
            s.authority.judge(Scope(ScopeKind.TASK, started.task.id), Verdict.REVOKE, ADMIN),
            return_exceptions=True,
        )
        assert isinstance(approval, Refused)
        assert not isinstance(revocation, BaseException)
    async with opened(tmp_path) as s:
        assert (await s.authority.grant(started.grants[0].id)).state is GrantState.REVOKED


@pytest.mark.parametrize(
    "kind, name",
    [
        (ScopeKind.ALL, ""),
        (ScopeKind.AGENT, "spiffe://example.org/agent/researcher"),
        (ScopeKind.SESSION, "s1"),
        (ScopeKind.TOOL, "mail"),
        (ScopeKind.TOOL, "mail/send_message"),
    ],
)
async def test_freezing_ends_and_blocks_and_lifting_revives_nothing(
    tmp_path: Path, kind: ScopeKind, name: str
):
    scope = Scope(kind, name)
    async with opened(tmp_path) as s:
        cutter = Cutter()
        s.authority.attach(cutter)
        started = await s.authority.start(spec(MAIL, session="s1"), ORCHESTRATOR, None)
        ended = await s.authority.judge(scope, Verdict.FREEZE, ADMIN, "incident")
        assert ended.grants == (started.grants[0].id,)
        assert cutter.applied[0].grants == {started.grants[0].id}
        asked = spec(MAIL, session="s1")
        assert await code_of(s.authority.start(asked, ORCHESTRATOR, None)) is Code.FROZEN
        assert s.authority.view.frozen(started.task, "mail", "send_message")
    async with opened(tmp_path) as s:
        assert await code_of(s.authority.start(asked, ORCHESTRATOR, None)) is Code.FROZEN
        await s.authority.judge(scope, Verdict.UNFREEZE, ADMIN)
        assert await code_of(s.authority.judge(scope, Verdict.UNFREEZE, ADMIN)) is Code.CONFLICT
        assert (await s.authority.grant(started.grants[0].id)).state is GrantState.REVOKED
        await s.authority.start(asked, ORCHESTRATOR, None)
    async with opened(tmp_path) as s:
        await s.authority.start(asked, ORCHESTRATOR, None)


async def test_a_freeze_that_comes_while_a_task_is_being_stored(tmp_path: Path):
    async with opened(tmp_path) as s:
        freezing: list[asyncio.Future[Ended]] = []

        def freeze_now(ask: Ask) -> Admitted:
            freezing.append(
                asyncio.ensure_future(s.authority.judge(Scope(ScopeKind.ALL), Verdict.FREEZE, ADMIN))
            )
            return Admitted(Admission.APPROVE, ask.grants)

        s.decider.answer = freeze_now
        assert await code_of(s.authority.start(spec(MAIL), ORCHESTRATOR, None)) is Code.FROZEN
        await freezing[0]
        await s.authority.ledger.write(record())
        assert (await s.authority.tasks(None, 10))[0].state is TaskState.REVOKED


async def test_a_freeze_that_comes_while_one_is_being_lifted(tmp_path: Path):
    everything = Scope(ScopeKind.ALL)
    async with opened(tmp_path) as s:
        await s.authority.judge(everything, Verdict.FREEZE, ADMIN)
        lifted, _ = await asyncio.gather(
            s.authority.judge(everything, Verdict.UNFREEZE, ADMIN),
            s.authority.judge(everything, Verdict.FREEZE, ADMIN),
            return_exceptions=True,
        )
        assert isinstance(lifted, Refused)
        assert await code_of(s.authority.start(spec(), ORCHESTRATOR, None)) is Code.FROZEN
    async with opened(tmp_path) as s:
        assert await code_of(s.authority.start(spec(), ORCHESTRATOR, None)) is Code.FROZEN


@pytest.mark.parametrize(
    "scope, verdict",
    [
        (Scope(ScopeKind.ALL, "x"), Verdict.FREEZE),
        (Scope(ScopeKind.AGENT), Verdict.FREEZE),
        (Scope(ScopeKind.GRANT, "g"), Verdict.FREEZE),
        (Scope(ScopeKind.TASK, "t"), Verdict.APPROVE),
    ],
)
async def test_verdicts_that_say_nothing(tmp_path: Path, scope: Scope, verdict: Verdict):
    async with opened(tmp_path) as s:
        assert await code_of(s.authority.judge(scope, verdict, ADMIN)) is Code.INVALID


# --- binding ---------------------------------------------------------------------------------------------------------


async def test_handles_bind_and_nothing_else_does(tmp_path: Path):
    async with opened(tmp_path) as s:
        one = await s.authority.start(spec(purpose="one"), ORCHESTRATOR, None)
        two = await s.authority.start(spec(purpose="two"), ORCHESTRATOR, None)
        bind = s.authority.view.bind

        def code(caller: Caller) -> Code:
            answer = bind(caller)
            assert isinstance(answer, Refusal)
            return answer.code

        assert bind(shows(one.handle)) == one.task
        assert bind(shows(two.handle)) == two.task
        assert code(shows(None)) is Code.NO_TASK
        assert code(shows("tgh_guess")) is Code.HANDLE_INVALID
        fresh = await s.authority.rotate(one.task.id, ORCHESTRATOR)
        assert code(shows(one.handle)) is Code.HANDLE_INVALID
        bound = bind(shows(fresh))
        assert isinstance(bound, Task)
        assert bound.id == one.task.id
        await s.authority.end(two.task.id, Outcome.CANCEL, ORCHESTRATOR)
        assert code(shows(two.handle)) is Code.TASK_ENDED
        s.clock.advance(1e6)
        assert code(shows(fresh)) is Code.TASK_ENDED


async def test_a_single_task_needs_no_handle_but_a_wrong_one_is_final(tmp_path: Path):
    async with opened(tmp_path, task_binding=Binding.SINGLE) as s:
        bind = s.authority.view.bind
        nothing = bind(shows(None))
        assert isinstance(nothing, Refusal)
        assert nothing.code is Code.NO_TASK
        started = await s.authority.start(spec(), ORCHESTRATOR, None)
        assert bind(shows(None)) == started.task
        assert bind(shows(started.handle)) == started.task
        wrong = bind(shows("tgh_wrong"))
        assert isinstance(wrong, Refusal)
        assert wrong.code is Code.HANDLE_INVALID
        await s.authority.end(started.task.id, Outcome.COMPLETE, ORCHESTRATOR)
        over = bind(shows(None))
        assert isinstance(over, Refusal)
        assert over.code is Code.NO_TASK
        assert "completed" in over.reason


# --- showing ---------------------------------------------------------------------------------------------------------


async def test_lists_are_paged_newest_first_and_old_tasks_come_from_the_store(tmp_path: Path):
    async with opened(tmp_path, ended_kept=1) as s:
        made = []
        for _ in range(5):
            started = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
            await s.authority.end(started.task.id, Outcome.COMPLETE, ORCHESTRATOR)
            made.append(started)
        page = await s.authority.tasks(None, 2)
        rest = await s.authority.tasks(page[-1].id, 10)
        assert [task.id for task in (*page, *rest)] == [started.task.id for started in reversed(made)]
        grants = await s.authority.grants(None, 3)
        more = await s.authority.grants(grants[-1].id, 10)
        assert [grant.id for grant in (*grants, *more)] == [
            started.grants[0].id for started in reversed(made)
        ]
        task, known = await s.authority.task(made[0].task.id)
        assert task.state is TaskState.COMPLETED
        assert known[0].state is GrantState.REVOKED
        assert (await s.authority.grant(made[0].grants[0].id)).task == task.id
        again = s.authority.end(made[0].task.id, Outcome.COMPLETE, ORCHESTRATOR)
        assert await code_of(again) is Code.TASK_ENDED
        assert await code_of(s.authority.task(TaskId("task-x"))) is Code.NOT_FOUND
        assert await code_of(s.authority.grant(GrantId("grant-x"))) is Code.NOT_FOUND
        assert await code_of(s.authority.end(TaskId("task-x"), Outcome.COMPLETE, ADMIN)) is Code.NOT_FOUND


async def test_what_is_old_is_pruned(tmp_path: Path):
    async with opened(tmp_path, ended_kept=1, retention=3600) as s:
        for _ in range(3):
            started = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
            await s.authority.end(started.task.id, Outcome.COMPLETE, ORCHESTRATOR)
        s.clock.advance(3 * 3600)
        await s.authority.ledger.write(record())
        assert await s.authority.tasks(None, 10) == ()
        assert await s.authority.grants(None, 10) == ()
