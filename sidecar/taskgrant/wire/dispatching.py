"""A listener whose connections may speak different things: by their first bytes they come to who speaks it.

    accept → whose (uid) → [let through unread] → first bytes, peeked → [CONNECT: 200, first bytes] → a speaker, or no

A ``Speaker`` takes a connection of which no byte has been read. HTTP has one here: HTTP/1 with the same server, intake
and exchange as every other listener, HTTP/2 (by its preface, or agreed on in TLS) with its own. What has none is
refused as ``unsupported`` and on record, as is a client that says nothing before the deadline.

CONNECT leads to nowhere but the sidecar itself: the tunnel's client is served as if it had dialled the host that it
names, and must go on naming that one.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Container, Mapping
from dataclasses import replace
from typing import Protocol

from taskgrant.errors import Refused
from taskgrant.model.call import Caller, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.ids import TaskId
from taskgrant.wire import opaque, peer, tunnel
from taskgrant.wire.config import ListenConfig
from taskgrant.wire.http2.server import Http2Server
from taskgrant.wire.intake import Inside
from taskgrant.wire.listener import BACKLOG, Accepted, Listener
from taskgrant.wire.opaque import Unread
from taskgrant.wire.opening import ENOUGH, Opening, classify
from taskgrant.wire.peeking import peek, reset
from taskgrant.wire.serving import Handler, Refusing
from taskgrant.wire.tunnel import Admit

_log = logging.getLogger("taskgrant.wire")


class Serve(Protocol):
    async def __call__(
        self, accepted: Accepted, context: ssl.SSLContext | None, *, http2: bool = False
    ) -> None:
        """Serves HTTP on a connection, over TLS if a context is given; returns when it has begun to. Raises
        ``errors.Refused`` when the client ends the handshake.
        """
        ...


#: Serves a connection from its first byte on, by handing it over, or to its end. Raises ``errors.Refused``.
Speaker = Callable[[Accepted, Serve], Awaitable[None]]

_REASONS = {
    Opening.TLS: "TLS is not intercepted here; dial plain http, and the sidecar speaks TLS to the tool",
    Opening.CONNECT: "CONNECT is for the proxy's port, and not inside a tunnel",
    Opening.UNKNOWN: "the protocol of this connection is not known here",
}
_PAUSE_SECONDS = 0.2
_CLOSE_SECONDS = 2.0


class DispatchingListener(Listener):
    """The proxy's. Who dials it is served as by any proxy, and by ``speakers`` what they speak; ``admit`` says what
    CONNECT may name (nothing, by default), and ``unread`` takes what is let through whatever it speaks.
    """

    def __init__(
        self,
        name: str,
        bind: str,
        handler: Handler,
        config: ListenConfig,
        expected_uids: Container[int],
        on_refused: Refusing,
        speakers: Mapping[Opening, Speaker] | None = None,
        admit: Admit = tunnel.none,
        unread: Unread = opaque.nothing,
    ) -> None:
        """Raises ``errors.ConfigurationError`` for a bad address, or one that is not loopback."""
        super().__init__(name, bind, handler, config, expected_uids, on_refused)
        self._speakers: dict[Opening, Speaker] = dict(speakers or {})
        self._admits = admit
        self._unread = unread
        self._http2 = Http2Server(name, self._way, handler, config, on_refused)
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def full(self) -> bool:
        open_ = len(self._opening) + len(self._http2)
        open_ += len(self._http.connections) if self._http is not None else 0
        return open_ > self.config.max_connections

    async def start(self) -> tuple[str, int]:
        """Listens; answers the address and the port that it got."""
        self._connections()
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._sockets.append(socket.create_server((host, port), family=family, backlog=BACKLOG))
        self._port = int(self._sockets[0].getsockname()[1])
        self._listen_too()
        for listening in self._sockets:
            listening.setblocking(False)
            self._accepting.append(asyncio.create_task(self._accept(listening), name=self.name))
        return host, self._port

    def _listen_too(self) -> None:
        """For those who listen at more than one address."""

    def end_of(self, tasks: Collection[TaskId]) -> None:
        super().end_of(tasks)
        self._http2.end_of(tasks)

    async def stop(self, grace: float) -> None:
        for task in (*self._accepting, *self._opening):
            task.cancel()
        await asyncio.gather(*self._accepting, *self._opening, return_exceptions=True)
        for listening in self._sockets:
            listening.close()
        self._accepting.clear()
        self._sockets.clear()
        await asyncio.gather(self._finish(grace), self._http2.finish(grace))

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listening)
            except ConnectionError:
                continue  # gone before it was accepted
            except OSError as error:
                _log.error("the %s listener cannot accept now: %s", self.name, error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if self.full:
                reset(sock)
                continue
            sock.setblocking(False)
            opening = asyncio.create_task(self._open(sock))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self, sock: socket.socket) -> None:
        caller = Caller(None, self.name)
        try:
            accepted = self._admit(sock)
            caller = accepted.caller(self.name)
            self._check(accepted)
            await self._dispatch(accepted)
        except Refused as refused:
            caller = replace(caller, dialled=str(refused.details.get("dialled", caller.dialled)))
            if not refused.details.get("recorded"):
                self._on_refused(caller, Refusal(Code(refused.code), refused.reason))
            if refused.details.get("answered"):
                sock.close()
            else:
                reset(sock)
        except OSError:
            sock.close()  # the client is gone
        except asyncio.CancelledError:
            reset(sock)
            raise
        except Exception:
            _log.exception("a connection to the %s listener failed", self.name)
            reset(sock)  # no client is left waiting for what will not come

    def _admit(self, sock: socket.socket) -> Accepted:
        client, own = sock.getpeername()[:2], sock.getsockname()[:2]
        return Accepted(sock, peer.owner(client, own), None, f"{client[0]}:{client[1]}")

    def _check(self, accepted: Accepted) -> None:
        """Raises ``errors.Refused`` for a connection that is not to be served, whatever it speaks."""

    async def _dispatch(self, accepted: Accepted) -> None:
        seconds = self.config.head_timeout
        if accepted.dialled is not None and await self._unread(accepted):
            return
        opening = await peek(accepted.sock, _classify, ENOUGH, seconds)
        if accepted.dialled is None and self._is_for_http(opening):
            # Strangers and nonsense get an answer that they can read from the HTTP server, and are on record there.
            await self._serve_connection(accepted, None)
            return
        if accepted.uid is None or accepted.uid not in self._expected:
            raise Refused(Code.PEER_REFUSED, "this listener is for the agent's processes only")
        if opening is Opening.CONNECT and accepted.dialled is None:
            accepted = await tunnel.open_tunnel(accepted, self._admits, seconds)
            if await self._unread(accepted):
                return
            opening = await peek(accepted.sock, _classify, ENOUGH, seconds)
        if opening in (Opening.HTTP, Opening.HTTP2):
            await self._serve_connection(_in_plain(accepted), None, http2=opening is Opening.HTTP2)
            return
        speaker = self._speakers.get(opening)
        if speaker is None:
            raise Refused(Code.UNSUPPORTED, _REASONS[opening])
        await speaker(accepted, self._serve_connection)

    def _is_for_http(self, opening: Opening) -> bool:
        return opening not in (Opening.CONNECT, Opening.TLS, Opening.HTTP2)

    async def _serve_connection(
        self, accepted: Accepted, context: ssl.SSLContext | None, *, http2: bool = False
    ) -> None:
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            return self._http2.connection(accepted) if http2 else self._connection(accepted)

        if context is None:
            await loop.connect_accepted_socket(protocol, accepted.sock)
            return
        try:
            await loop.connect_accepted_socket(
                protocol,
                accepted.sock,
                ssl=context,
                ssl_handshake_timeout=self.config.head_timeout,
                ssl_shutdown_timeout=_CLOSE_SECONDS,
            )
        except ssl.SSLError as error:
            why = (error.reason or "for no reason that it gave").replace("_", " ").lower()
            raise Refused(Code.UNSUPPORTED, f"the client could not agree on TLS: {why}") from error
        except OSError as error:
            raise Refused(Code.UNSUPPORTED, "the client ended the TLS handshake") from error


def _classify(seen: bytes) -> Opening | int:
    found = classify(seen)
    return len(seen) + 1 if found is None else found


def _in_plain(accepted: Accepted) -> Accepted:
    """HTTP inside a tunnel, without TLS."""
    if accepted.tunnel is None:
        return accepted
    host, port = accepted.tunnel
    return replace(accepted, inside=Inside("connect", "http", host, port))
