"""Connections that are let through unread: whose task they belong to, on record, and ended with it.

There is no call in them to decide on. So the host must be on a list that a person wrote, and what is recorded is who
spoke with whom, for how long and how much.
"""

import socket
from collections.abc import Awaitable, Callable

from taskgrant.errors import Refused, Severed
from taskgrant.model.call import Caller, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.ids import new_call_id
from taskgrant.model.json import Json
from taskgrant.model.ports import Recorder, View
from taskgrant.model.record import Record
from taskgrant.model.task import Task
from taskgrant.model.time import Clock
from taskgrant.wire.legs import Leg, Legs
from taskgrant.wire.listener import Accepted
from taskgrant.wire.splice import connect, relay

_PORT = 443

#: ``wire.splice.connect``
Connect = Callable[[str, int, float], Awaitable[socket.socket]]


class Splicer:
    """``splice`` is an ``intercept.Splice``."""

    def __init__(
        self,
        view: View,
        legs: Legs,
        recorder: Recorder,
        clock: Clock,
        seconds: float,
        connect: Connect = connect,
    ) -> None:
        """``seconds``: for the host to answer."""
        self._view = view
        self._legs = legs
        self._recorder = recorder
        self._clock = clock
        self._seconds = seconds
        self._connect = connect

    async def splice(self, accepted: Accepted, caller: Caller, host: str) -> None:
        """Returns when the connection is over, however it ended.

        Raises ``errors.Refused`` before a byte has passed: no task, a frozen one, an unreachable host, no audit.
        """
        task = self._bound(caller)
        call = new_call_id()
        fields: dict[str, Json] = {
            "call": call,
            "listener": caller.listener,
            "task": task.id,
            "agent": task.agent,
            "uid": caller.uid,
            "dialled": caller.dialled,
        }
        ended: dict[str, Json] = {"call": call, "task": task.id, "code": Code.GRANTED}
        leg = self._legs.open(call, task.id, host, task.deadline)
        try:
            async with leg:
                sent, received = await self._relay(accepted, caller, host, leg, fields)
                ended |= {"sent": sent, "received": received}
        except Severed as severed:
            if not severed.begun:
                raise Refused(severed.code, severed.reason) from severed
            ended["code"] = Code(severed.code)
        self._recorder.post(Record("splice.closed", self._clock.now(), ended))

    async def _relay(
        self, accepted: Accepted, caller: Caller, host: str, leg: Leg, fields: dict[str, Json]
    ) -> tuple[int, int]:
        # Opened first, read afterwards: a revocation either finds the leg or is already in the view.
        task = self._bound(caller)
        if self._view.frozen(task, host, None):
            raise Refused(Code.FROZEN, f"{host} is frozen by an operator")
        server = await self._connect(host, _PORT, self._seconds)
        try:
            await self._recorder.write(Record("splice.opened", self._clock.now(), fields))
        except BaseException:
            server.close()
            raise
        leg.begun = True
        return await relay(accepted.sock, server, leg)

    def _bound(self, caller: Caller) -> Task:
        bound = self._view.bind(caller)
        if isinstance(bound, Refusal):
            raise Refused(bound.code, bound.reason)
        return bound
