"""Calls that take several rounds (MCP 2026-07-28, "Multi Round-Trip Requests"): one use, however many rounds.

A server that needs something of the client answers ``resultType: "input_required"`` with a ``requestState``, and the
client sends the call again, with its answers and that state. The repetition continues the use that the first round
took, if it is the same call (server, tool, arguments) of the same task, and carries a state that its previous round was
answered with; a state is good for one repetition. Everything else is a call like any other, with a use of its own.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from taskgrant.audit.masking import digest
from taskgrant.model.call import Call, Kind
from taskgrant.model.grant import Grant, GrantState
from taskgrant.model.ids import CallId, GrantId, TaskId

#: Rounds that wait for the client, a task. A client that leaves more of them open loses the oldest.
_PER_TASK = 64

_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
_STATE = "requestState"
_INPUT_REQUIRED = "input_required"

_Key = tuple[str, str, str | None, str, bytes]


@dataclass(frozen=True, slots=True)
class _Round:
    """``identity`` names the use in the ledger: all rounds of a call share it."""

    grant: GrantId
    identity: str


@dataclass(frozen=True, slots=True)
class _Open:
    task: TaskId
    call: Call
    round: _Round
    continued: _Key | None  # the state that this round has used up


class Rounds:
    def __init__(self) -> None:
        self._open: dict[CallId, _Open] = {}
        self._waiting: dict[TaskId, OrderedDict[_Key, _Round]] = {}

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._waiting.values())

    def as_continued(self, task: TaskId, call: Call, grants: tuple[Grant, ...]) -> tuple[Grant, ...]:
        """The task's grants as this call finds them: the use that it continues is not held against it."""
        key = _key(call)
        waiting = self._waiting.get(task)
        found = waiting.get(key) if waiting is not None and key is not None else None
        if found is None:
            return grants
        return tuple(_with_use(grant) if grant.id == found.grant else grant for grant in grants)

    def begin(self, task: TaskId, call: Call, grant: GrantId) -> str | None:
        """The identity of the call's use; None for a call that can have one round only."""
        if not _can_be_asked(call):
            return None
        key = _key(call)
        waiting = self._waiting.setdefault(task, OrderedDict())
        found = None if key is None else waiting.get(key)
        if found is None or found.grant != grant or key is None:
            found, key = _Round(grant, call.id), None
        else:
            del waiting[key]
        self._open[call.id] = _Open(task, call, found, key)
        return found.identity

    def heard(self, call: Call, data: bytes | str) -> None:
        """A message that the server answered with, before the client gets it."""
        opened = self._open.get(call.id)
        state = _asked_state(call, data) if opened is not None else None
        if opened is None or state is None:
            return
        self._wait(opened.task, _key_of(call, state), opened.round)

    def end(self, call: CallId, sent: bool) -> None:
        """The round is over. One of which nothing was sent can be made again."""
        opened = self._open.pop(call, None)
        if opened is not None and not sent and opened.continued is not None:
            self._wait(opened.task, opened.continued, opened.round)

    def forget(self, task: TaskId) -> None:
        self._waiting.pop(task, None)

    def _wait(self, task: TaskId, key: _Key, one: _Round) -> None:
        waiting = self._waiting.get(task)
        if waiting is None:
            return  # the task has ended
        waiting[key] = one
        if len(waiting) > _PER_TASK:
            waiting.popitem(last=False)


def _can_be_asked(call: Call) -> bool:
    """A server may ask a client only for what the client says that it can do."""
    return call.kind is Kind.TOOL and bool(call.meta.get(_CAPABILITIES))


def _key(call: Call) -> _Key | None:
    state = call.params.get(_STATE)
    return _key_of(call, state) if isinstance(state, str) and _can_be_asked(call) else None


def _key_of(call: Call, state: str) -> _Key:
    hashed = hashlib.sha256(state.encode("utf-8", "surrogatepass")).digest()
    return call.server, call.action, call.tool, digest(call.arguments), hashed


def _asked_state(call: Call, data: bytes | str) -> str | None:
    """The state of an answer that asks the client for something; None for every other message."""
    needle = _INPUT_REQUIRED if isinstance(data, str) else _INPUT_REQUIRED.encode()
    if needle not in data:  # type: ignore[operator]
        return None
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, Mapping) or message.get("id") != call.rpc_id:
        return None
    result = message.get("result")
    if not isinstance(result, Mapping) or result.get("resultType") != _INPUT_REQUIRED:
        return None
    state = result.get(_STATE)
    return state if isinstance(state, str) else None


def _with_use(grant: Grant) -> Grant:
    if not grant.state.live or grant.used < 1:
        return grant
    return replace(grant, used=grant.used - 1, state=GrantState.ACTIVE)
