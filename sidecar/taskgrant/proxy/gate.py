"""What lets traffic pass that is no tool call: task → frozen? → policy, asked inside the leg → on record.

Requests (``proxy.egress``) and connections that are let through unread (``proxy.splicing``) come by here.
"""

from taskgrant.errors import Refused
from taskgrant.model.call import Caller, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.egress import (
    EgressAction,
    EgressConnection,
    EgressDecision,
    EgressHost,
    EgressQuery,
    EgressRequest,
)
from taskgrant.model.json import Json
from taskgrant.model.ports import EgressDecider, Recorder, View
from taskgrant.model.record import Record
from taskgrant.model.task import Task
from taskgrant.model.time import Clock, Instant
from taskgrant.proxy.telemetry import Telemetry
from taskgrant.wire.legs import NO_TASK, Leg, Legs

#: Refusals that say that there is no task, rather than that somebody claimed a wrong one.
WITHOUT_TASK = (Code.NO_TASK, Code.TASK_ENDED)
#: Without a task it is time that ends what passes.
_LONGEST_SECONDS = 3600.0

About = EgressRequest | EgressConnection


class Gate:
    def __init__(
        self,
        agent: str,
        view: View,
        decider: EgressDecider,
        legs: Legs,
        recorder: Recorder,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        """``agent``: its SPIFFE ID."""
        self._agent = agent
        self._view = view
        self._decider = decider
        self._legs = legs
        self._recorder = recorder
        self._clock = clock
        self._telemetry = telemetry

    def bind(self, caller: Caller) -> Task | None:
        """None where there is no task, which policy may let pass. Raises ``errors.Refused``."""
        bound = self._view.bind(caller)
        if not isinstance(bound, Refusal):
            return bound
        if bound.code not in WITHOUT_TASK:
            raise Refused(bound.code, bound.reason)
        return None

    def open(self, about: About, task: Task | None) -> Leg:
        """Ends with the task, or when the host is frozen."""
        until = Instant(self._clock.now() + _LONGEST_SECONDS) if task is None else task.deadline
        return self._legs.open(about.id, NO_TASK if task is None else task.id, about.host.name, until)

    async def decide(self, about: About, caller: Caller, task: Task | None) -> EgressDecision:
        """Inside the leg: a revocation either finds that, or is already in what is read here. Raises
        ``errors.Refused``.
        """
        self._check(about.host, caller, task)
        now = self._clock.now()
        query = EgressQuery(about, self._agent, task, now, {"listener": caller.listener})
        decision = await self._decider.egress(query)
        if decision.action is EgressAction.REFUSE:
            raise Refused(
                decision.code,
                decision.reason,
                decision_id=decision.decision_id,
                revision=decision.revision,
            )
        self._check(about.host, caller, task)  # as it is now: deciding took its time
        return decision

    def _check(self, host: EgressHost, caller: Caller, task: Task | None) -> None:
        current = self.bind(caller)
        if (None if current is None else current.id) != (None if task is None else task.id):
            raise Refused(Code.TASK_ENDED, "the task is over; its access ended with it")
        if self._view.frozen(task, host.name, None):
            raise Refused(Code.FROZEN, f"{host.name} is frozen by an operator")

    # -- records -----------------------------------------------------------------------------------------------

    async def record_permitted(
        self, about: About, caller: Caller, task: Task | None, decision: EgressDecision
    ) -> None:
        """Before the first byte. Raises ``errors.Refused`` (audit_unavailable)."""
        fields = _subject(about.host, about, caller, task)
        fields |= {
            "action": decision.action,
            "code": decision.code,
            "decision_id": decision.decision_id,
            "revision": decision.revision,
        }
        await self._recorder.write(Record("egress.decided", self._clock.now(), fields))
        self._telemetry.decided(decision.code, about.host.name)

    def record_refused(
        self, host: EgressHost, about: About | None, caller: Caller, task: Task | None, refused: Refused
    ) -> None:
        fields = _subject(host, about, caller, task)
        fields |= {"action": EgressAction.REFUSE, "code": refused.code, "reason": refused.reason}
        fields |= {
            name: str(refused.details[name])
            for name in ("decision_id", "revision")
            if name in refused.details
        }
        self._recorder.post(Record("egress.decided", self._clock.now(), fields))
        self._telemetry.decided(refused.code, host.name)

    def record_settled(
        self, about: About, task: Task | None, code: str, outcome: str, **figures: Json
    ) -> None:
        """What had begun is over: ``outcome`` as of calls, ``figures`` in bytes."""
        fields: dict[str, Json] = {
            "call": about.id,
            "server": about.host.name,
            "code": code,
            "outcome": outcome,
        }
        if task is not None:
            fields["task"] = task.id
        fields |= figures
        self._recorder.post(Record("egress.settled", self._clock.now(), fields))


def _subject(host: EgressHost, about: About | None, caller: Caller, task: Task | None) -> dict[str, Json]:
    fields: dict[str, Json] = {"listener": caller.listener, "server": host.name, "mode": host.mode}
    if about is not None:
        fields["call"] = about.id
    if isinstance(about, EgressRequest):
        # What stands behind the path is the agent's to fill: how much there was of it is enough.
        fields |= {"method": about.method, "path": about.path, "body_bytes": len(about.body)}
    if caller.uid is not None:
        fields["uid"] = caller.uid
    if caller.dialled:
        fields["dialled"] = caller.dialled
    if task is not None:
        fields |= {"task": task.id, "agent": task.agent}
    return fields
