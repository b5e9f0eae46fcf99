"""The authority inside the sidecar's own process: tasks and grants in memory and SQLite, a signer beside it.

Usage::

    authority = await EmbeddedAuthority.open(config, agent=…, trust_domain=…, signer=…, decider=…, trail=…, clock=…)
    authority.attach(upstream)                  # whoever holds connections: awaited by every revocation
    authority.view, authority.ledger            # the ports that the proxy asks, call by call
    await authority.close()
"""

import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from taskgrant.authority import effects as fx
from taskgrant.authority import lifecycle
from taskgrant.authority.admission import Admitter, new_handle
from taskgrant.authority.clock import Alarm, AlarmClock
from taskgrant.authority.config import AuthorityConfig
from taskgrant.authority.credentials import CredentialRegister, digest
from taskgrant.authority.engine import Engine
from taskgrant.authority.events import EventLog
from taskgrant.authority.expiry import Expiry
from taskgrant.authority.freezes import Freezes
from taskgrant.authority.idempotency import Answered, Answers, Attempt
from taskgrant.authority.issuing import Issuer
from taskgrant.authority.judging import Judge, require
from taskgrant.authority.ledger import LocalLedger
from taskgrant.authority.lifecycle import TaskLife
from taskgrant.authority.reading import Reading
from taskgrant.authority.registry import Registry
from taskgrant.authority.revocation import Revoker, Severer
from taskgrant.authority.store import statements
from taskgrant.authority.store.opening import Store, open_store
from taskgrant.authority.store.writer import Trail
from taskgrant.authority.view import LocalView
from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.credential import Enrolled, Issued
from taskgrant.model.event import Cursor, Ended, Event, Scope, Verdict
from taskgrant.model.grant import Grant, GrantSpec
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.json import JsonObject
from taskgrant.model.ports import Decider, Signer
from taskgrant.model.principal import Principal, Role
from taskgrant.model.task import Outcome, Started, Task, TaskSpec
from taskgrant.model.time import Instant

_log = logging.getLogger(__name__)
_PRUNE_SECONDS = 3600.0


class EmbeddedAuthority:
    """Implements ``model.ports.Authority``. Make one with ``open``; use it from that event loop only."""

    def __init__(
        self,
        engine: Engine,
        signer: Signer,
        decider: Decider,
        agent: str,
        trust_domain: str,
        uids: Collection[int],
    ) -> None:
        config, clock, registry = engine.config, engine.clock, engine.registry
        self._engine = engine
        self._revoker = Revoker(engine)
        self._expiry = Expiry(clock, registry, self._revoker)
        engine.schedule = self._expiry.schedule
        self._admitter = Admitter(engine, decider, agent, uids)
        self._issuer = Issuer(engine, signer, trust_domain)
        self._judge = Judge(engine, self._revoker)
        self._answers = Answers(clock, config.idempotency_age, config.idempotency_kept)
        self._answers.load(engine.store.loaded.remembered)
        self._reading = Reading(engine)
        self._pruning: Alarm | None = None
        self.view = LocalView(registry, engine.freezes, clock, config.task_binding)
        self.ledger = LocalLedger(engine)

    @classmethod
    async def open(
        cls,
        config: AuthorityConfig,
        *,
        agent: str,
        trust_domain: str,
        signer: Signer,
        decider: Decider,
        trail: Trail,
        clock: AlarmClock,
        uids: Collection[int] = (),
        boot_id: str | None = None,
        on_fenced: Callable[[], None] = lambda: None,
    ) -> "EmbeddedAuthority":
        """``agent`` is a SPIFFE ID; ``uids`` are those that its tasks may have (task_binding: uid).

        ``on_fenced`` is called when another instance has taken the state directory over: nothing is permitted by then,
        severing has begun, and the process should end.

        Raises ``ConfigurationError`` when the state directory cannot be used or is another process's.
        """
        authority: EmbeddedAuthority | None = None

        def fenced() -> None:
            if authority is not None:
                authority._fence()
            on_fenced()

        store = open_store(
            config, trail, clock, boot_id=boot_id, on_fenced=fenced,
            on_failure=lambda error: _log.error("state or records cannot be brought to the disk: %s", error),
        )  # fmt: skip
        engine = _engine(config, clock, store)
        authority = cls(engine, signer, decider, agent, trust_domain, uids)
        authority._start()
        return authority

    def _start(self) -> None:
        self._expiry.start()
        self._prune()

    def attach(self, severer: Severer) -> None:
        """From now on every revocation awaits this one too."""
        self._revoker.attach(severer)

    async def close(self) -> None:
        """Returns when what was handed in is written. Tasks live on in the store, for the same epoch."""
        if self._pruning is not None:
            self._pruning.cancel()
        await self._expiry.close()
        self._engine.events.close()
        await self._revoker.drain()
        await self._engine.store.close()

    # --- tasks ---------------------------------------------------------------------------------------------------

    async def start(self, spec: TaskSpec, by: Principal, key: str | None) -> Started:
        require(by, Role.ORCHESTRATOR, Role.ADMIN)

        async def replay(answered: Answered) -> Started:
            task, grants = await self._reading.task(answered.task)
            return Started(task, grants, None)

        return await self._answers.once(
            by.id, key, ["start", spec], lambda attempt: self._admitter.start(spec, by, attempt), replay
        )

    async def end(self, task: TaskId, how: Outcome, by: Principal) -> Ended:
        require(by, Role.ORCHESTRATOR, Role.ADMIN)
        step = lifecycle.apply(await self._live(task), fx.Finished(how, by.id), self._engine.clock.now())
        return await self._revoker.carry([step], f"task {step[0].task.state.value}")

    async def rotate(self, task: TaskId, by: Principal) -> str:
        require(by, Role.ORCHESTRATOR, Role.ADMIN)
        await self._live(task)
        handle = new_handle()
        await self._engine.permit(task, fx.Rotated(digest(handle), by.id))
        return handle

    # --- grants --------------------------------------------------------------------------------------------------

    async def request(
        self, task: TaskId, grants: Sequence[GrantSpec], by: Principal, key: str | None
    ) -> tuple[Grant, ...]:
        require(by, Role.ORCHESTRATOR, Role.ADMIN)

        async def work(attempt: Attempt) -> tuple[Grant, ...]:
            await self._live(task)
            return await self._admitter.request(task, grants, by, attempt)

        async def replay(answered: Answered) -> tuple[Grant, ...]:
            _, known = await self._reading.task(answered.task)
            return tuple(grant for grant in known if grant.id in answered.grants)

        return await self._answers.once(by.id, key, ["request", task, list(grants)], work, replay)

    async def judge(self, what: Scope, verdict: Verdict, by: Principal, reason: str = "") -> Ended:
        return await self._judge.judge(what, verdict, by, reason)

    # --- credentials ---------------------------------------------------------------------------------------------

    async def issue(self, task: TaskId, audience: str, csr: bytes) -> Issued:
        """``audience`` is the server's name; ``csr`` is DER."""
        return await self._issuer.issue(task, audience, csr)

    async def enrol(self, server: str, csr: bytes, by: Principal) -> Enrolled:
        require(by, Role.GUARD)
        return self._issuer.enrol(server, csr, by)

    async def introspect(self, token: str, audience: str) -> JsonObject:
        return self._issuer.introspect(token, audience)

    async def bundle(self) -> bytes:
        return self._issuer.bundle()

    async def jwks(self) -> JsonObject:
        return self._issuer.jwks()

    async def crl(self) -> bytes:
        return self._issuer.crl()

    # --- events --------------------------------------------------------------------------------------------------

    def events(self, after: Cursor | None, subscriber: str | None = None) -> AsyncIterator[Event]:
        return self._engine.events.subscribe(after, subscriber, self._engine.snapshot)

    async def acknowledge(self, subscriber: str, cursor: Cursor) -> None:
        self._engine.events.acknowledge(subscriber, cursor)

    # --- reading -------------------------------------------------------------------------------------------------

    async def task(self, task: TaskId) -> tuple[Task, tuple[Grant, ...]]:
        return await self._reading.task(task)

    async def tasks(self, after: TaskId | None, limit: int) -> tuple[Task, ...]:
        """Newest first."""
        return await self._reading.tasks(after, limit)

    async def grant(self, grant: GrantId) -> Grant:
        return await self._reading.grant(grant)

    async def grants(self, after: GrantId | None, limit: int) -> tuple[Grant, ...]:
        """Newest first."""
        return await self._reading.grants(after, limit)

    # --- inside --------------------------------------------------------------------------------------------------

    async def _live(self, task: TaskId) -> TaskLife:
        """Raises ``Refused``: task_ended for a task that is over, however long ago; not_found for none."""
        life = self._engine.registry.lives.get(task)
        if life is None:
            known, _ = await self._reading.task(task)
            raise Refused(Code.TASK_ENDED, f"the task is {known.state.value}")
        return life

    def _fence(self) -> None:
        registry, now = self._engine.registry, self._engine.clock.now()
        registry.fenced = True
        reason = "another instance of the authority has taken over"
        event = fx.Revoked("taskgrant", reason)
        self._revoker.carry([lifecycle.apply(life, event, now) for life in registry.lives.values()], reason)

    def _prune(self) -> None:
        config, now = self._engine.config, self._engine.clock.now()
        self._pruning = self._engine.clock.call_at(Instant(now + _PRUNE_SECONDS), self._prune)
        old = statements.prune(
            Instant(now - config.retention), Instant(now - 300), Instant(now - config.idempotency_age)
        )
        self._engine.store.writer.post(old)


def _engine(config: AuthorityConfig, clock: AlarmClock, store: Store) -> Engine:
    registry = Registry(config.ended_kept)
    for life in store.loaded.lives:
        registry.put(life)
    freezes = Freezes(store.loaded.freezes)
    credentials = CredentialRegister(store.loaded.credentials)
    events = EventLog(
        f"{digest(store.epoch).hex()[:16]}.{store.instance}", clock,
        heartbeat=config.heartbeat_seconds, staleness=config.staleness_seconds,
        buffer=config.event_buffer, queue=config.subscriber_queue,
    )  # fmt: skip
    return Engine(config, clock, store, registry, credentials, freezes, events)
