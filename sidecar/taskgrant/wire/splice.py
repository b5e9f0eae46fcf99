"""Bytes from one connection to another and back, unread: for hosts whose clients trust no CA but their own.

Both ends are held by a leg, so that they are cut with their task. Whoever is slow slows the other down.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from taskgrant.errors import Refused
from taskgrant.model.call import Caller
from taskgrant.model.codes import Code
from taskgrant.model.egress import EgressHost
from taskgrant.wire.legs import Leg
from taskgrant.wire.listener import Accepted
from taskgrant.wire.redirect.original import Dialled, objection
from taskgrant.wire.transports import abort

#: Relays a connection to a host to its end. Raises ``errors.Refused`` before a byte has passed.
Splice = Callable[[Accepted, Caller, EgressHost], Awaitable[None]]

_CHUNK = 64 << 10


async def connect(host: str, port: int, seconds: float) -> socket.socket:
    """A connection to a host, looked up here and now: what the agent believes its address to be does not count.

    Raises ``errors.Refused``: forbidden when the name leads to this machine or to an address of no server,
    upstream_unreachable.
    """
    loop = asyncio.get_running_loop()
    problem = "it has no address"
    try:
        async with asyncio.timeout(seconds):
            for family, kind, protocol, _, address in await loop.getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            ):
                if (why := objection(Dialled(str(address[0]), port))) is not None:
                    raise Refused(Code.FORBIDDEN, f"the name leads where nothing is let through: {why}")
                sock = socket.socket(family, kind, protocol)
                sock.setblocking(False)
                try:
                    await loop.sock_connect(sock, address)
                except OSError as error:
                    sock.close()
                    problem = error.strerror or "it cannot be reached"
                    continue
                except BaseException:
                    sock.close()
                    raise
                return sock
    except socket.gaierror as error:
        problem = error.strerror or problem
    except TimeoutError:
        problem = f"it did not answer within {seconds:g} seconds"
    raise Refused(Code.UPSTREAM_UNREACHABLE, f"the host cannot be reached: {problem}")


class Relayed(NamedTuple):
    """Bytes that went to the server, and to the client; whether it ended because no more had come."""

    sent: int
    received: int
    idle: bool


async def relay(client: socket.socket, server: socket.socket, leg: Leg, idle: float) -> Relayed:
    """Until both sides have ended, or one breaks, or nothing has moved either way for ``idle`` seconds.

    Inside the scope of ``leg``; owns both sockets. Raises ``errors.Severed`` when the leg is over already.
    """
    loop = asyncio.get_running_loop()
    ends: list[asyncio.StreamWriter] = []
    whole = False
    try:
        from_client, to_client = await _stream(client, ends)
        from_server, to_server = await _stream(server, ends)
        for end in ends:
            leg.hold(end.transport)
        quiet = asyncio.timeout(idle)

        def moved() -> None:
            if not quiet.expired():
                quiet.reschedule(loop.time() + idle)

        up, down = _Pump(from_client, to_server, moved), _Pump(from_server, to_client, moved)
        tasks = [asyncio.create_task(pump.run()) for pump in (up, down)]
        try:
            async with quiet:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        except TimeoutError:
            if not quiet.expired():
                raise
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        whole = not any(results)
        return Relayed(up.count, down.count, quiet.expired())
    finally:
        for end in ends:
            leg.drop(end.transport)
            if whole:
                end.close()
            else:
                abort(end.transport)
        for sock in (client, server)[len(ends) :]:
            sock.close()


class _Pump:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, moved: Callable[[], None]
    ) -> None:
        self.count = 0
        self._moved = moved
        self._reader = reader
        self._writer = writer

    async def run(self) -> None:
        """Raises ConnectionError when either side breaks."""
        while data := await self._reader.read(_CHUNK):
            self._moved()
            self._writer.write(data)
            await self._writer.drain()
            self._moved()
            self.count += len(data)
        with contextlib.suppress(OSError):  # gone meanwhile: the other direction says so
            self._writer.write_eof()


async def _stream(
    sock: socket.socket, ends: list[asyncio.StreamWriter]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(_CHUNK)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock)
    transport.set_write_buffer_limits(0)  # what was drained is with the kernel
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    ends.append(writer)
    return reader, writer
