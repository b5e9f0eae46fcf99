"""Expiry: one asyncio task that sleeps until the next deadline, and ends what is due by the same path as a
revocation.
"""

import asyncio
import heapq

from taskgrant.authority import effects as fx
from taskgrant.authority import lifecycle
from taskgrant.authority.clock import Alarm, AlarmClock
from taskgrant.authority.lifecycle import TaskLife
from taskgrant.authority.registry import Registry
from taskgrant.authority.revocation import Revoker
from taskgrant.model.ids import TaskId
from taskgrant.model.time import Instant

_SLACK = 1024  # stale heap entries that are borne before the heap is made anew


class Expiry:
    """``schedule`` is cheap and may be called on every change; a deadline that moves back costs one early wake-up."""

    def __init__(self, clock: AlarmClock, registry: Registry, revoker: Revoker) -> None:
        self._clock = clock
        self._registry = registry
        self._revoker = revoker
        self._heap: list[tuple[Instant, TaskId]] = []
        self._planned: dict[TaskId, Instant] = {}
        self._wake = asyncio.Event()
        self._alarm: tuple[Instant, Alarm] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        for life in self._registry.lives.values():
            self.schedule(life)
        self._task = asyncio.create_task(self._run(), name="taskgrant-expiry")

    async def close(self) -> None:
        if self._alarm is not None:
            self._alarm[1].cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def schedule(self, life: TaskLife) -> None:
        due = life.due()
        planned = self._planned.get(life.task.id)
        if planned is not None and planned <= due:
            return
        self._plan(life)
        self._compact()
        if self._alarm is None or due < self._alarm[0]:
            self._arm()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._expire(self._clock.now())
            self._arm()

    def _expire(self, now: Instant) -> None:
        steps = []
        while self._heap and self._heap[0][0] <= now:
            at, task = heapq.heappop(self._heap)
            if self._planned.get(task) != at:
                continue
            del self._planned[task]
            life = self._registry.lives.get(task)
            if life is None:
                continue
            if life.due() <= now:
                step = lifecycle.apply(life, fx.Ticked(), now)
                steps.append(step)
                life = step[0]
            if life.task.live:
                self._plan(life)
        if steps:
            # Not awaited: what is due next must not wait for a guard that does not answer.
            self._revoker.carry(steps, "expired")

    def _plan(self, life: TaskLife) -> None:
        due = life.due()
        self._planned[life.task.id] = due
        heapq.heappush(self._heap, (due, life.task.id))

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._registry.lives) + _SLACK:
            lives = self._registry.lives
            self._planned = {task: at for task, at in self._planned.items() if task in lives}
            self._heap = [(at, task) for task, at in self._planned.items()]
            heapq.heapify(self._heap)

    def _arm(self) -> None:
        if self._alarm is not None:
            self._alarm[1].cancel()
            self._alarm = None
        if self._heap:
            at = self._heap[0][0]
            self._alarm = (at, self._clock.call_at(at, self._wake.set))
