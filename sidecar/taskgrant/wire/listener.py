"""A listener for the agent, on loopback only: who connects is checked, and what is asked, before a handler sees it.

Every request, also on a kept-alive connection, becomes an exchange of its own, or is refused here and the connection
closed. The client's uid is looked up once per connection, when it is made.

A connection is the task's whose call was the last on it, and is closed with that task: at once, or after the answer
that is under way. The gateway's are kept: a client of it has a session that outlives tasks, and is told of their end.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Collection, Container
from dataclasses import dataclass, replace
from typing import Any, cast

from aiohttp.web import BaseRequest, RequestHandler, Response, Server, StreamResponse

from taskgrant.errors import ConfigurationError, Refused
from taskgrant.model.call import Caller, Head, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.ids import TaskId
from taskgrant.model.ports import Destination
from taskgrant.wire import peer
from taskgrant.wire.config import ListenConfig
from taskgrant.wire.exchange import HttpExchange
from taskgrant.wire.intake import Inside, Way, is_loopback, one_handle, read
from taskgrant.wire.problem import problem
from taskgrant.wire.redirect.original import Dialled
from taskgrant.wire.serving import Handler, Refusing, hand_over

_log = logging.getLogger("taskgrant.wire")
# What a client can provoke in the parser is answered, not logged line by line.
_quiet = logging.getLogger("taskgrant.wire.http")
_quiet.setLevel(logging.CRITICAL)

_WAYS: dict[str, Way] = {"gateway": "gateway", "proxy": "absolute", "transparent": "transparent"}
_MAX_LINE = 16 << 10
_MAX_FIELD = 16 << 10
_MAX_HEADERS = 100
_LINGER_SECONDS = 2.0
BACKLOG = 512


@dataclass(frozen=True, slots=True)
class Accepted:
    """A connection that was accepted before it was clear what it speaks: its socket, who owns the other end, whom it
    was for.
    """

    sock: socket.socket
    uid: int | None
    dialled: Dialled | None  # None: the listener itself was dialled
    peer: str
    tunnel: tuple[str, int] | None = None  # host and port that CONNECT named
    handle: str | None = None  # that was presented with CONNECT
    inside: Inside | None = None

    @property
    def target(self) -> str:
        if self.tunnel is not None:
            return f"{self.tunnel[0]}:{self.tunnel[1]}"
        return str(self.dialled or "")

    def caller(self, listener: str) -> Caller:
        return Caller(self.uid, listener, self.handle, self.peer, self.target)


class _Connection(RequestHandler):
    """A connection, with the uid of its other end, a deadline for its first head, and the task that it is of."""

    __slots__ = ("_head_deadline", "_listener", "accepted", "ending", "serving", "task", "uid")

    def __init__(
        self, listener: "Listener", server: Server, accepted: Accepted | None, **settings: Any
    ) -> None:
        super().__init__(server, **settings)
        self._listener = listener
        self._head_deadline: asyncio.TimerHandle | None = None
        self.accepted = accepted
        self.uid: int | None = None
        self.task: TaskId | None = None
        self.serving = False
        self.ending = False

    def end(self) -> None:
        """Closes it when no request is under way, which begins no other."""
        self.ending = True
        if self.serving:
            self.close()
        else:
            self.force_close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        tcp = cast(asyncio.Transport, transport)
        if self._listener.full:
            tcp.abort()
            return
        if self.accepted is not None:
            self.uid = self.accepted.uid
        else:
            client, server = tcp.get_extra_info("peername"), tcp.get_extra_info("sockname")
            self.uid = peer.owner(client[:2], server[:2]) if client and server else None
        loop = asyncio.get_running_loop()
        self._head_deadline = loop.call_later(self._listener.config.head_timeout, tcp.abort)

    def head_arrived(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def connection_lost(self, exc: BaseException | None) -> None:
        self.head_arrived()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """What the parser did not take for a request: on record too, and answered without repeating any of it."""
        if status < 500:
            self.close()
            return self._listener.unreadable(request, self)
        return super().handle_error(request, status, exc, message)


class Listener:
    """``name`` says what it speaks: ``gateway`` (paths that name a server) or ``proxy`` (absolute-form)."""

    def __init__(
        self,
        name: str,
        bind: str,
        handler: Handler,
        config: ListenConfig,
        expected_uids: Container[int],
        on_refused: Refusing = lambda caller, refusal: None,
    ) -> None:
        """Raises ``errors.ConfigurationError`` for a bad address, or one that is not loopback."""
        self.name = name
        self.config = config
        self._way = _WAYS[name]
        self._address = _address(name, bind)
        self._handler = handler
        self._expected = expected_uids
        self._on_refused = on_refused
        self._port = 0
        self._server: asyncio.Server | None = None
        self._http: Server | None = None
        self._connection: Callable[[Accepted | None], _Connection]

    @property
    def full(self) -> bool:
        return self._http is not None and len(self._http.connections) > self.config.max_connections

    async def start(self) -> tuple[str, int]:
        """Listens; answers the host and the port that it got."""
        self._connections()
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._server = await asyncio.get_running_loop().create_server(
            lambda: self._connection(None), host, port, family=family, backlog=BACKLOG
        )
        self._port = int(self._server.sockets[0].getsockname()[1])
        return host, self._port

    def _connections(self) -> None:
        """From now on connections can be served."""
        http = Server(self._serve, handler_cancellation=True)
        settings: dict[str, Any] = {
            "loop": asyncio.get_running_loop(),
            "access_log": None,
            "logger": _quiet,
            "auto_decompress": False,
            "keepalive_timeout": self.config.keepalive_timeout,
            "lingering_time": _LINGER_SECONDS,
            "max_line_size": _MAX_LINE,
            "max_field_size": _MAX_FIELD,
            "max_headers": _MAX_HEADERS,
        }
        self._http = http
        self._connection = lambda accepted: _Connection(self, http, accepted, **settings)

    async def stop(self, grace: float) -> None:
        """Accepts nothing new, lets what is running end within ``grace`` seconds, then closes everything."""
        if self._server is None:
            return
        self._server.close()
        await self._finish(grace)
        await self._server.wait_closed()
        self._server = None

    def end_of(self, tasks: Collection[TaskId]) -> None:
        """These tasks are over, and so are their connections."""
        if self._http is None or self._way == "gateway":
            return
        for each in self._http.connections:
            connection = cast(_Connection, each)
            if connection.task in tasks:
                connection.end()

    async def _finish(self, grace: float) -> None:
        if self._http is not None:
            self._http.pre_shutdown()
            await self._http.shutdown(grace)

    async def _serve(self, request: BaseRequest) -> StreamResponse:
        connection = cast(_Connection, request.protocol)
        connection.serving = True
        try:
            return await self._serve_on(connection, request)
        finally:
            connection.serving = False

    async def _serve_on(self, connection: _Connection, request: BaseRequest) -> StreamResponse:
        connection.head_arrived()
        caller = self._caller(request, connection)
        if connection.uid is None or connection.uid not in self._expected:
            _log.warning("refused %s on the %s listener: uid %s", caller.peer, self.name, connection.uid)
            refusal = Refusal(Code.PEER_REFUSED, "this listener is for the agent's processes only")
            return await self._refuse(request, caller, refusal)
        try:
            version = (request.version.major, request.version.minor)
            target, headers = request.raw_path, request.raw_headers
            intake = read(
                self._way, self._port, request.method, target, version, headers, *_whom(connection.accepted)
            )
            handle = one_handle(caller.handle, intake.handle)
        except Refused as refused:
            return await self._refuse(request, caller, Refusal(Code(refused.code), refused.reason))
        caller = replace(caller, handle=handle)
        exchange = HttpExchange(request, caller, intake.destination, intake.head, self.config.body_timeout)
        return await self._hand_over(exchange)

    async def _hand_over(self, exchange: HttpExchange) -> StreamResponse:
        await hand_over(exchange, self._handler, self._on_refused, self.name)
        if exchange.response is None:
            raise ConnectionResetError("aborted before an answer was begun")
        return exchange.response

    def unreadable(self, request: BaseRequest, connection: _Connection) -> StreamResponse:
        """The answer to bytes that are no HTTP request."""
        refusal = Refusal(Code.MALFORMED, "this is no HTTP request")
        self._on_refused(self._caller(request, connection), refusal)
        answer = problem(refusal.code, refusal.reason)
        response = Response(status=answer.status, body=answer.body, content_type=answer.content_type)
        response.force_close()
        return response

    def _caller(self, request: BaseRequest, connection: _Connection) -> Caller:
        if connection.accepted is not None:
            return connection.accepted.caller(self.name)
        return Caller(connection.uid, self.name, None, _peer_name(request))

    async def _refuse(self, request: BaseRequest, caller: Caller, refusal: Refusal) -> StreamResponse:
        self._on_refused(caller, refusal)
        exchange = HttpExchange(
            request, caller, Destination("gateway", ""), Head(request.method, ""), self.config.body_timeout
        )
        await exchange.answer(problem(refusal.code, refusal.reason), close=True)
        if exchange.response is None:
            raise ConnectionResetError("aborted before an answer was begun")
        return exchange.response


def _address(name: str, bind: str) -> tuple[str, int]:
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    if not port.isascii() or not port.isdigit() or int(port) > 65535 or not is_loopback(host):
        raise ConfigurationError(
            [f"listen.{name}: {bind!r} is no loopback address with a port (127.0.0.1:port, [::1]:port)"]
        )
    return ("127.0.0.1" if host == "localhost" else host), int(port)


def _whom(accepted: Accepted | None) -> tuple[Dialled | None, Inside | None]:
    return (None, None) if accepted is None else (accepted.dialled, accepted.inside)


def _peer_name(request: BaseRequest) -> str:
    transport = request.transport
    name = transport.get_extra_info("peername") if transport is not None else None
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""
