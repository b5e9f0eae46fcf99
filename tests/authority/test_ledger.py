"""Uses: taken at once, written before they count, given back only when nothing was sent."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from taskgrant.model.call import Refusal
from taskgrant.model.codes import Code
from taskgrant.model.event import Scope, ScopeKind, Verdict
from taskgrant.model.grant import GrantState
from taskgrant.model.ids import CallId, GrantId
from taskgrant.model.ports import Reservation
from taskgrant.model.task import Outcome
from tests.authority.support import ADMIN, MAIL, ORCHESTRATOR, Setting, opened, record, spec

ONCE = replace(MAIL, max_uses=1)


async def a_grant(s: Setting, what=ONCE) -> GrantId:
    return (await s.authority.start(spec(what), ORCHESTRATOR, None)).grants[0].id


async def test_a_use_is_recorded_before_it_is_granted(tmp_path: Path):
    async with opened(tmp_path) as s:
        grant = await a_grant(s)
        use = await s.authority.ledger.reserve(grant, CallId("c1"), None, record("call.sent"))
        assert use == Reservation(grant, CallId("c1"))
        assert "call.sent" in s.trail.events()
        second = await s.authority.ledger.reserve(grant, CallId("c2"), None, record())
        assert isinstance(second, Refusal)
        assert second.code is Code.USES_EXHAUSTED
        await s.authority.ledger.settle(use, True, record("call.done"))
        assert (await s.authority.grant(grant)).in_flight == 0


async def test_of_many_at_once_exactly_as_many_pass_as_there_are_uses(tmp_path: Path):
    async with opened(tmp_path) as s:
        grant = await a_grant(s, replace(MAIL, max_uses=7))
        answers = await asyncio.gather(
            *(s.authority.ledger.reserve(grant, CallId(f"c{i}"), None, record()) for i in range(50))
        )
        assert sum(isinstance(answer, Reservation) for answer in answers) == 7


async def test_a_refund(tmp_path: Path):
    async with opened(tmp_path) as s:
        grant = await a_grant(s)
        use = await s.authority.ledger.reserve(grant, CallId("c1"), None, record())
        assert isinstance(use, Reservation)
        await s.authority.ledger.settle(use, False, record())
        await s.authority.ledger.settle(use, False, record())  # twice gives back once
        assert (await s.authority.grant(grant)).used == 0
        assert isinstance(await s.authority.ledger.reserve(grant, CallId("c2"), None, record()), Reservation)
    async with opened(tmp_path) as s:
        known = await s.authority.grant(grant)
        assert (known.used, known.state) == (1, GrantState.EXHAUSTED)


async def test_a_retry_shares_its_use_but_never_runs_beside_it(tmp_path: Path):
    async with opened(tmp_path) as s:
        ledger = s.authority.ledger
        grant = await a_grant(s)
        first = await ledger.reserve(grant, CallId("c1"), "same", record())
        assert isinstance(first, Reservation)
        beside = await ledger.reserve(grant, CallId("c2"), "same", record())
        assert isinstance(beside, Refusal)
        assert beside.code is Code.CONFLICT
        await ledger.settle(first, True, record())
        retry = await ledger.reserve(grant, CallId("c3"), "same", record())
        assert retry == Reservation(grant, CallId("c3"), counted=False)
        await ledger.settle(retry, True, record())
        other = await ledger.reserve(grant, CallId("c4"), "other", record())
        assert isinstance(other, Refusal)
        assert (await s.authority.grant(grant)).used == 1


async def test_an_identity_whose_use_was_given_back_counts_again(tmp_path: Path):
    async with opened(tmp_path) as s:
        grant = await a_grant(s)
        first = await s.authority.ledger.reserve(grant, CallId("c1"), "same", record())
        assert isinstance(first, Reservation)
        await s.authority.ledger.settle(first, False, record())
        again = await s.authority.ledger.reserve(grant, CallId("c2"), "same", record())
        assert again == Reservation(grant, CallId("c2"), counted=True)


async def test_a_caller_that_leaves_while_it_waits_has_used_nothing(tmp_path: Path):
    async with opened(tmp_path) as s:
        grant = await a_grant(s)
        waiting = asyncio.ensure_future(s.authority.ledger.reserve(grant, CallId("c1"), None, record()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await s.authority.grant(grant)).used == 0
    async with opened(tmp_path) as s:
        assert (await s.authority.grant(grant)).used == 0
        assert "use.settled" not in s.trail.events()  # nothing was left open


async def test_a_disk_that_refuses_permits_nothing_and_takes_nothing(tmp_path: Path):
    async with opened(tmp_path) as s:
        grant = await a_grant(s)
        s.trail.fails = True
        refusal = await s.authority.ledger.reserve(grant, CallId("c1"), None, record())
        assert isinstance(refusal, Refusal)
        assert refusal.code is Code.AUDIT_UNAVAILABLE
        s.trail.fails = False
        assert isinstance(await s.authority.ledger.reserve(grant, CallId("c2"), None, record()), Reservation)


async def test_one_call_has_one_use(tmp_path: Path):
    async with opened(tmp_path) as s:
        grant = await a_grant(s, MAIL)
        await s.authority.ledger.reserve(grant, CallId("c1"), None, record())
        again = await s.authority.ledger.reserve(grant, CallId("c1"), None, record())
        assert isinstance(again, Refusal)
        assert again.code is Code.CONFLICT


async def test_unknown_grants_and_records(tmp_path: Path):
    async with opened(tmp_path) as s:
        refusal = await s.authority.ledger.reserve(GrantId("grant-x"), CallId("c1"), None, record())
        assert isinstance(refusal, Refusal)
        assert refusal.code is Code.NO_GRANT
        await s.authority.ledger.write(record("one"))
        assert "one" in s.trail.events()
        s.authority.ledger.post(record("two"))
    assert "two" in s.trail.events()


async def test_a_grant_that_ends_while_its_use_is_being_written_permits_nothing(tmp_path: Path):
    async with opened(tmp_path) as s:
        started = await s.authority.start(spec(MAIL, MAIL), ORCHESTRATOR, None)
        one, two = (grant.id for grant in started.grants)
        reserving = [
            asyncio.ensure_future(s.authority.ledger.reserve(grant, CallId(grant), None, record()))
            for grant in (one, two)
        ]
        await asyncio.sleep(0)
        await s.authority.judge(Scope(ScopeKind.GRANT, one), Verdict.REVOKE, ADMIN)
        await s.authority.end(started.task.id, Outcome.COMPLETE, ORCHESTRATOR)
        refusal = await reserving[0]
        assert isinstance(refusal, Refusal)
        assert refusal.code in (Code.REVOKED, Code.TASK_ENDED)
        again = await s.authority.ledger.reserve(two, CallId("late"), None, record())
        assert isinstance(again, Refusal)
        assert again.code is Code.TASK_ENDED
