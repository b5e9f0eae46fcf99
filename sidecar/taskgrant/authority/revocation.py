"""Ending things: one path for completing, cancelling, revoking, freezing, expiry and fencing.

The order is the promise: shown in memory at once (nothing new starts) → written, beside → every severer awaited
(nothing more of it is sent or read) → published → every guard has acknowledged, or must refuse by itself. A disk that
fails takes away ``durable_at`` and nothing else.
"""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import Protocol

from taskgrant.authority import effects as fx
from taskgrant.authority.descriptions import described_revocation
from taskgrant.authority.engine import Engine
from taskgrant.authority.lifecycle import Step
from taskgrant.authority.store import statements
from taskgrant.authority.store.statements import Statement
from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.event import Ended, EventKind, Revocation, Scope, ScopeKind
from taskgrant.model.ids import CallId, GrantId, TaskId
from taskgrant.model.json import JsonObject
from taskgrant.model.record import Record
from taskgrant.model.time import Instant

_log = logging.getLogger(__name__)


class Severer(Protocol):
    """Who holds connections or sessions of tasks. Returning means severed; answers the calls that had begun."""

    async def apply(self, revocation: Revocation) -> tuple[CallId, ...]: ...


class Revoker:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._severers: list[Severer] = []
        self._running: set[asyncio.Task[Ended]] = set()

    def attach(self, severer: Severer) -> None:
        self._severers.append(severer)

    def carry(
        self,
        steps: Sequence[Step],
        reason: str,
        *,
        extra: Sequence[Statement] = (),
        records: Sequence[Record] = (),
        publish: Sequence[fx.Publish] = (),
        sync: bool = False,
        scope: Scope | None = None,
    ) -> Awaitable[Ended]:
        """Shows the ends in memory before it returns; the rest runs to its end whether or not it is awaited. ``scope``
        is what was meant, where that is more than tasks and grants.

        Awaiting raises ``Refused`` (authority_unavailable) when a severer failed: then a running call may not be cut
        yet.
        """
        engine = self._engine
        now = engine.clock.now()
        tasks: set[TaskId] = set()
        grants: set[GrantId] = set()
        owners: set[TaskId] = set()
        written: list[Statement] = list(extra)
        recorded: list[Record] = list(records)
        told: list[fx.Publish] = []
        for life, effects in steps:
            engine.registry.put(life)
            if life.task.live:
                engine.schedule(life)
            owners.add(life.task.id)
            more, also = engine.writes(effects)
            written += more
            recorded += also
            for effect in effects:
                match effect:
                    case fx.Sever():
                        grants |= effect.grants
                        tasks |= {life.task.id} if effect.whole else set()
                    case fx.Publish():
                        told.append(effect)
        credentials = engine.credentials.revoke(frozenset(tasks), frozenset(grants), owners, now)
        written += [statements.revoke_credential(credential.serial, now) for credential in credentials]
        revocation = Revocation(
            now,
            reason,
            frozenset(tasks),
            frozenset(grants),
            frozenset(credential.serial for credential in credentials),
            frozenset(credential.jti for credential in credentials),
            frozenset({scope.id} if scope is not None and scope.kind is ScopeKind.TOOL else ()),
            scope is not None and scope.kind in (ScopeKind.ALL, ScopeKind.AGENT),
        )
        stored = engine.store.writer.owe(written, recorded, sync=sync)
        running = asyncio.create_task(self._enforce(revocation, [*publish, *told], stored))
        self._running.add(running)
        running.add_done_callback(self._finished)
        return asyncio.shield(running)

    async def drain(self) -> None:
        """Returns when nothing is being ended any more."""
        while self._running:
            await asyncio.wait(tuple(self._running))

    def _finished(self, running: "asyncio.Task[Ended]") -> None:
        self._running.discard(running)
        if not running.cancelled() and (error := running.exception()) is not None:
            _log.error("ending access did not run to its end: %s", error)

    async def _enforce(
        self, revocation: Revocation, told: Sequence[fx.Publish], stored: "asyncio.Future[None]"
    ) -> Ended:
        engine = self._engine
        begun, failed = await self._sever(revocation)
        enforced_at = engine.clock.now()
        cursor = None
        if revocation.tasks or revocation.grants:
            cursor = engine.events.publish(EventKind.REVOCATION, described_revocation(revocation))
        for effect in told:
            engine.events.publish(effect.kind, effect.body)
        late = () if cursor is None else await engine.events.acknowledged(cursor)
        durable_at = await self._durable(stored)
        fields: JsonObject = {
            "reason": revocation.reason,
            "tasks": sorted(revocation.tasks),
            "grants": sorted(revocation.grants),
            "begun": sorted(begun),
            "unacknowledged": list(late),
            "milliseconds": round((enforced_at - revocation.at) * 1000, 3),
        }
        engine.store.writer.post((), [Record("revocation.enforced", enforced_at, fields)])
        if failed:
            raise Refused(
                Code.AUTHORITY_UNAVAILABLE, "some connections could not be cut; their calls may still run"
            )
        return Ended(
            enforced_at,
            durable_at,
            tuple(sorted(revocation.tasks)),
            tuple(sorted(revocation.grants)),
            late,
            tuple(sorted(begun)),
        )

    async def _sever(self, revocation: Revocation) -> tuple[set[CallId], bool]:
        if not revocation.ends_something:
            return set(), False
        cuts = [severer.apply(revocation) for severer in self._severers]
        begun: set[CallId] = set()
        failed = False
        for outcome in await asyncio.gather(*cuts, return_exceptions=True):
            if isinstance(outcome, BaseException):
                _log.error("a severer failed", exc_info=outcome)
                failed = True
            else:
                begun.update(outcome)
        return begun, failed

    async def _durable(self, stored: "asyncio.Future[None]") -> Instant | None:
        await asyncio.wait({stored}, timeout=self._engine.config.staleness_seconds)
        if not stored.done() or stored.cancelled():
            return None  # it holds all the same, and is written as soon as the disk takes it
        return self._engine.clock.now()
