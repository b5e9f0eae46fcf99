"""The upstream legs of calls: each in a scope that ends with its grant, and that can be cut at any moment.

Expiry and severing are one path: the leg's transports are aborted (nothing is flushed) and its task is cancelled, again
and again until it has left the scope, so that code which swallows a cancellation does not keep it. Leaving a scope that
was cut raises ``errors.Severed``, whatever the code inside raised or returned.

Order matters to those who open legs: **open first, read the view afterwards**. A revocation changes the view before it
severs; so it either finds the leg, or the view that is read inside the leg already shows the end.
"""

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType

from taskgrant.errors import Severed
from taskgrant.model.codes import Code
from taskgrant.model.event import Revocation
from taskgrant.model.ids import CallId, GrantId, TaskId
from taskgrant.model.time import Clock, Instant
from taskgrant.wire.transports import abort

_log = logging.getLogger("taskgrant.wire")

#: Whose leg belongs to no task: only its time, or a freeze, ends it.
NO_TASK = TaskId("")
#: A task that swallowed its cancellation is cancelled again after so many seconds.
_AGAIN = 0.05


class Leg:
    """``ports.Leg``, and the scope of it: ``async with legs.open(…) as leg``. Use in one task only."""

    __slots__ = (
        "_cancelling",
        "_cancels",
        "_clock",
        "_cut",
        "_done",
        "_legs",
        "_loop",
        "_task",
        "_timer",
        "_transports",
        "_until",
        "begun",
        "call",
        "effects",
        "grant",
        "grants",
        "server",
        "task",
    )

    def __init__(
        self,
        legs: "Legs",
        call: CallId,
        task: TaskId,
        server: str,
        until: Instant,
        clock: Clock,
        effects: bool,
    ) -> None:
        self.call = call
        self.effects = effects
        self.task = task
        self.server = server
        self.grant: GrantId | None = None
        self.grants: frozenset[GrantId] = frozenset()
        self.begun = False
        self._legs = legs
        self._clock = clock
        self._until = until
        self._transports: set[asyncio.BaseTransport] = set()
        self._cut: tuple[Code, str] | None = None
        self._cancels = 0

    async def __aenter__(self) -> "Leg":
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a leg needs a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._done = self._loop.create_future()
        self._timer = self._loop.call_at(self._deadline(), self._expire)
        self._legs.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        try:
            if self._cut is None:
                return
            if kind is None or not issubclass(kind, asyncio.CancelledError):
                # A cancellation may still be on its way; it is ours and ends here.
                await self._absorb()
            for _ in range(self._cancels):
                self._task.uncancel()
            if self._task.cancelling() > self._cancelling:
                raise asyncio.CancelledError  # somebody else's, too
            code, reason = self._cut
            raise Severed(code, reason, begun=self.begun) from error
        finally:
            self._transports.clear()
            self._legs.remove(self)
            self._done.set_result(None)

    @property
    def severed(self) -> bool:
        return self._cut is not None

    def narrow(self, grant: GrantId, until: Instant) -> None:
        """From now on the leg belongs to this grant too, and ends with it; it is never lengthened."""
        self.grant = grant
        self.grants |= {grant}
        if until < self._until:
            self._until = until
            if self._cut is None:
                self._timer.cancel()
                self._timer = self._loop.call_at(self._deadline(), self._expire)

    def hold(self, transport: asyncio.BaseTransport) -> None:
        """The transport serves this leg until ``drop``. Raises ``errors.Severed`` when the leg is over."""
        self.check()
        self._transports.add(transport)

    def drop(self, transport: asyncio.BaseTransport) -> None:
        self._transports.discard(transport)

    def check(self) -> None:
        """Raises ``errors.Severed`` when the leg is over."""
        if self._cut is not None:
            raise Severed(*self._cut, begun=self.begun)

    def cut(self, code: Code, reason: str) -> None:
        """Ends the leg now: from here on not a byte is written or read for it. The first reason stays."""
        if self._cut is None:
            self._cut = (code, reason)
            for transport in self._transports:
                abort(transport)
            self._timer.cancel()
            self._cancel()

    def _expire(self) -> None:
        self.cut(Code.GRANT_EXPIRED, "the time of the grant for this call is over")

    def _cancel(self) -> None:
        self._cancels += 1
        self._task.cancel()
        self._timer = self._loop.call_later(_AGAIN, self._cancel)

    async def _absorb(self) -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return

    def _deadline(self) -> float:
        return self._loop.time() + (self._until - self._clock.now())


class Legs:
    """The registry of all legs."""

    def __init__(self, clock: Clock, hard_deadline: float = 5.0) -> None:
        """``hard_deadline``: seconds after which a call that stays in its scope is reported instead of awaited."""
        self._clock = clock
        self._hard_deadline = hard_deadline
        self._open: set[Leg] = set()

    def __len__(self) -> int:
        return len(self._open)

    def open(self, call: CallId, task: TaskId, server: str, until: Instant, *, effects: bool = True) -> Leg:
        """The scope of one call, over at ``until`` at the latest. Leaving it when it was cut raises ``Severed``.

        ``effects`` is false for what only listens: cutting it leaves nothing unknown.
        """
        return Leg(self, call, task, server, until, self._clock, effects)

    def add(self, leg: Leg) -> None:
        self._open.add(leg)

    def remove(self, leg: Leg) -> None:
        self._open.discard(leg)

    async def sever(self, match: Callable[[Leg], bool], code: Code, reason: str) -> tuple[CallId, ...]:
        """Cuts all that match before it first waits, then returns when each has left its scope.

        Answers the calls that had begun and may have had an effect. The caller's own leg is cut, and not awaited.
        """
        return await self._sever([(leg, code) for leg in self._open if match(leg)], reason)

    async def sever_revocation(self, revocation: Revocation) -> tuple[CallId, ...]:
        """The same for what a revocation names: legs of its tasks (task_ended), of its grants (revoked), and those
        without a grant that it means by their server or by having no task (frozen).
        """
        doomed = [(leg, Code.TASK_ENDED) for leg in self._open if leg.task in revocation.tasks]
        doomed += [
            (leg, Code.REVOKED)
            for leg in self._open
            if leg.task not in revocation.tasks and leg.grants & revocation.grants
        ]
        doomed += [
            (leg, Code.FROZEN)
            for leg in self._open
            if leg.task not in revocation.tasks
            and leg.grant is None
            and (leg.server in revocation.servers or (leg.task == NO_TASK and revocation.taskless))
        ]
        return await self._sever(doomed, revocation.reason)

    async def _sever(self, doomed: list[tuple[Leg, Code]], reason: str) -> tuple[CallId, ...]:
        for leg, code in doomed:
            leg.cut(code, reason)
        current = asyncio.current_task()
        awaited = {leg._done: leg for leg, _ in doomed if leg._task is not current}
        stuck: set[CallId] = set()
        if awaited:
            _, pending = await asyncio.wait(awaited, timeout=self._hard_deadline)
            stuck = {awaited[done].call for done in pending}
        if stuck:
            _log.critical(
                "calls did not end within %s s of being severed; their connections are closed: %s",
                self._hard_deadline,
                ", ".join(sorted(stuck)),
            )
        return tuple(leg.call for leg, _ in doomed if (leg.begun and leg.effects) or leg.call in stuck)
