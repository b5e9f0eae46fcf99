"""The event stream: a snapshot, changes in order, heartbeats; resumable while the ring still holds what was missed.

A *named* subscriber is one that enforces (a guard): it acknowledges revocations, and revoking waits for it until it
has, or until it must refuse by itself because it has heard nothing for the staleness bound. One whose stream has
broken is waited for too, until the bound since then has passed: it may not know yet that it is cut off.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from taskgrant.authority.clock import Alarm, AlarmClock
from taskgrant.model.event import Cursor, Event, EventKind
from taskgrant.model.json import JsonObject
from taskgrant.model.time import Instant


class _Feed:
    """What waits for one subscriber. A subscriber that is too slow is cut: it resumes, or takes a new snapshot."""

    def __init__(self, bound: int) -> None:
        self._waiting: deque[Event] = deque()
        self._bound = bound
        self._ready = asyncio.Event()
        self._cut = False

    def put(self, event: Event) -> None:
        if len(self._waiting) >= self._bound:
            self.cut()
        elif not self._cut:
            self._waiting.append(event)
            self._ready.set()

    def cut(self) -> None:
        self._cut = True
        self._waiting.clear()
        self._ready.set()

    async def get(self) -> Event | None:
        await self._ready.wait()
        if self._cut:
            return None
        event = self._waiting.popleft()
        if not self._waiting:
            self._ready.clear()
        return event


@dataclass(slots=True)
class _Member:
    """A named subscriber. ``left_at`` is None while it is connected."""

    feed: _Feed
    acknowledged: int = -1
    left_at: Instant | None = None


@dataclass(slots=True)
class _Wait:
    seq: int
    names: set[str]
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self) -> None:
        self.over.set()


class EventLog:
    """One for the process. ``epoch`` names its numbering: another instance counts anew."""

    def __init__(
        self, epoch: str, clock: AlarmClock, *, heartbeat: float, staleness: float,
        buffer: int, queue: int,
    ) -> None:  # fmt: skip
        self._epoch = epoch
        self._clock = clock
        self._heartbeat = heartbeat
        self._staleness = staleness
        self._queue = queue
        self._ring: deque[Event] = deque(maxlen=buffer)
        self._seq = 0
        self._feeds: set[_Feed] = set()
        self._members: dict[str, _Member] = {}
        self._waits: list[_Wait] = []
        self._beat: Alarm | None = None

    @property
    def cursor(self) -> Cursor:
        return Cursor(self._epoch, self._seq)

    def publish(self, kind: EventKind, body: JsonObject) -> Cursor:
        self._seq += 1
        event = Event(self.cursor, kind, self._clock.now(), body)
        self._ring.append(event)
        for feed in tuple(self._feeds):
            feed.put(event)
        return event.cursor

    async def subscribe(
        self, after: Cursor | None, name: str | None, snapshot: Callable[[], JsonObject]
    ) -> AsyncGenerator[Event, None]:
        """``snapshot`` gives the body of a snapshot of now. Ends when the subscriber is too slow, when another of its
        name comes, or when the log is closed.
        """
        feed = _Feed(self._queue)
        missed = self._missed(after)
        if missed is None:
            missed = [Event(self.cursor, EventKind.SNAPSHOT, self._clock.now(), snapshot())]
        else:  # what was missed is old news: say at once that nothing newer is
            missed.append(Event(self.cursor, EventKind.HEARTBEAT, self._clock.now(), {}))
        self._join(feed, name)
        try:
            for event in missed:
                yield event
            while (one := await feed.get()) is not None:
                yield one
        finally:
            self._leave(feed, name)

    def _missed(self, after: Cursor | None) -> list[Event] | None:
        """What came after a cursor; None when that can no longer be told."""
        if after is None or after.epoch != self._epoch or after.seq > self._seq:
            return None
        oldest = self._ring[0].cursor.seq if self._ring else self._seq + 1
        if after.seq + 1 < oldest:
            return None
        return [event for event in self._ring if event.cursor.seq > after.seq]

    def _join(self, feed: _Feed, name: str | None) -> None:
        self._feeds.add(feed)
        if name is not None:
            before = self._members.get(name)
            if before is not None:
                before.feed.cut()
            self._members[name] = _Member(feed, before.acknowledged if before else -1)
        if self._beat is None:
            self._arm()

    def _leave(self, feed: _Feed, name: str | None) -> None:
        self._feeds.discard(feed)
        member = self._members.get(name) if name is not None else None
        if member is not None and member.feed is feed:
            member.left_at = self._clock.now()
        if not self._feeds and self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def _arm(self) -> None:
        self._beat = self._clock.call_at(Instant(self._clock.now() + self._heartbeat), self._pulse)

    def _pulse(self) -> None:
        event = Event(self.cursor, EventKind.HEARTBEAT, self._clock.now(), {})
        for feed in tuple(self._feeds):
            feed.put(event)
        self._arm()

    # --- acknowledgements ----------------------------------------------------------------------------------------

    def acknowledge(self, name: str, cursor: Cursor) -> None:
        """The subscriber has enforced everything up to the cursor. One of another epoch, or of the future, says
        nothing.
        """
        member = self._members.get(name)
        if member is None or cursor.epoch != self._epoch or cursor.seq > self._seq:
            return
        member.acknowledged = max(member.acknowledged, cursor.seq)
        for wait in self._waits:
            if wait.seq <= member.acknowledged:
                wait.names.discard(name)
                if not wait.names:
                    wait.end()

    async def acknowledged(self, cursor: Cursor) -> tuple[str, ...]:
        """Returns when every named subscriber has acknowledged the cursor or refuses by itself; names the latter."""
        now = self._clock.now()
        bounds: dict[str, float] = {}
        for name, member in tuple(self._members.items()):
            bound = (now if member.left_at is None else member.left_at) + self._staleness
            if bound <= now:
                del self._members[name]  # cut off for so long that it refuses: nobody to wait for
            elif member.acknowledged < cursor.seq:
                bounds[name] = bound
        if not bounds:
            return ()
        wait = _Wait(cursor.seq, set(bounds))
        self._waits.append(wait)
        alarm = self._clock.call_at(Instant(max(bounds.values())), wait.end)
        try:
            await wait.over.wait()
        finally:
            alarm.cancel()
            self._waits.remove(wait)
        return tuple(sorted(wait.names))

    def close(self) -> None:
        """Cuts every subscriber, and waits for nobody any more."""
        for feed in tuple(self._feeds):
            feed.cut()
        for wait in self._waits:
            wait.end()
