"""The scope of a leg: it ends when it is to end, whatever the code inside does."""

import asyncio
import contextlib
import logging
import time

import pytest

from taskgrant.errors import Severed
from taskgrant.model.codes import Code
from taskgrant.model.ids import CallId, GrantId, TaskId
from taskgrant.model.time import Instant
from taskgrant.wire.legs import Leg, Legs
from tests.wire.support import SOON, SystemClock


def after(seconds: float) -> Instant:
    return Instant(time.time() + seconds)


def opened(legs: Legs, call: str = "call-1", life: float = 600.0) -> Leg:
    return legs.open(CallId(call), TaskId("task-1"), "mail", after(life))


@pytest.fixture
def legs() -> Legs:
    return Legs(SystemClock(), hard_deadline=0.3)


async def forever() -> None:
    await asyncio.Event().wait()


async def in_leg(legs: Legs, inside: asyncio.Event, call: str = "call-1") -> None:
    async with opened(legs, call):
        inside.set()
        await forever()


async def test_a_leg_that_ends_by_itself(legs: Legs) -> None:
    async with opened(legs):
        assert len(legs) == 1
    assert len(legs) == 0


async def test_an_error_inside_passes_through(legs: Legs) -> None:
    with pytest.raises(LookupError):
        async with opened(legs):
            raise LookupError
    assert len(legs) == 0


async def test_a_time_that_is_over(legs: Legs) -> None:
    with pytest.raises(Severed) as caught:
        async with opened(legs, life=-1):
            await forever()
    assert (caught.value.code, caught.value.begun) == ("grant_expired", False)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_narrowing_shortens_and_never_lengthens(legs: Legs) -> None:
    async def narrowed(life: float, to: float) -> None:
        async with opened(legs, life=life) as leg:
            leg.narrow(GrantId("grant-1"), after(to))
            assert (leg.grant, leg.grants) == (GrantId("grant-1"), frozenset({GrantId("grant-1")}))
            await asyncio.wait_for(forever(), SOON)

    with pytest.raises(Severed):
        await narrowed(0.01, 600)
    with pytest.raises(Severed):
        await narrowed(600, 0.01)


async def test_cutting_what_only_listens_leaves_nothing_unknown(legs: Legs) -> None:
    async def running(call: str, effects: bool, ready: asyncio.Event) -> None:
        async with legs.open(CallId(call), TaskId("task-1"), "mail", after(600), effects=effects) as leg:
            leg.begun = True
            ready.set()
            await forever()

    events = [asyncio.Event(), asyncio.Event()]
    tasks = [
        asyncio.create_task(running("call-1", True, events[0])),
        asyncio.create_task(running("call-2", False, events[1])),
    ]
    for event in events:
        await event.wait()
    assert await legs.sever(lambda _: True, Code.TASK_ENDED, "over") == (CallId("call-1"),)
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, Severed)


async def test_code_that_swallows_its_cancellation(legs: Legs) -> None:
    inside, swallowed = asyncio.Event(), 0

    async def stubborn() -> None:
        nonlocal swallowed
        async with opened(legs):
            while True:
                try:
                    inside.set()
                    await forever()
                except asyncio.CancelledError:
                    swallowed += 1
                    if swallowed == 3:
                        raise

    task = asyncio.create_task(stubborn())
    await inside.wait()
    await asyncio.wait_for(legs.sever(lambda leg: True, Code.REVOKED, "a test"), SOON)
    with pytest.raises(Severed):
        await task
    assert swallowed == 3


async def test_code_that_goes_on_as_if_nothing_had_been(legs: Legs) -> None:
    inside = asyncio.Event()

    async def deaf() -> str:
        async with opened(legs):
            inside.set()
            with contextlib.suppress(asyncio.CancelledError):
                await forever()
        return "went on"

    task = asyncio.create_task(deaf())
    await inside.wait()
    await legs.sever(lambda leg: True, Code.TASK_ENDED, "a test")
    with pytest.raises(Severed):
        await task


async def test_a_call_that_stays_is_reported(legs: Legs, caplog: pytest.LogCaptureFixture) -> None:
    inside, release = asyncio.Event(), asyncio.Event()

    async def stuck() -> None:
        async with opened(legs):
            while not release.is_set():
                inside.set()
                try:
                    await forever()
                except asyncio.CancelledError:
                    continue

    task = asyncio.create_task(stuck())
    await inside.wait()
    with caplog.at_level(logging.CRITICAL):
        begun = await asyncio.wait_for(legs.sever(lambda leg: True, Code.REVOKED, "a test"), SOON)
    assert begun == ("call-1",)  # unknown, for all that we can say
    assert "call-1" in caplog.text
    release.set()
    with pytest.raises(Severed):
        await task


async def test_a_cancellation_of_somebody_else_s_stays_one(legs: Legs) -> None:
    inside = asyncio.Event()
    task = asyncio.create_task(in_leg(legs, inside))
    await inside.wait()
    task.cancel()
    await legs.sever(lambda leg: True, Code.REVOKED, "a test")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(legs) == 0


async def test_a_call_that_severs_itself(legs: Legs) -> None:
    async def suicidal() -> None:
        async with opened(legs):
            await legs.sever(lambda leg: True, Code.REVOKED, "a test")
            await forever()

    with pytest.raises(Severed):
        await asyncio.wait_for(suicidal(), SOON)


async def test_only_what_matches_is_cut_and_what_had_begun_is_named(legs: Legs) -> None:
    events = [asyncio.Event() for _ in range(3)]
    tasks = [asyncio.create_task(in_leg(legs, event, f"call-{i}")) for i, event in enumerate(events)]
    for event in events:
        await event.wait()
    for leg in legs._open:
        leg.begun = leg.call == "call-1"
    begun = await legs.sever(lambda leg: leg.call in ("call-0", "call-1"), Code.REVOKED, "a test")
    assert begun == ("call-1",)
    assert [task.done() for task in tasks] == [True, True, False]
    await legs.sever(lambda leg: True, Code.REVOKED, "a test")
    assert all(isinstance(done, Severed) for done in await asyncio.gather(*tasks, return_exceptions=True))
