"""Connection pools, one per credential, whose connections can be severed and whose sends are single.

A send announces itself in a context variable. The connector's public ``connect()`` finds it there: it ties the
connection to the call's leg, then awaits ``admit`` (the use is reserved and recorded), and only then lets the HTTP
client write. A second ``connect()`` for the same send is refused: the HTTP client resends idempotent requests by
itself, and one permit causes at most one upstream request.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.client import ClientRequest
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from taskgrant.model.ids import TaskId
from taskgrant.wire.legs import Leg
from taskgrant.wire.transports import abort

_CONNECT_SECONDS = 10.0
#: Shorter than what servers keep (uvicorn: 5 s), so that we rarely write to a connection that is being closed.
_KEEPALIVE_SECONDS = 4.0
_READ_BUFFER = 1 << 16
_CLOSE_SECONDS = 1.0
_SKIPPED_HEADERS = ("accept", "accept-encoding", "content-type", "user-agent")


class Unsent(ConnectionError):
    """There was no connection to write to: not a byte of the call went out."""


class Resent(RuntimeError):
    """The HTTP client tried to send the same call again."""


@dataclass(slots=True)
class Sending:
    """One permit on its way out. ``begun``: a byte may have been written."""

    leg: Leg
    admit: Callable[[], Awaitable[None]]
    taken: bool = False
    begun: bool = False
    failure: BaseException | None = None
    transport: asyncio.Transport | None = None
    protocol: ResponseHandler | None = None


#: Whose connections they are: task, server, and the serial of the certificate ("": none is shown).
Key = tuple[TaskId, str, str]

SENDING: ContextVar[Sending] = ContextVar("sending")


class SeverableConnector(TCPConnector):
    """A TCP connector that serves ``SENDING`` and nothing else."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(ssl=context, limit=0, keepalive_timeout=_KEEPALIVE_SECONDS)
        self._seen: set[asyncio.Transport] = set()

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        sending = SENDING.get()
        if sending.taken:
            raise Resent("a call is sent once")
        sending.taken = True
        connection = await super().connect(req, traces, timeout)
        if connection.protocol is None or connection.protocol.should_close:
            # Something came in that nobody asked for: it must not be taken for the answer to this call.
            connection.close()
            connection = await super().connect(req, traces, timeout)
        transport, protocol = connection.transport, connection.protocol
        try:
            if transport is None or protocol is None or protocol.should_close:
                raise Unsent("the connection is not usable")
            self._remember(transport)
            sending.leg.hold(transport)
            await sending.admit()
            sending.leg.check()
            if transport.is_closing():
                raise Unsent("the connection was closed while the call was recorded")
        except BaseException as failure:
            sending.failure = failure
            if transport is not None:
                sending.leg.drop(transport)
            # Not a byte was written: the connection is as good as before, unless it was aborted.
            connection.release()
            raise
        sending.transport, sending.protocol = transport, protocol
        sending.leg.begun = sending.begun = True
        return connection

    def _remember(self, transport: asyncio.Transport) -> None:
        if transport not in self._seen:
            self._seen = {other for other in self._seen if not other.is_closing()}
            self._seen.add(transport)

    def abort(self) -> None:
        """Ends every connection at once; nothing is flushed."""
        for transport in self._seen:
            abort(transport)
        self._seen.clear()


class Pool:
    """The connections that one credential was shown on. TLS sessions are never shared or resumed."""

    def __init__(self, key: Key, context: ssl.SSLContext, server_hostname: str | None) -> None:
        self.key = key
        self.server_hostname = server_hostname
        self.users = 0
        self.retired = False
        self._connector = SeverableConnector(context)
        self.session = ClientSession(
            connector=self._connector,
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            timeout=ClientTimeout(total=None, connect=_CONNECT_SECONDS),
            read_bufsize=_READ_BUFFER,
            trust_env=False,
            skip_auto_headers=_SKIPPED_HEADERS,
        )

    async def close(self) -> None:
        """Aborts every connection. Never hangs, whatever a peer does."""
        self._connector.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.session.close()
