"""Ending: the order of things, who is waited for, and what a failing disk or severer changes."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from taskgrant.errors import Refused
from taskgrant.model.call import Refusal
from taskgrant.model.codes import Code
from taskgrant.model.event import EventKind, Revocation, Scope, ScopeKind, Verdict
from taskgrant.model.grant import GrantState
from taskgrant.model.ids import CallId
from taskgrant.model.task import Outcome, TaskState
from tests.authority.support import ADMIN, MAIL, ORCHESTRATOR, Cutter, new_csr, opened, record, spec


async def settled(turns: int = 50) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


async def test_ending_a_task_severs_and_tells(tmp_path: Path):
    async with opened(tmp_path) as s:
        cutter = Cutter(begun=("call-1",))
        s.authority.attach(cutter)
        started = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
        issued = await s.authority.issue(started.task.id, "mail", new_csr())
        ended = await s.authority.end(started.task.id, Outcome.COMPLETE, ORCHESTRATOR)
        assert ended.tasks == (started.task.id,)
        assert ended.grants == (started.grants[0].id,)
        assert ended.begun == ("call-1",)
        assert ended.durable_at is not None
        (revocation,) = cutter.applied
        assert revocation.serials == {issued.serial}
        assert revocation.jtis == {issued.jti}
    assert s.trail.fields("revocation.enforced")[0]["begun"] == ["call-1"]


async def test_nothing_new_starts_while_severing_takes_its_time(tmp_path: Path):
    class Slow:
        def __init__(self) -> None:
            self.asked = asyncio.Event()
            self.go = asyncio.Event()

        async def apply(self, revocation: Revocation) -> tuple[CallId, ...]:
            self.asked.set()
            await self.go.wait()
            return ()

    async with opened(tmp_path) as s:
        slow = Slow()
        s.authority.attach(slow)
        started = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
        stream = s.authority.events(None)
        await anext(stream)
        ending = asyncio.ensure_future(s.authority.end(started.task.id, Outcome.COMPLETE, ORCHESTRATOR))
        await slow.asked.wait()
        refusal = await s.authority.ledger.reserve(started.grants[0].id, CallId("c"), None, record())
        assert isinstance(refusal, Refusal)
        assert refusal.code is Code.TASK_ENDED
        with pytest.raises(Refused):
            await s.authority.issue(started.task.id, "mail", new_csr())
        told = asyncio.ensure_future(anext(stream))
        await settled()
        assert not told.done()  # published only when severed
        assert not ending.done()
        ending.cancel()  # whoever asked goes away: it goes on
        slow.go.set()
        event = await told
        assert event.kind is EventKind.REVOCATION
        assert event.body["tasks"] == [started.task.id]
        await stream.aclose()  # type: ignore[attr-defined]


async def test_a_guard_that_answers_is_waited_for_and_one_that_does_not_is_named(tmp_path: Path):
    async with opened(tmp_path) as s:
        started = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
        good, bad, plain = (s.authority.events(None, name) for name in ("good", "bad", None))
        for stream in (good, bad, plain):
            assert (await anext(stream)).kind is EventKind.SNAPSHOT
        ending = asyncio.ensure_future(s.authority.end(started.task.id, Outcome.COMPLETE, ORCHESTRATOR))
        while not ending.done():
            event = await anext(good)
            await s.authority.acknowledge("good", event.cursor)
            if event.kind is EventKind.TASK:
                await settled()
                assert not ending.done()
                s.clock.advance(2.1)
                await asyncio.wait({ending}, timeout=5)
        assert (await ending).unacknowledged == ("bad",)
        for stream in (good, bad, plain):
            await stream.aclose()  # type: ignore[attr-defined]


async def test_a_guard_whose_stream_broke_is_waited_for_until_it_refuses_by_itself(tmp_path: Path):
    async with opened(tmp_path) as s:
        first = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
        second = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
        stream = s.authority.events(None, "guard")
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        s.clock.advance(1.0)
        ending = asyncio.ensure_future(s.authority.end(first.task.id, Outcome.COMPLETE, ORCHESTRATOR))
        await settled()
        s.clock.advance(1.1)
        assert (await ending).unacknowledged == ("guard",)
        assert (await s.authority.end(second.task.id, Outcome.COMPLETE, ORCHESTRATOR)).unacknowledged == ()


async def test_a_full_disk_delays_no_revocation_and_forgets_none(tmp_path: Path):
    async with opened(tmp_path, staleness_seconds=0.05) as s:
        cutter = Cutter()
        s.authority.attach(cutter)
        started = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
        s.trail.fails = True
        ended = await s.authority.end(started.task.id, Outcome.COMPLETE, ORCHESTRATOR)
        assert ended.durable_at is None
        assert len(cutter.applied) == 1
        s.trail.fails = False
        await s.authority.ledger.write(record())
        assert "task.ended" in s.trail.events()
    async with opened(tmp_path) as s:
        assert (await s.authority.task(started.task.id))[0].state is TaskState.COMPLETED


async def test_a_severer_that_fails_is_not_passed_over(tmp_path: Path):
    class Broken:
        async def apply(self, revocation: Revocation) -> tuple[CallId, ...]:
            raise RuntimeError("no")

    async with opened(tmp_path) as s:
        cutter = Cutter()
        s.authority.attach(Broken())
        s.authority.attach(cutter)
        started = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
        with pytest.raises(Refused) as caught:
            await s.authority.end(started.task.id, Outcome.COMPLETE, ORCHESTRATOR)
        assert caught.value.code is Code.AUTHORITY_UNAVAILABLE
        assert len(cutter.applied) == 1
        assert not (await s.authority.task(started.task.id))[0].live


async def test_of_two_grants_one_is_revoked_and_the_credential_with_it(tmp_path: Path):
    async with opened(tmp_path) as s:
        cutter = Cutter()
        s.authority.attach(cutter)
        started = await s.authority.start(spec(MAIL, MAIL), ORCHESTRATOR, None)
        one, two = started.grants
        issued = await s.authority.issue(started.task.id, "mail", new_csr())
        await s.authority.judge(Scope(ScopeKind.GRANT, one.id), Verdict.REVOKE, ORCHESTRATOR)
        assert cutter.applied[0].tasks == frozenset()
        assert cutter.applied[0].grants == {one.id}
        assert cutter.applied[0].serials == {issued.serial}
        again = await s.authority.issue(started.task.id, "mail", new_csr())
        assert again.grants == (two.id,)


async def test_expiry_takes_the_same_path(tmp_path: Path):
    async with opened(tmp_path, staleness_seconds=0.5) as s:
        cutter = Cutter()
        s.authority.attach(cutter)
        started = await s.authority.start(
            spec(replace(MAIL, expires_in=10), replace(MAIL, idle_timeout=5), expires_in=20),
            ORCHESTRATOR,
            None,
        )
        short, idle = started.grants
        use = await s.authority.ledger.reserve(idle.id, CallId("c"), None, record())
        assert not isinstance(use, Refusal)
        s.clock.advance(6)
        await settled()
        assert cutter.applied == []  # a call is in flight
        await s.authority.ledger.settle(use, True, record())
        s.clock.advance(4)
        await settled()
        assert cutter.applied[0].grants == {short.id}
        s.clock.advance(1)
        await settled()
        assert cutter.applied[1].grants == {idle.id}
        s.clock.advance(9)
        await settled()
        assert cutter.applied[2].tasks == {started.task.id}
        assert (await s.authority.task(started.task.id))[0].state is TaskState.EXPIRED
        assert (await s.authority.grant(short.id)).state is GrantState.EXPIRED


async def test_an_idle_task_ends(tmp_path: Path):
    async with opened(tmp_path) as s:
        started = await s.authority.start(spec(MAIL, idle_timeout=30), ORCHESTRATOR, None)
        for number in range(3):
            s.clock.advance(20)
            await settled()
            use = await s.authority.ledger.reserve(started.grants[0].id, CallId(f"c{number}"), None, record())
            assert not isinstance(use, Refusal)
            await s.authority.ledger.settle(use, True, record())
        s.clock.advance(31)
        await settled()
        assert (await s.authority.task(started.task.id))[0].state is TaskState.EXPIRED


async def test_an_admin_revokes_everything(tmp_path: Path):
    async with opened(tmp_path) as s:
        tasks = [(await s.authority.start(spec(MAIL), ORCHESTRATOR, None)).task.id for _ in range(3)]
        ended = await s.authority.judge(Scope(ScopeKind.ALL), Verdict.REVOKE, ADMIN)
        assert set(ended.tasks) == set(tasks)
        await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
