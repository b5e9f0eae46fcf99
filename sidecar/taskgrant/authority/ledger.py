"""Uses and records: a use is taken in memory at once, and counts as taken; the caller goes on when it is written.

What becomes of a use whose commit fails: if it surely left no trace in the database, it is given back; if that is not
sure (the commit itself failed), it stays used. Either way the call does not pass. A caller that is cancelled while it
waits has sent nothing: its use is given back, by a job behind the one that takes it.
"""

from taskgrant.authority import effects as fx
from taskgrant.authority import lifecycle
from taskgrant.authority.engine import Engine
from taskgrant.authority.store import statements
from taskgrant.authority.store.statements import Statement
from taskgrant.authority.store.writer import Unwritten
from taskgrant.errors import Refused
from taskgrant.model.call import Refusal
from taskgrant.model.codes import Code
from taskgrant.model.grant import Grant
from taskgrant.model.ids import CallId, GrantId, TaskId
from taskgrant.model.json import JsonObject
from taskgrant.model.ports import Reservation
from taskgrant.model.record import Record


class LocalLedger:
    """Implements ``model.ports.Ledger`` and ``model.ports.Recorder``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: dict[
            CallId, tuple[TaskId, str | None]
        ] = {}  # uses that are not settled, with their identity

    async def reserve(
        self, grant: GrantId, call: CallId, dedupe: str | None, record: Record
    ) -> Reservation | Refusal:
        """Takes a use. ``dedupe`` names an identity that retries share: one whose use was already sent takes none.
        While the first is still in flight, a second of the same identity is refused (conflict): one use, one effect.
        """
        engine = self._engine
        life = engine.registry.of_grant(grant)
        if life is None:
            return Refusal(Code.NO_GRANT, "there is no such grant")
        if call in self._open:
            return Refusal(Code.CONFLICT, "the call has a use already")
        task = life.task.id
        counted = True
        if dedupe is not None:
            in_flight = engine.registry.identity(task, grant, dedupe)
            if in_flight:
                return Refusal(Code.CONFLICT, "the same call is already being made")
            counted = in_flight is None
        try:
            engine.check_fence()
            life, effects = lifecycle.apply(life, fx.Reserved(grant, counted), engine.clock.now())
        except Refused as refused:
            return Refusal(Code(refused.code), refused.reason)
        engine.registry.lives[task] = life
        if dedupe is not None:
            engine.registry.identify(task, grant, dedupe, in_flight=True)
        self._open[call] = (task, dedupe)
        reservation = Reservation(grant, call, counted)
        fields: JsonObject
        written: list[Statement] = [statements.count(life.grants[grant]), statements.open_use(call, grant)]
        try:
            await engine.store.writer.submit(written, (record,))
        except Unwritten as error:
            self._settle(reservation, sent=not error.certain)
            engine.store.writer.post((statements.close_use(call),))
            return Refusal(Code(error.code), error.reason)
        except BaseException:
            written = self._settle(reservation, sent=False)
            fields = {
                "call": call,
                "grant": grant,
                "sent": False,
                "reason": "the caller went away",
            }
            engine.store.writer.post(written, (Record("use.settled", engine.clock.now(), fields),))
            raise
        self._publish(effects)
        ended = self._ended(grant)
        if ended is not None:
            # It ended during the commit, and whoever ended it may have been told already that nothing more is sent.
            fields = {"call": call, "grant": grant, "sent": False, "reason": ended.reason}
            engine.store.writer.post(
                self._settle(reservation, sent=False), (Record("use.settled", engine.clock.now(), fields),)
            )
            return ended
        return reservation

    def _ended(self, grant: GrantId) -> Refusal | None:
        life = self._engine.registry.of_grant(grant)
        if life is None or not life.task.live:
            return Refusal(Code.TASK_ENDED, "the task has ended")
        if not life.grants[grant].state.live:
            return Refusal(Code.REVOKED, "the grant has ended")
        return None

    async def settle(self, reservation: Reservation, sent: bool, record: Record) -> None:
        """Ends a use; if nothing was sent it is given back. Waits for nothing: it is written with what comes next."""
        self._engine.store.writer.post(self._settle(reservation, sent), (record,))

    def _settle(self, reservation: Reservation, sent: bool) -> list[Statement]:
        engine = self._engine
        if reservation.call not in self._open:
            return []  # settled before: a second time changes nothing
        written: list[Statement] = [statements.close_use(reservation.call)]
        task, dedupe = self._open.pop(reservation.call)
        if dedupe is not None and (sent or not reservation.counted):
            engine.registry.identify(task, reservation.grant, dedupe, in_flight=False)
        elif dedupe is not None:
            engine.registry.forget_identity(task, reservation.grant, dedupe)
        life = engine.registry.of_grant(reservation.grant)
        if life is None or not life.task.live:
            return written
        event = fx.Settled(reservation.grant, sent, reservation.counted)
        life, effects = lifecycle.apply(life, event, engine.clock.now())
        engine.registry.lives[life.task.id] = life
        written += engine.writes(effects)[0]
        self._publish(effects)
        if life.task.idle_timeout is not None or _idles(life.grants[reservation.grant]):
            engine.schedule(life)
        return written

    def _publish(self, effects: tuple[fx.Effect, ...]) -> None:
        for effect in effects:
            if isinstance(effect, fx.Publish):
                self._engine.events.publish(effect.kind, effect.body)

    # --- ports.Recorder ------------------------------------------------------------------------------------------

    async def write(self, record: Record) -> None:
        """Returns when the record is with the kernel. Raises ``Refused`` (audit_unavailable)."""
        await self._engine.store.writer.submit((), (record,))

    def post(self, record: Record) -> None:
        self._engine.store.writer.post((), (record,))


def _idles(grant: Grant) -> bool:
    return grant.idle_timeout is not None
