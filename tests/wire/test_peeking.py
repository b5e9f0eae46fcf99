"""Looking at what a client says without taking it, with few wake-ups, and not for ever."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from taskgrant.errors import Refused
from taskgrant.wire.peeking import last_word, peek, reset, take
from tests.wire.support import SOON


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's end, and ours; over TCP, which alone heeds SO_RCVLOWAT."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        ours, _ = server.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ours.setblocking(False)
        with ours:
            yield client, ours


async def test_nothing_is_taken_until_it_is(pair: tuple[socket.socket, socket.socket]) -> None:
    client, ours = pair
    client.sendall(b"hello")
    for _ in range(2):
        assert await peek(ours, lambda seen: seen if len(seen) == 5 else 5, 100, SOON) == b"hello"
    take(ours, 3)
    assert ours.recv(10) == b"lo"
    with pytest.raises(OSError, match="unavailable"):
        take(ours, 1)


async def test_one_is_woken_for_what_is_needed_and_not_for_each_byte(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    client, ours = pair
    asked: list[int] = []

    def judge(seen: bytes) -> bytes | int:
        asked.append(len(seen))
        return seen if len(seen) >= 1000 else 1000

    async def dribble() -> None:
        for _ in range(1000):
            client.sendall(b"x")
            await asyncio.sleep(0)

    _, seen = await asyncio.gather(dribble(), peek(ours, judge, 2000, SOON))
    assert len(seen) == 1000
    assert len(asked) < 20
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


async def test_a_client_that_ends_or_waits_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    client, ours = pair
    client.sendall(b"half")
    with pytest.raises(Refused) as refused:
        await peek(ours, lambda seen: 10, 100, 0.1)
    assert refused.value.code == "unsupported"
    client.shutdown(socket.SHUT_WR)
    with pytest.raises(Refused) as refused:
        await peek(ours, lambda seen: 10, 100, SOON)
    assert refused.value.code == "malformed"


async def test_more_than_the_limit_is_never_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    client, ours = pair
    client.sendall(b"x" * 500)
    with pytest.raises(Refused):
        await peek(ours, lambda seen: 1000, 100, SOON)


async def test_a_last_word_arrives(pair: tuple[socket.socket, socket.socket]) -> None:
    client, ours = pair
    last_word(ours, b"no")
    assert client.recv(10) == b"no"
    assert client.recv(10) == b""
    last_word(ours, b"again")  # says nothing any more, and does not fail


async def test_a_reset_is_one(pair: tuple[socket.socket, socket.socket]) -> None:
    client, ours = pair
    reset(ours)
    with pytest.raises(ConnectionResetError):
        client.recv(10)
    reset(ours)
