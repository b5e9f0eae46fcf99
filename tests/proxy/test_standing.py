"""Standing streams: held as long as the client likes, bounded, and told of changes once each."""

import asyncio
from typing import Any

import pytest

from taskgrant.errors import Refused
from taskgrant.model.call import Call, Caller, Kind
from taskgrant.model.ids import CallId
from taskgrant.proxy.standing import Standing

CALL = Call(CallId("call-1"), "mcp", "tools", "GET", Kind.STREAM, session="s")


class Client:
    """One that reads what it is sent, until ``gone``."""

    def __init__(self, handle: str = "a") -> None:
        self.caller = Caller(1, "gateway", handle)
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()
        self.gone = False
        self.ended = ""

    async def begin(self, status: int, headers: Any) -> None:
        if self.gone:
            raise ConnectionResetError

    async def write(self, data: bytes) -> None:
        if self.gone:
            raise ConnectionResetError
        self.sent.put_nowait(data)

    async def end(self, how: str) -> None:
        self.ended = how


class Streams:
    def __init__(self, most: int = 8, keepalive: float = 300.0) -> None:
        self.view: Any = 0
        self.standing = Standing(lambda caller, server: self.view, most, keepalive)
        self.tasks: list[asyncio.Task[None]] = []

    async def open(self, client: Client, changed: bytes = b"changed", first: bytes = b"") -> None:
        serving = self.standing.serve(client, CALL, first, changed)  # type: ignore[arg-type]
        self.tasks.append(asyncio.create_task(serving))
        assert await client.sent.get() == first or b": keep-alive\n\n"


@pytest.fixture
async def streams():
    streams = Streams()
    yield streams
    for task in streams.tasks:
        task.cancel()
    await asyncio.gather(*streams.tasks, return_exceptions=True)
    assert len(streams.standing) == 0


async def test_told_of_changes_and_of_nothing_else(streams):
    client = Client()
    await streams.open(client)
    streams.standing.notify()
    streams.view = 1
    streams.standing.notify()
    streams.standing.notify()
    assert await client.sent.get() == b"changed"
    streams.view = 2
    streams.standing.notify()
    assert await client.sent.get() == b"changed"
    assert client.sent.empty()


async def test_one_that_does_not_ask_is_not_told(streams):
    client = Client()
    await streams.open(client, changed=b"")
    streams.view = 1
    streams.standing.notify()
    (stream,) = streams.standing._streams
    assert stream.queue.empty()


async def test_one_that_does_not_read_takes_no_more_room(streams):
    client = Client()
    await streams.open(client)
    (stream,) = streams.standing._streams
    for view in range(200):  # without giving it the time to be sent
        streams.view = view + 1
        streams.standing.notify()
    assert stream.queue.full()


async def test_too_many(streams):
    for _ in range(8):
        await streams.open(Client())
    with pytest.raises(Refused) as refused:
        await streams.standing.serve(Client(), CALL, b"", b"")
    assert refused.value.code == "overloaded"


async def test_found_by_server_session_handle_and_uid(streams):
    await streams.open(Client("a"))
    find = streams.standing.find
    assert find(Caller(1, "gateway", "a"), "tools", "s") is not None
    assert find(Caller(1, "gateway", "b"), "tools", "s") is None
    assert find(Caller(2, "gateway", "a"), "tools", "s") is None
    assert find(Caller(1, "gateway", "a"), "desk", "s") is None
    assert find(Caller(1, "gateway", "a"), "tools", None) is None


async def test_a_quiet_stream_is_kept_alive_until_the_client_is_gone():
    streams, client = Streams(keepalive=0.01), Client()
    await streams.open(client, first=b"first")
    assert await client.sent.get() == b": keep-alive\n\n"
    client.gone = True
    await asyncio.wait_for(streams.tasks[0], 10)
    assert client.ended == "abort"
    assert len(streams.standing) == 0
