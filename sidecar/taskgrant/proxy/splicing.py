"""Connections that are let through unread: listed by a person, agreed to by policy, and ended with their task.

There is no call in them to decide on. What is recorded is who spoke with whom, for how long and how much.
"""

import socket
from collections.abc import Awaitable, Callable

from taskgrant.errors import Refused, Severed
from taskgrant.model.call import Caller
from taskgrant.model.catalogue import DEFAULT_PORTS
from taskgrant.model.codes import Code
from taskgrant.model.egress import EgressConnection, EgressHost
from taskgrant.model.ids import new_call_id
from taskgrant.model.task import Task
from taskgrant.proxy.gate import Gate
from taskgrant.wire.legs import Leg
from taskgrant.wire.listener import Accepted
from taskgrant.wire.splice import Relayed, connect, relay

#: ``wire.splice.connect``
Connect = Callable[[str, int, float], Awaitable[socket.socket]]


class Splicer:
    """``splice`` is an ``intercept.Splice``."""

    def __init__(self, gate: Gate, seconds: float, connect: Connect = connect) -> None:
        """``seconds``: for the host to answer."""
        self._gate = gate
        self._seconds = seconds
        self._connect = connect

    async def splice(self, accepted: Accepted, caller: Caller, host: EgressHost) -> None:
        """Returns when the connection is over, however it ended.

        Raises ``errors.Refused``, on record, before a byte has passed: no task, policy, an unreachable host, no audit.
        """
        connection = EgressConnection(new_call_id(), host)
        task: Task | None = None
        try:
            task = self._gate.bind(caller)
            async with self._gate.open(connection, task) as leg:
                relayed = await self._relay(accepted, caller, connection, task, leg)
        except Severed as severed:
            if not severed.begun:
                refused = Refused(severed.code, severed.reason)
                self._gate.record_refused(host, connection, caller, task, refused)
                raise refused from severed
            self._gate.record_settled(connection, task, severed.code, "cut")
            return
        except Refused as refused:
            self._gate.record_refused(host, connection, caller, task, refused)
            raise
        self._gate.record_settled(
            connection, task, Code.GRANTED, "idle" if relayed.idle else "completed",
            sent=relayed.sent, received=relayed.received,
        )  # fmt: skip

    async def _relay(
        self, accepted: Accepted, caller: Caller, connection: EgressConnection, task: Task | None, leg: Leg
    ) -> Relayed:
        decision = await self._gate.decide(connection, caller, task)
        host = connection.host
        where = host.addresses[0] if host.addresses else host.host
        server = await self._connect(where, host.port or DEFAULT_PORTS["https"], self._seconds)
        try:
            await self._gate.record_permitted(connection, caller, task, decision)
        except BaseException:
            server.close()
            raise
        leg.begun = True
        return await relay(accepted.sock, server, leg, host.idle_timeout)
