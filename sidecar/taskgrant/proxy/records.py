"""Audit records of calls. Every call leaves ``call.decided``; one that went upstream, ``call.settled`` as well, and
one whose end the client was told by us, ``call.interrupted``.

Arguments appear as their digest only; what a client sent beyond names never appears.
"""

from collections.abc import Mapping

from taskgrant.audit.masking import digest
from taskgrant.model.call import Call, Caller, Malformed, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.decision import Decision
from taskgrant.model.json import Json
from taskgrant.model.record import Record
from taskgrant.model.task import Task
from taskgrant.model.time import Instant


def _subject(call: Call, caller: Caller, task: Task | None) -> dict[str, Json]:
    fields: dict[str, Json] = {
        "call": call.id,
        "listener": caller.listener,
        "server": call.server,
        "action": call.action,
    }
    _client(fields, caller)
    if call.tool is not None:
        fields["tool"] = call.tool
        fields["arguments_digest"] = digest(call.arguments)
    if task is not None:
        fields["task"] = task.id
        fields["agent"] = task.agent
    return fields


def permitted(
    call: Call, caller: Caller, task: Task, decision: Decision, serial: str, now: Instant
) -> Record:
    fields = _subject(call, caller, task)
    fields["code"] = Code.GRANTED
    fields["grant"] = decision.grant_id
    fields["serial"] = serial
    _policy(fields, decision)
    return Record("call.decided", now, fields)


def refused(
    call: Call | Malformed,
    caller: Caller,
    task: Task | None,
    refusal: Refusal,
    decision: Decision | None,
    server: str,
    now: Instant,
) -> Record:
    if isinstance(call, Malformed):
        fields: dict[str, Json] = {"listener": caller.listener, "server": server}
        _client(fields, caller)
    else:
        fields = _subject(call, caller, task)
    fields["code"] = refusal.code
    fields["reason"] = refusal.reason
    if decision is not None:
        _policy(fields, decision)
        if decision.miss:
            fields["miss"] = {grant: list(reasons) for grant, reasons in decision.miss.items()}
    # What had reached the tool was permitted, and recorded as such, before: it is not decided a second time.
    return Record("call.interrupted" if refusal.begun else "call.decided", now, fields)


def answered(call: Call, caller: Caller, task: Task | None, now: Instant) -> Record:
    """The sidecar answered by itself: no tool was contacted, so no grant was needed."""
    fields = _subject(call, caller, task)
    fields["code"] = Code.GRANTED
    fields["reason"] = "answered by the sidecar"
    return Record("call.decided", now, fields)


def settled(
    call: Call,
    task: Task,
    outcome: str,
    sent: bool,
    now: Instant,
    status: int | None = None,
    passed: Mapping[str, int] | None = None,
) -> Record:
    """``passed``: what went through a connection that had changed its protocol."""
    fields: dict[str, Json] = {
        "call": call.id,
        "task": task.id,
        "server": call.server,
        "outcome": outcome,
        "sent": sent,
    }
    if status is not None:
        fields["status"] = status
    fields.update(passed or {})
    return Record("call.settled", now, fields)


def _client(fields: dict[str, Json], caller: Caller) -> None:
    if caller.uid is not None:
        fields["uid"] = caller.uid
    if caller.dialled:
        fields["dialled"] = caller.dialled


def _policy(fields: dict[str, Json], decision: Decision) -> None:
    fields["decision_id"] = decision.decision_id
    fields["revision"] = decision.revision
