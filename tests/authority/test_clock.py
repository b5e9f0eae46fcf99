"""The clock: whatever is done to the wall clock, nothing lives longer for it."""

from hypothesis import given
from hypothesis import strategies as st

from taskgrant.authority.clock import SystemClock


class Sources:
    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.boot = 500.0

    def clock(self) -> SystemClock:
        return SystemClock(lambda: self.wall, lambda: self.boot)


def test_a_step_back_extends_nothing():
    sources = Sources()
    clock = sources.clock()
    start = clock.now()
    sources.wall -= 3600
    sources.boot += 10
    assert clock.now() == start + 10


def test_a_step_ahead_is_followed():
    sources = Sources()
    clock = sources.clock()
    start = clock.now()
    sources.wall += 3600
    assert clock.now() == start + 3600
    sources.wall -= 3600
    sources.boot += 5
    assert clock.now() == start + 3605


def test_a_restart_does_not_forget_a_step_back():
    sources = Sources()
    before = sources.clock()
    start = before.now()
    sources.wall -= 3600
    sources.boot += 10
    after = sources.clock()
    after.hold(before.offset)
    assert after.now() == start + 10


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1e4))))
def test_it_never_goes_back_nor_slower_than_boot_time(steps):
    sources = Sources()
    clock = sources.clock()
    last = clock.now()
    for wall, boot in steps:
        sources.wall += wall
        sources.boot += boot
        now = clock.now()
        assert now >= last + boot - 1e-3
        last = now


async def test_the_real_one_wakes_the_loop():
    import asyncio

    clock = SystemClock()
    rung = asyncio.Event()
    clock.call_at(clock.now(), rung.set)
    await asyncio.wait_for(rung.wait(), 5)
