"""An aborted connection is reset: what the kernel still held of it is dropped, not sent on."""

import asyncio
import socket

import pytest

from taskgrant.wire.transports import abort


async def test_nothing_is_sent_on() -> None:
    size = 1 << 20
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        _, writer = await asyncio.open_connection(*listening.getsockname())
        peer, _ = listening.accept()
        with peer:
            writer.write(b"x" * size)
            abort(writer.transport)
            await asyncio.sleep(0)  # the loop closes the socket in its next turn
            await asyncio.sleep(0)
            received = 0
            with pytest.raises(ConnectionResetError):  # noqa: PT012 - read until it says so
                while data := peer.recv(1 << 16):
                    received += len(data)
            assert received < size // 2


async def test_one_that_is_closed_already() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        _, writer = await asyncio.open_connection(*listening.getsockname())
        writer.close()
        await writer.wait_closed()
        abort(writer.transport)
        abort(writer.transport)
