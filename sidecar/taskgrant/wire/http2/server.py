"""A listener's HTTP/2: its connections, and each of their streams from its fields to the handler.

The same intake as HTTP/1.1 has. What dials the proxy itself names the server in ``:authority``, as an absolute target
does; a redirected connection, a tunnel and TLS have named it, and each stream must go on naming that one.
"""

import asyncio
from collections.abc import Collection
from dataclasses import replace

from taskgrant.errors import Refused
from taskgrant.model.call import Caller, Head, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.ids import TaskId
from taskgrant.model.ports import Destination
from taskgrant.protocols.framing import FramingFault
from taskgrant.protocols.http2 import RawHeaders, read_request
from taskgrant.wire.config import ListenConfig
from taskgrant.wire.http2.connection import Http2Connection
from taskgrant.wire.http2.exchange import Http2Exchange
from taskgrant.wire.http2.stream import Stream
from taskgrant.wire.intake import Intake, Way, one_handle, read
from taskgrant.wire.listener import Accepted
from taskgrant.wire.problem import problem
from taskgrant.wire.serving import Handler, Refusing, hand_over


class Http2Server:
    """``name`` and ``way`` are the listener's."""

    def __init__(
        self, name: str, way: Way, handler: Handler, config: ListenConfig, on_refused: Refusing
    ) -> None:
        self._name = name
        self._way = way
        self._handler = handler
        self._config = config
        self._on_refused = on_refused
        self._connections: set[Http2Connection] = set()

    def __len__(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    def connection(self, accepted: Accepted) -> Http2Connection:
        """The protocol for a connection whose client is the agent's."""
        caller = accepted.caller(self._name)

        async def serve(stream: Stream, fields: RawHeaders) -> None:
            await self._serve(accepted, caller, stream, fields)

        return Http2Connection(
            serve,
            lambda refused: self._on_refused(caller, Refusal(Code(refused.code), refused.reason)),
            self._connections,
            max_streams=self._config.http2_streams,
            head_timeout=self._config.head_timeout,
            idle_timeout=self._config.keepalive_timeout,
        )

    def end_of(self, tasks: Collection[TaskId]) -> None:
        """These tasks are over, and so are their connections."""
        for connection in tuple(self._connections):
            connection.end_of(tasks)

    async def finish(self, grace: float) -> None:
        """Lets what is running end within ``grace`` seconds, then ends every connection."""
        await asyncio.gather(*(connection.drain(grace) for connection in tuple(self._connections)))

    async def _serve(self, accepted: Accepted, caller: Caller, stream: Stream, fields: RawHeaders) -> None:
        timeout = self._config.body_timeout
        try:
            intake = self._read(accepted, fields)
            handle = one_handle(caller.handle, intake.handle)
        except Refused as refused:
            self._on_refused(caller, Refusal(Code(refused.code), refused.reason))
            nowhere = Http2Exchange(stream, caller, Destination("gateway", ""), Head("", ""), timeout)
            await nowhere.answer(problem(Code(refused.code), refused.reason))
            return
        caller = replace(caller, handle=handle)
        exchange = Http2Exchange(stream, caller, intake.destination, intake.head, timeout)
        await hand_over(exchange, self._handler, self._on_refused, self._name)

    def _read(self, accepted: Accepted, fields: RawHeaders) -> Intake:
        inside = accepted.inside
        scheme = "http" if inside is None else inside.scheme
        try:
            request = read_request(fields, scheme)
        except FramingFault as fault:
            raise Refused(fault.code, str(fault)) from fault
        named = inside is not None or accepted.dialled is not None
        target = request.path if named else f"{scheme}://{request.authority}{request.path}"
        return read(self._way, 0, request.method, target, (1, 1), request.headers, accepted.dialled, inside)
