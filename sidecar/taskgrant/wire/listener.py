"""A listener for the agent, on loopback only: who connects is checked, and what is asked, before a handler sees it.

Every request, also on a kept-alive connection, becomes an exchange of its own, or is refused here and the connection
closed. The client's uid is looked up once per connection, when it is made.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Literal, cast

from aiohttp.web import BaseRequest, RequestHandler, Server, StreamResponse

from taskgrant.errors import ConfigurationError, Refused
from taskgrant.model.call import Answer, Caller, Head
from taskgrant.model.codes import Code
from taskgrant.model.ports import Destination
from taskgrant.wire import peer
from taskgrant.wire.config import ListenConfig
from taskgrant.wire.exchange import HttpExchange
from taskgrant.wire.intake import is_loopback, read
from taskgrant.wire.problem import problem

_log = logging.getLogger("taskgrant.wire")
# What a client can provoke in the parser is answered, not logged line by line.
_quiet = logging.getLogger("taskgrant.wire.http")
_quiet.setLevel(logging.CRITICAL)

Handler = Callable[[HttpExchange], Awaitable[None]]
_WAYS: dict[str, Literal["gateway", "absolute"]] = {"gateway": "gateway", "proxy": "absolute"}
_MAX_LINE = 16 << 10
_MAX_FIELD = 16 << 10
_MAX_HEADERS = 100
_LINGER_SECONDS = 2.0
_BACKLOG = 512


class _Connection(RequestHandler):
    """A connection, with the uid of its other end and a deadline for its first head."""

    __slots__ = ("_head_deadline", "_listener", "uid")

    def __init__(self, listener: "Listener", server: Server, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._listener = listener
        self._head_deadline: asyncio.TimerHandle | None = None
        self.uid: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        tcp = cast(asyncio.Transport, transport)
        if self._listener.full:
            tcp.abort()
            return
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


class Listener:
    """``name`` says what it speaks: ``gateway`` (paths that name a server) or ``proxy`` (absolute-form)."""

    def __init__(
        self, name: str, bind: str, handler: Handler, config: ListenConfig, expected_uids: frozenset[int]
    ) -> None:
        """Raises ``errors.ConfigurationError`` for a bad address, or one that is not loopback."""
        self.name = name
        self.config = config
        self._way = _WAYS[name]
        self._address = _address(name, bind)
        self._handler = handler
        self._expected = expected_uids
        self._port = 0
        self._server: asyncio.Server | None = None
        self._http: Server | None = None

    @property
    def full(self) -> bool:
        return self._http is not None and len(self._http.connections) > self.config.max_connections

    async def start(self) -> tuple[str, int]:
        """Listens; answers the host and the port that it got."""
        loop = asyncio.get_running_loop()
        http = Server(self._serve, handler_cancellation=True)
        settings: dict[str, Any] = {
            "loop": loop,
            "access_log": None,
            "logger": _quiet,
            "auto_decompress": False,
            "keepalive_timeout": self.config.keepalive_timeout,
            "lingering_time": _LINGER_SECONDS,
            "max_line_size": _MAX_LINE,
            "max_field_size": _MAX_FIELD,
            "max_headers": _MAX_HEADERS,
        }
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._http = http
        self._server = await loop.create_server(
            lambda: _Connection(self, http, **settings), host, port, family=family, backlog=_BACKLOG
        )
        self._port = int(self._server.sockets[0].getsockname()[1])
        return host, self._port

    async def stop(self, grace: float) -> None:
        """Accepts nothing new, lets what is running end within ``grace`` seconds, then closes everything."""
        if self._server is None or self._http is None:
            return
        self._server.close()
        self._http.pre_shutdown()
        await self._http.shutdown(grace)
        await self._server.wait_closed()
        self._server = None

    async def _serve(self, request: BaseRequest) -> StreamResponse:
        connection = cast(_Connection, request.protocol)
        connection.head_arrived()
        caller = Caller(connection.uid, self.name, None, _peer_name(request))
        if connection.uid is None or connection.uid not in self._expected:
            _log.warning("refused %s on the %s listener: uid %s", caller.peer, self.name, connection.uid)
            refusal = problem(Code.PEER_REFUSED, "this listener is for the agent's processes only")
            return await self._refuse(request, caller, refusal)
        try:
            version = (request.version.major, request.version.minor)
            intake = read(
                self._way, self._port, request.method, request.raw_path, version, request.raw_headers
            )
        except Refused as refused:
            return await self._refuse(request, caller, problem(Code(refused.code), refused.reason))
        caller = Caller(connection.uid, self.name, intake.handle, caller.peer)
        exchange = HttpExchange(request, caller, intake.destination, intake.head, self.config.body_timeout)
        return await self._hand_over(exchange)

    async def _hand_over(self, exchange: HttpExchange) -> StreamResponse:
        try:
            await self._handler(exchange)
            if not exchange.begun:
                raise RuntimeError("the handler gave no answer")
        except ConnectionError:
            await exchange.end("abort")  # the client is gone
        except Exception:
            _log.exception("a request on the %s listener failed", self.name)
            await self._fail(exchange)
        if exchange.response is None:
            raise ConnectionResetError("aborted before an answer was begun")
        if not exchange.ended:
            await exchange.end("abort")
        return exchange.response

    async def _fail(self, exchange: HttpExchange) -> None:
        if exchange.begun or exchange.ended:
            await exchange.end("abort")
            return
        await exchange.answer(problem(Code.INVALID, "the sidecar failed; its log says why", 500), close=True)

    async def _refuse(self, request: BaseRequest, caller: Caller, answer: Answer) -> StreamResponse:
        exchange = HttpExchange(
            request, caller, Destination("gateway", ""), Head(request.method, ""), self.config.body_timeout
        )
        await exchange.answer(answer, close=True)
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


def _peer_name(request: BaseRequest) -> str:
    transport = request.transport
    name = transport.get_extra_info("peername") if transport is not None else None
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""
