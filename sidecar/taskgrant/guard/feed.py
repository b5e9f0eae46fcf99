"""The authority's events: enrol, apply, cut what has ended, acknowledge, and come back when the stream
breaks.

An event is applied and everything it ends is cut in one step, without a pause between; only then may it be
acknowledged. Acknowledging runs beside the reading, and says the newest place that was reached: one word
stands for all before it.

Another epoch is another authority: what ran under the earlier one is cut, and nothing is let in until the
guard has enrolled with the new one and has its snapshot.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Protocol

from taskgrant.errors import TaskgrantError
from taskgrant.guard.flights import Flights
from taskgrant.guard.identity import Identity
from taskgrant.guard.revocations import Gap, RevocationState
from taskgrant.model.credential import Enrolled
from taskgrant.model.event import Cursor, Event, EventKind
from taskgrant.model.time import Clock

_log = logging.getLogger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0  # seconds between tries, before jitter


class GuardAuthority(Protocol):
    """What a guard needs of the authority. Every method may raise ``errors.Refused``."""

    def events(self, after: Cursor | None, subscriber: str | None = None) -> AsyncIterator[Event]: ...
    async def acknowledge(self, subscriber: str, cursor: Cursor) -> None: ...
    async def enrol(self, server: str, csr: bytes) -> Enrolled: ...


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


class Feed:
    """``subscriber`` names this guard to the authority; ``ended`` is told the tasks that an event ends, ``restarted``
    is called when another authority has taken over."""

    def __init__(
        self,
        authority: GuardAuthority,
        subscriber: str,
        identity: Identity,
        state: RevocationState,
        flights: Flights,
        ended: Callable[[frozenset[str]], None],
        restarted: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._authority = authority
        self._subscriber = subscriber
        self._identity = identity
        self._state = state
        self._flights = flights
        self._ended = ended
        self._restarted = restarted
        self._clock = clock
        self._epoch: str | None = None
        self._reached: Cursor | None = None
        self._news = asyncio.Event()
        self._pause = _FIRST_PAUSE
        self.ready = asyncio.Event()  # set once the guard can let anyone in

    async def run(self) -> None:
        """Runs until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._acknowledge())
            group.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            try:
                await self._stream()
                _log.warning("the authority ended the event stream")
            except (TaskgrantError, OSError, TimeoutError, Gap) as error:
                _log.warning("the event stream broke: %s", _said(error))
            # Jitter, so that guards that lost one authority do not all come back at once.
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    async def _stream(self) -> None:
        if self._identity.context is None:
            await self._enrol()
        stream = self._authority.events(self._state.cursor, self._subscriber)
        try:
            while True:
                async with asyncio.timeout(self._state.staleness):
                    event = await anext(stream, None)
                if event is None:
                    return
                await self._take(event)
                self._pause = _FIRST_PAUSE
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    async def _take(self, event: Event) -> None:
        epoch = event.cursor.epoch
        if epoch != self._epoch:
            if self._epoch is not None:
                self._state.forget()
                self._flights.cut_all()
                self._restarted()
                await self._enrol()
            self._epoch = epoch
        ended = self._state.apply(event, self._clock.now())
        cut = self._flights.cut(ended)
        if cut:
            _log.info("requests were cut", extra={"cut": cut, "cursor": str(event.cursor)})
        self._ended(ended.tasks)
        if event.kind is not EventKind.HEARTBEAT:
            self._reached = event.cursor
            self._news.set()
        self.ready.set()
        if self._identity.due(self._clock.now()):
            await self._renew()

    async def _acknowledge(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            cursor = self._reached
            if cursor is None:
                continue
            try:
                await self._authority.acknowledge(self._subscriber, cursor)
            except (TaskgrantError, OSError, TimeoutError) as error:
                # The authority waits for us until we must be stale; the next event says this one too.
                _log.warning("the authority did not take an acknowledgement: %s", _said(error))

    async def _enrol(self) -> None:
        await self._identity.enrol(self._authority.enrol, self._clock.now())

    async def _renew(self) -> None:
        """The certificate in use is still good for a while: a failure here does not break the stream."""
        try:
            await self._enrol()
        except (TaskgrantError, OSError, TimeoutError) as error:
            _log.warning("the guard's certificate could not be renewed: %s", _said(error))
            self._identity.postpone(self._clock.now())
