"""One credential per task and audience, minted when it is needed, remade when grants change, dropped with its task."""

import asyncio

import pytest

from taskgrant.errors import Refused
from taskgrant.model.event import Scope, ScopeKind, Verdict
from tests.proxy.rig import ANYBODY, spec


async def get(rig, started):
    return await rig.parts.credentials.get(started.task.id, "tools", live(rig, started))


def live(rig, started):
    return rig.parts.view.live(started.task.id, rig.parts.clock.now())


async def test_minted_at_the_first_call_and_used_again(rig):
    started = await rig.start(spec())
    assert len(rig.parts.credentials) == 0
    assert rig.trail.fields("credential.issued") == []
    serials = {(await get(rig, started)).serial for _ in range(3)}
    assert len(serials) == 1
    assert len(rig.parts.credentials) == 1
    assert [one["serial"] for one in rig.trail.fields("credential.issued")] == list(serials)


async def test_calls_that_meet_share_one(rig):
    started = await rig.start(spec())
    issued = await asyncio.gather(*(get(rig, started) for _ in range(8)))
    assert len({one.serial for one in issued}) == 1
    assert len(rig.trail.fields("credential.issued")) == 1


async def test_remade_when_grants_are_added(rig):
    started = await rig.start(spec())
    first = await get(rig, started)
    await rig.authority.request(started.task.id, (spec("other"),), ANYBODY, None)
    second = await get(rig, started)
    assert second.serial != first.serial
    assert set(second.grants) > set(first.grants)
    assert len(rig.parts.credentials) == 1


async def test_remade_without_the_grant_that_was_revoked(rig):
    started = await rig.start(spec(), spec("other"))
    first = await get(rig, started)
    await rig.authority.judge(Scope(ScopeKind.GRANT, started.grants[0].id), Verdict.REVOKE, ANYBODY)
    assert len(rig.parts.credentials) == 0
    second = await get(rig, started)
    assert second.serial != first.serial
    assert second.grants == (started.grants[1].id,)


async def test_dropped_with_its_task(rig):
    started, other = await rig.start(spec()), await rig.start(spec())
    await get(rig, started)
    kept = await get(rig, other)
    grants = live(rig, started)
    await rig.end(started)
    assert len(rig.parts.credentials) == 1
    with pytest.raises(Refused) as refused:
        await rig.parts.credentials.get(started.task.id, "tools", grants)
    assert refused.value.code == "task_ended"
    assert (await get(rig, other)).serial == kept.serial


async def test_remade_before_it_expires(rig, monkeypatch):
    started = await rig.start(spec())
    first = await get(rig, started)
    grants = live(rig, started)
    usable = rig.parts.credentials._usable
    assert usable(started.task.id, "tools", list(grants)) is first
    for left, wanted in ((11.0, first), (9.0, None), (-1.0, None)):
        monkeypatch.setattr(rig.parts.clock.__class__, "now", lambda _, at=first.not_after - left: at)
        assert usable(started.task.id, "tools", list(grants)) is wanted
