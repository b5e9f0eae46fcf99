"""Idempotency-Keys: who asked what under which key, and what it was answered with. Identifiers only, never a handle."""

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, TypeVar

from taskgrant.authority.store import statements
from taskgrant.authority.store.statements import Statement
from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.time import Clock, Instant

T = TypeVar("T")
_MAX_KEY = 255


@dataclass(frozen=True, slots=True)
class Answered:
    body: bytes
    task: TaskId
    grants: tuple[GrantId, ...]
    at: Instant


class Attempt:
    """One first request under a key. ``remember`` gives what to write beside the effect itself."""

    def __init__(self, owner: "Answers", principal: str, key: str | None, body: bytes) -> None:
        self._owner = owner
        self._principal = principal
        self._key = key
        self._body = body

    def remember(self, task: TaskId, grants: Sequence[GrantId], now: Instant) -> tuple[Statement, ...]:
        if self._key is None:
            return ()
        return (statements.remember(self._principal, self._key, self._body, task, grants, now),)

    def answered(self, task: TaskId, grants: Sequence[GrantId], now: Instant) -> None:
        if self._key is not None:
            self._owner.keep(self._principal, self._key, Answered(self._body, task, tuple(grants), now))


class Answers:
    """Bounded by number and age. A repeat that comes while the first is still at work waits for it."""

    def __init__(self, clock: Clock, age: float, kept: int) -> None:
        self._clock = clock
        self._age = age
        self._kept = kept
        self._known: OrderedDict[tuple[str, str], Answered] = OrderedDict()
        self._running: dict[tuple[str, str], asyncio.Event] = {}

    def load(self, entries: Iterable[tuple[str, str, bytes, TaskId, list[GrantId], Instant]]) -> None:
        for principal, key, body, task, grants, at in entries:
            self.keep(principal, key, Answered(body, task, tuple(grants), at))

    def keep(self, principal: str, key: str, answered: Answered) -> None:
        self._known[(principal, key)] = answered
        while len(self._known) > self._kept:
            self._known.popitem(last=False)

    async def once(
        self,
        principal: str,
        key: str | None,
        request: object,
        work: Callable[[Attempt], Awaitable[T]],
        replay: Callable[[Answered], Awaitable[T]],
    ) -> T:
        """``work`` for a new key, ``replay`` for one that was answered. Raises ``Refused`` (conflict) for a key that
        was used for another request."""
        body = fingerprint(request)
        if key is None:
            return await work(Attempt(self, principal, None, body))
        if not key or len(key) > _MAX_KEY:
            raise Refused(Code.INVALID, f"an Idempotency-Key has 1 to {_MAX_KEY} characters")
        place = (principal, key)
        while place in self._running:
            await self._running[place].wait()
        answered = self._known.get(place)
        if answered is not None and self._clock.now() - answered.at < self._age:
            if answered.body != body:
                raise Refused(Code.CONFLICT, "this Idempotency-Key was used for another request")
            return await replay(answered)
        over = self._running[place] = asyncio.Event()
        try:
            return await work(Attempt(self, principal, key, body))
        finally:
            del self._running[place]
            over.set()


def fingerprint(request: object) -> bytes:
    """SHA-256 over a canonical form of the request."""
    text = json.dumps(request, sort_keys=True, default=_plain, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return dict(value) if hasattr(value, "keys") else str(value)  # type: ignore[call-overload]
