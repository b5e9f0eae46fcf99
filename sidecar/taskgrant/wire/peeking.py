"""Reading a socket without taking anything from it, and saying a last word on it.

Whoever serves the connection afterwards reads from its first byte. SO_RCVLOWAT keeps a client that dribbles from waking
us for each byte: we are woken when as many are there as the reader needs next.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import TypeVar

from taskgrant.errors import Refused
from taskgrant.model.codes import Code

T = TypeVar("T")

_RESET = struct.pack("ii", 1, 0)


async def peek(sock: socket.socket, judge: Callable[[bytes], T | int], limit: int, seconds: float) -> T:
    """What ``judge`` finds in the bytes that have come, at most ``limit`` of them.

    It answers a number where it needs so many bytes in all, more than it was given. Raises ``errors.Refused`` when
    the client ends first (malformed) or needs more than ``seconds`` (unsupported), whatever ``judge`` raises, and
    OSError when the connection is gone.
    """
    seen = b""
    try:
        async with asyncio.timeout(seconds):
            while isinstance(found := judge(seen), int):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, min(max(found, len(seen) + 1), limit))
                await _readable(sock)
                try:
                    peeked = sock.recv(limit, socket.MSG_PEEK)
                except BlockingIOError:
                    continue
                if len(peeked) <= len(seen):
                    raise Refused(Code.MALFORMED, "the connection ended before it was clear what it speaks")
                seen = peeked
    except TimeoutError:
        raise Refused(
            Code.UNSUPPORTED, f"the client did not say within {seconds:g} seconds what it speaks"
        ) from None
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    return found


def take(sock: socket.socket, count: int) -> None:
    """Takes bytes that were peeked at. Raises OSError when they are not there."""
    while count:
        taken = len(sock.recv(count))
        if taken == 0:
            raise ConnectionResetError("the client is gone")
        count -= taken


def last_word(sock: socket.socket, data: bytes) -> None:
    """Answers once, without waiting, and ends our side. The client reads it if it has not gone."""
    try:
        sock.send(data)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return


def reset(sock: socket.socket) -> None:
    """Closes with a reset: whatever the client says next gets an error at once."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        pass
    finally:
        sock.close()


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
