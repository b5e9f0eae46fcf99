"""The listener that redirected connections come to: whoever dialled whatever, by the first bytes on to who speaks it.

    accept → whom was it for (SO_ORIGINAL_DST) → whose is it (uid) → first bytes, peeked → a speaker, or refused

A ``Speaker`` takes a connection of which no byte has been read. HTTP/1 has one here: the same server, intake and
exchange as every other listener. What has none is refused as ``unsupported`` and on record, as is a client that says
nothing before the deadline. One wake-up a byte at most: SO_RCVLOWAT keeps a hello that dribbles in from spinning.
"""

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping

from taskgrant.errors import ConfigurationError, Refused
from taskgrant.model.call import Caller, Refusal
from taskgrant.model.codes import Code
from taskgrant.wire import peer
from taskgrant.wire.config import ListenConfig
from taskgrant.wire.listener import BACKLOG, Accepted, Handler, Listener, Refusing
from taskgrant.wire.opening import ENOUGH, Opening, classify
from taskgrant.wire.redirect.original import objection, original_dst

_log = logging.getLogger("taskgrant.wire")

#: Serves an accepted connection from its first byte on, and owns its socket from then on. Raises ``errors.Refused``
#: before it has taken the socket over.
Speaker = Callable[[Accepted], Awaitable[None]]

_REASONS = {
    Opening.TLS: "TLS is not intercepted here; dial plain http, and the sidecar speaks TLS to the tool",
    Opening.HTTP2: "HTTP/2 is not intercepted here; speak HTTP/1.1",
    Opening.UNKNOWN: "the protocol of this connection is not known here",
}
_RESET = struct.pack("ii", 1, 0)
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
_PAUSE_SECONDS = 0.2


class TransparentListener(Listener):
    """Listens on both loopbacks, since the kernel redirects IPv4 to 127.0.0.1 and IPv6 to ::1."""

    def __init__(
        self,
        bind: str,
        handler: Handler,
        config: ListenConfig,
        expected_uids: frozenset[int],
        on_refused: Refusing,
        speakers: Mapping[Opening, Speaker] | None = None,
        *,
        direct: bool = False,
    ) -> None:
        """``direct``: who dials the listener itself is served as by a proxy (absolute-form), instead of being refused.

        Raises ``errors.ConfigurationError`` for an address that is not 127.0.0.1.
        """
        super().__init__("transparent", bind, handler, config, expected_uids, on_refused)
        if self._address[0] != "127.0.0.1":
            raise ConfigurationError([f"listen.transparent: {bind!r} is not 127.0.0.1, where redirects end"])
        self._speakers: dict[Opening, Speaker] = {Opening.HTTP: self._speak_http, **(speakers or {})}
        self._direct = direct
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def full(self) -> bool:
        open_ = len(self._opening) + (len(self._http.connections) if self._http is not None else 0)
        return open_ > self.config.max_connections

    async def start(self) -> tuple[str, int]:
        """Listens; answers the IPv4 address and the port that it got, which is the same for IPv6."""
        self._connections()
        host, port = self._address
        self._sockets.append(socket.create_server((host, port), backlog=BACKLOG))
        self._port = int(self._sockets[0].getsockname()[1])
        try:
            self._sockets.append(
                socket.create_server(("::1", self._port), family=socket.AF_INET6, backlog=BACKLOG)
            )
        except OSError as error:
            if error.errno not in _NO_IPV6:
                self._sockets.pop().close()
                raise
        for listening in self._sockets:
            listening.setblocking(False)
            self._accepting.append(asyncio.create_task(self._accept(listening), name="transparent"))
        return host, self._port

    async def stop(self, grace: float) -> None:
        for task in (*self._accepting, *self._opening):
            task.cancel()
        await asyncio.gather(*self._accepting, *self._opening, return_exceptions=True)
        for listening in self._sockets:
            listening.close()
        self._accepting.clear()
        self._sockets.clear()
        await self._finish(grace)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listening)
            except ConnectionError:
                continue  # gone before it was accepted
            except OSError as error:
                _log.error("the transparent listener cannot accept now: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if self.full:
                _reset(sock)
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
            if accepted.uid is None or accepted.uid not in self._expected:
                raise Refused(Code.PEER_REFUSED, "this listener is for the agent's processes only")
            if accepted.dialled is None and not self._direct:
                raise Refused(Code.FORBIDDEN, "the sidecar's own address was dialled")
            if accepted.dialled is not None and (reason := objection(accepted.dialled)) is not None:
                raise Refused(Code.FORBIDDEN, reason)
            opening = await self._first_bytes(sock)
            speaker = self._speakers.get(opening)
            if speaker is None:
                raise Refused(Code.UNSUPPORTED, _REASONS[opening])
            await speaker(accepted)
        except Refused as refused:
            self._on_refused(caller, Refusal(Code(refused.code), refused.reason))
            _reset(sock)
        except OSError:
            sock.close()  # the client is gone
        except asyncio.CancelledError:
            _reset(sock)
            raise

    def _admit(self, sock: socket.socket) -> Accepted:
        client, own = sock.getpeername()[:2], sock.getsockname()[:2]
        dialled = original_dst(sock)
        return Accepted(sock, peer.owner(client, dialled or own), dialled, f"{client[0]}:{client[1]}")

    async def _first_bytes(self, sock: socket.socket) -> Opening:
        """Peeks. Raises ``errors.Refused`` when the client ends first, or says too little in time."""
        seen = b""
        try:
            async with asyncio.timeout(self.config.head_timeout):
                while (opening := classify(seen)) is None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(seen) + 1)
                    await _readable(sock)
                    try:
                        peeked = sock.recv(ENOUGH, socket.MSG_PEEK)
                    except BlockingIOError:
                        continue
                    if len(peeked) <= len(seen):
                        raise Refused(
                            Code.MALFORMED, "the connection ended before it was clear what it speaks"
                        )
                    seen = peeked
        except TimeoutError:
            raise Refused(
                Code.UNSUPPORTED,
                f"the client did not say within {self.config.head_timeout:g} seconds what it speaks",
            ) from None
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        return opening

    async def _speak_http(self, accepted: Accepted) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: self._connection(accepted), accepted.sock)


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def mark() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, mark)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


def _reset(sock: socket.socket) -> None:
    """Closes with a reset: whatever the client says next gets an error at once."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        pass
    finally:
        sock.close()
