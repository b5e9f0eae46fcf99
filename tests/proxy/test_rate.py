"""Rates: a burst up to the limit, then an even flow; tasks do not share it, and end with theirs."""

from hypothesis import given
from hypothesis import strategies as st

from taskgrant.model.ids import TaskId
from taskgrant.model.time import Instant
from taskgrant.proxy.rate import RateLimiter

A, B = TaskId("task-a"), TaskId("task-b")


def admitted(limiter: RateLimiter, now: float, task: TaskId = A, tool: str = "t", limit: int = 3) -> bool:
    return limiter.admit(task, "s", tool, limit, Instant(now))


def test_burst_then_even_flow():
    limiter = RateLimiter()
    assert [admitted(limiter, 0) for _ in range(4)] == [True, True, True, False]
    assert not admitted(limiter, 19.9)
    assert admitted(limiter, 20)
    assert not admitted(limiter, 20)


def test_refused_calls_do_not_count():
    limiter = RateLimiter()
    for _ in range(3):
        admitted(limiter, 0)
    assert not any(admitted(limiter, 1) for _ in range(100))
    assert admitted(limiter, 20)


def test_tasks_and_tools_count_on_their_own():
    limiter = RateLimiter()
    for _ in range(3):
        admitted(limiter, 0)
    assert admitted(limiter, 0, task=B)
    assert admitted(limiter, 0, tool="other")


def test_a_task_that_ended_is_forgotten():
    limiter = RateLimiter()
    admitted(limiter, 0)
    limiter.forget(A)
    limiter.forget(A)
    assert not limiter._arrivals


@given(limit=st.integers(1, 50), gaps=st.lists(st.floats(0, 30), min_size=1, max_size=200))
def test_never_more_than_the_limit_and_its_flow(limit, gaps):
    """In any stretch of time no more pass than the burst and what flows in meanwhile."""
    limiter, now, passed = RateLimiter(), 0.0, []
    for gap in gaps:
        now += gap
        if limiter.admit(A, "s", "t", limit, Instant(now)):
            passed.append(now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            assert last - first + 1 <= limit + (passed[last] - passed[first]) * limit / 60 + 1e-6
