"""The agent's resolver: name look-ups that the kernel redirects here, over UDP and TCP, answered from a fixed list.

arrives → not too many → whose is it (uid) → answered (``protocols.dns``) → counted, and on record if it was refused

Nothing is ever asked of anybody, and what cannot be answered at once is dropped: a client can use up no more than its
share of a second, and a few connections. The uid is told by the kernel's socket table. Over UDP it need not be there (a
client that is gone, a port that the kernel has changed), and then nobody's: the answers are no secret.
"""

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable, Container
from contextlib import suppress
from typing import Any, cast

from taskgrant.model.call import Caller, Refusal
from taskgrant.model.codes import Code
from taskgrant.protocols.dns import MAX_QUERY, Answered, Names
from taskgrant.wire import peer
from taskgrant.wire.redirect.original import original_dst
from taskgrant.wire.serving import Refusing

_log = logging.getLogger("taskgrant.wire")

NAME = "dns"
#: Look-ups that are answered a second, and in one go. A program asks a few for each name, not thousands.
PER_SECOND = 100
BURST = 200
_MAX_CONNECTIONS = 32
_QUERIES_PER_CONNECTION = 32
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))

#: Told the outcome of each look-up (``protocols.dns.Outcome``, "dropped" or "peer").
Counting = Callable[[str], None]


class Allowance:
    """So many a second, and no more than ``burst`` in one go. ``clock`` gives seconds that never go back."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left = float(burst)
        self._at = clock()

    def take(self) -> bool:
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Resolver:
    """Listens on both loopbacks, since the kernel redirects IPv4 to 127.0.0.1 and IPv6 to ::1."""

    def __init__(
        self,
        port: int,
        names: Names,
        expected_uids: Container[int],
        on_refused: Refusing,
        counting: Counting = lambda outcome: None,
        timeout: float = 10.0,
        allowance: Allowance | None = None,
    ) -> None:
        """``timeout``: seconds for a query to arrive over TCP, and for its answer to be taken."""
        self._port = port
        self._names = names
        self._expected = expected_uids
        self._on_refused = on_refused
        self._count = counting
        self._timeout = timeout
        self._allowance = allowance or Allowance(PER_SECOND, BURST)
        # What was dropped is on record too, but as few records as these.
        self._told = Allowance(1, 1)
        self._connections: set[asyncio.Task[Any]] = set()
        self._servers: list[asyncio.Server] = []
        self._datagrams: list[asyncio.DatagramTransport] = []

    async def start(self) -> tuple[str, int]:
        """Listens; answers the host and the port that it got. Raises OSError for a port that is taken."""
        try:
            for family, host in _LOOPBACKS:
                try:
                    await self._listen(family, host)
                except OSError as error:
                    if family == socket.AF_INET or error.errno not in _NO_IPV6:
                        raise
        except OSError:
            await self.stop()
            raise
        return "127.0.0.1", self._port

    async def _listen(self, family: socket.AddressFamily, host: str) -> None:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(
            self._serve, host, self._port, family=family, limit=MAX_QUERY + 2, backlog=_MAX_CONNECTIONS
        )
        self._servers.append(server)
        self._port = int(server.sockets[0].getsockname()[1])
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self._datagram), local_addr=(host, self._port), family=family
        )
        self._datagrams.append(transport)

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        for transport in self._datagrams:
            transport.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        self._servers, self._datagrams = [], []

    # -- UDP ---------------------------------------------------------------------------------------------------

    def _datagram(self, query: bytes, client: tuple[str, int]) -> bytes | None:
        if not self._allowed(client):
            return None
        owners = peer.udp_owners(client)
        uid = next(iter(owners)) if len(owners) == 1 else None
        caller = Caller(uid, NAME, None, f"{client[0]}:{client[1]}")
        if owners and not any(owner in self._expected for owner in owners):
            self._refuse_peer(caller)
            return None
        return self._answer(query, caller)

    # -- TCP ---------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast(asyncio.Task[Any], asyncio.current_task())
        self._connections.add(task)
        try:
            if len(self._connections) > _MAX_CONNECTIONS:
                self._drop(_client(writer))
            elif (caller := self._owner(writer)) is not None:
                await self._converse(reader, writer, caller)
        except (OSError, EOFError, TimeoutError):
            pass  # gone, or too slow
        finally:
            try:
                writer.close()
                with suppress(OSError, TimeoutError):
                    async with asyncio.timeout(self._timeout):
                        await writer.wait_closed()
            finally:
                writer.transport.abort()  # whoever takes no answer has had its time
                self._connections.discard(task)

    def _owner(self, writer: asyncio.StreamWriter) -> Caller | None:
        """None for a client that is not the agent's, which is on record."""
        client = _client(writer)
        accepted = writer.get_extra_info("socket")
        dialled = original_dst(accepted)
        if dialled is None:
            uid = peer.owner(client, accepted.getsockname()[:2])
        else:
            uid = peer.owner_of_redirected(accepted, dialled)
        caller = Caller(uid, NAME, None, f"{client[0]}:{client[1]}")
        if uid is None or uid not in self._expected:
            self._refuse_peer(caller)
            return None
        return caller

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, caller: Caller
    ) -> None:
        """Queries with their length in front (RFC 1035, section 4.2.2), one after the other."""
        for _ in range(_QUERIES_PER_CONNECTION):
            async with asyncio.timeout(self._timeout):
                length = int.from_bytes(await reader.readexactly(2))
                # One byte more than is read of any is enough to be told that it is too long.
                query = await reader.readexactly(min(length, MAX_QUERY + 1))
            if not self._allowed(_client(writer)):
                return
            answer = self._answer(query, caller)
            if answer is None:
                return
            writer.write(len(answer).to_bytes(2) + answer)
            async with asyncio.timeout(self._timeout):
                await writer.drain()
            if length > MAX_QUERY:
                return

    # -- both --------------------------------------------------------------------------------------------------

    def _allowed(self, client: tuple[str, int]) -> bool:
        if self._allowance.take():
            return True
        self._drop(client)
        return False

    def _drop(self, client: tuple[str, int]) -> None:
        self._count("dropped")
        if self._told.take():
            caller = Caller(None, NAME, None, f"{client[0]}:{client[1]}")
            self._on_refused(caller, Refusal(Code.OVERLOADED, "too many look-ups; some go unanswered"))

    def _refuse_peer(self, caller: Caller) -> None:
        self._count("peer")
        refusal = Refusal(Code.PEER_REFUSED, "this resolver is for the agent's processes only")
        self._on_refused(caller, refusal)

    def _answer(self, query: bytes, caller: Caller) -> bytes | None:
        answered: Answered = self._names.answer(query)
        self._count(answered.outcome)
        if answered.refusal is not None:
            told = Caller(caller.uid, NAME, None, caller.peer, answered.shown)
            self._on_refused(told, answered.refusal)
        return answered.wire


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answer: Callable[[bytes, tuple[str, int]], bytes | None]) -> None:
        self._answer = answer
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        try:
            answer = self._answer(data, (str(addr[0]), int(addr[1])))
        except Exception:
            _log.exception("a name look-up failed")
            return
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)


def _client(writer: asyncio.StreamWriter) -> tuple[str, int]:
    name = writer.get_extra_info("peername")
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else ("", 0)
