"""The clock of the process: wall-clock instants that advance with the boot-time clock.

A deadline is met as soon as *either* clock says so: what is left of a grant is the lesser of what the wall clock and
the boot-time clock (``CLOCK_BOOTTIME``, which counts suspension too) leave of it. Written out, ``now = boot-time +
offset``, where ``offset`` is the largest difference between wall and boot-time seen so far. A wall clock that is set
back therefore extends nothing, one that is set ahead ends things early, and time never stands still or goes back.

``offset`` means the same to every process of one boot: the store keeps it, and a restart holds the clock to it, so that
setting the wall clock back while nothing ran extends nothing either.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from taskgrant.model.time import Clock, Instant


class Alarm(Protocol):
    """A callback that is due at an instant, and can be called off."""

    def cancel(self) -> None: ...


class AlarmClock(Clock, Protocol):
    """A clock that can also wake the event loop. Tests have one that they advance by hand."""

    @property
    def offset(self) -> float:
        """Seconds between this clock and the boot-time clock; it only grows."""
        ...

    def hold(self, offset: float) -> None:
        """From now on, be at least ``offset`` ahead of the boot-time clock."""
        ...

    def call_at(self, at: Instant, callback: Callable[[], None]) -> Alarm:
        """Calls back in the running loop, at ``at`` or soon after it."""
        ...


class SystemClock:
    """The real clock (see the module's docstring). Both sources can be replaced to test what a step does."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._wall = wall
        self._boot = boot
        self._offset = wall() - boot()

    @property
    def offset(self) -> float:
        return self._offset

    def hold(self, offset: float) -> None:
        self._offset = max(self._offset, offset)

    def now(self) -> Instant:
        # The wall first: being interrupted between the two readings then makes the offset too small, which the next
        # reading mends, and never too large, which would stay.
        wall = self._wall()
        boot = self._boot()
        if wall - boot > self._offset:
            self._offset = wall - boot
        return Instant(boot + self._offset)

    def call_at(self, at: Instant, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(max(0.0, at - self.now()), callback)
