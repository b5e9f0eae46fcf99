"""HTTP/2 of the agent, on a real listener: each stream is an exchange, and none of what floods it comes through."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from h2.errors import ErrorCodes
from hpack import Encoder

from taskgrant.errors import Refused
from taskgrant.model.call import Answer, Caller, Refusal
from taskgrant.model.ids import TaskId
from taskgrant.model.ports import Exchange
from taskgrant.protocols.http2 import PREFACE
from taskgrant.wire.config import ListenConfig
from taskgrant.wire.dispatching import DispatchingListener
from tests.wire.http2.client import talking
from tests.wire.support import SOON

LIMIT = 1 << 20
STREAMS = 10


@dataclass
class World:
    """``handler`` may be replaced by a test."""

    handler: Callable[[Exchange], Awaitable[None]]
    listener: DispatchingListener = field(init=False)
    port: int = 0
    served: list[Exchange] = field(default_factory=list)
    refused: list[tuple[Caller, Refusal]] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, exchange: Exchange) -> None:
        self.served.append(exchange)
        self.reached.set()
        try:
            await self.handler(exchange)
        finally:
            self.over.set()

    def on_refused(self, caller: Caller, refusal: Refusal) -> None:
        self.refused.append((caller, refusal))

    @property
    def codes(self) -> list[str]:
        return [refusal.code for _, refusal in self.refused]


async def echo(exchange: Exchange) -> None:
    """Answers with the body; ``/large`` with a mebibyte; ``/wait`` not at all."""
    try:
        body = await exchange.body(LIMIT)
    except Refused as refused:
        await exchange.answer(Answer(413, "text/plain", refused.code.encode()))
        return
    match exchange.head.path:
        case "/large":
            await exchange.begin(200, (("content-type", "text/plain"),))
            for _ in range(16):
                await exchange.write(bytes(1 << 16))
            await exchange.end("clean")
        case "/wait":
            await asyncio.Event().wait()
        case _:
            await exchange.answer(Answer(200, "text/plain", body or exchange.head.path.encode()))


@asynccontextmanager
async def running(
    handler: Callable[[Exchange], Awaitable[None]] = echo, **settings: Any
) -> AsyncIterator[World]:
    world = World(handler)
    listener = DispatchingListener(
        "proxy", "127.0.0.1:0", world.serve, ListenConfig(**{"http2_streams": STREAMS, **settings}),
        frozenset({os.getuid()}), world.on_refused, admit=lambda host, port: None,
    )  # fmt: skip
    world.listener = listener
    _, world.port = await listener.start()
    try:
        yield world
    finally:
        await asyncio.wait_for(listener.stop(0.1), SOON)


async def test_streams_are_exchanges_each_and_are_answered_in_any_order() -> None:
    async with running() as world, talking(world.port) as client:
        waiting = client.ask(client.fields("/first", "POST"), end=False)
        streams = [client.ask(client.fields(f"/{number}")) for number in range(STREAMS - 1)]
        for number, stream in enumerate(streams):
            answered = await client.answer(stream)
            assert (answered.status, answered.text) == (200, f"/{number}")
        await client.upload(waiting, b"late")
        assert (await client.answer(waiting)).body == b"late"
        assert len(world.served) == STREAMS
        destination = world.served[-1].destination
        assert (destination.way, destination.name, world.refused) == ("absolute", "a.example", [])


async def test_a_tunnel_is_for_one_server_on_every_stream() -> None:
    async with running() as world, talking(world.port, tunnel="a.example:80") as client:
        assert (await client.get("/")).status == 200
        answered = await client.get("/", authority="b.example")
        assert (answered.status, json.loads(answered.body)["code"]) == (421, "misdirected")
        assert (await client.get("/")).status == 200
        assert [exchange.destination.way for exchange in world.served] == ["connect", "connect"]
        assert world.codes == ["misdirected"]


REFUSED: dict[str, tuple[list[tuple[str, str]], str]] = {
    "two handles": ([("taskgrant-task", "one"), ("proxy-authorization", "Bearer two")], "handle_invalid"),
    "a name with an underscore": ([("x_a", "b")], "malformed"),
    "an upgrade": ([("http2-settings", "AAMAAABk")], "unsupported"),
    "another host": ([("host", "b.example")], "goaway"),
    "a connection's header": ([("connection", "close")], "goaway"),
    "a transfer encoding": ([("transfer-encoding", "chunked")], "goaway"),
    "two lengths": ([("content-length", "0"), ("content-length", "0")], "malformed"),
    "a length that is none": ([("content-length", "0x0")], "goaway"),
    "a name in capitals": ([("X-A", "b")], "goaway"),
    "extended CONNECT": ([(":protocol", "websocket")], "goaway"),
    "a pseudo-header twice": ([(":path", "/")], "goaway"),
    "a header in the middle": ([("x-a", "b\r\nc: d")], "goaway"),
}


@pytest.mark.parametrize(("more", "code"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_no_request_is_refused_and_on_record(more: list[tuple[str, str]], code: str) -> None:
    async with running() as world, talking(world.port) as client:
        stream = client.ask(client.fields("/", "GET", *more))
        if code == "goaway":
            assert await client.gone() == ErrorCodes.PROTOCOL_ERROR
            assert world.codes == ["malformed"]
        else:
            answered = await client.answer(stream)
            assert (json.loads(answered.body)["code"], world.codes) == (code, [code])
        assert world.served == []


async def test_a_body_past_the_limit_ends_its_stream_alone() -> None:
    async with running() as world, talking(world.port) as client:
        declared = client.ask(client.fields("/", "POST", ("content-length", str(LIMIT + 1))), end=False)
        answered = await client.answer(declared)
        assert (answered.status, answered.text) == (413, "too_large")
        sent = client.ask(client.fields("/", "POST"), end=False)
        with contextlib.suppress(Exception):  # the stream is reset while it is sent
            await client.upload(sent, bytes(LIMIT + 1))
        assert (await client.answer(sent)).status == 413
        whole = client.ask(client.fields("/", "POST"), end=False)
        await client.upload(whole, bytes(LIMIT))
        assert len((await client.answer(whole)).body) == LIMIT


async def test_a_body_that_is_not_read_stops_at_the_window_and_leaves_room_when_it_is_dropped() -> None:
    async def refuse(exchange: Exchange) -> None:
        await world.open.wait()
        await exchange.answer(Answer(200, "text/plain", b"no"))

    async with running(refuse) as world, talking(world.port) as client:
        stream = client.ask(client.fields("/", "POST"), end=False)
        for _ in range(4):
            client.h2.send_data(stream, bytes(min(16384, client.h2.local_flow_control_window(stream))))
        client.flush()
        assert client.h2.local_flow_control_window(stream) == 0
        world.open.set()
        assert (await client.answer(stream)).status == 200
        while client.h2.outbound_flow_control_window < 1 << 15:
            await client.more()
        assert (await client.get("/")).status == 200


async def test_an_answer_waits_for_a_client_that_does_not_take_it() -> None:
    async with running() as world, talking(world.port) as client:
        client.window = False
        stream = client.ask(client.fields("/large"))
        while len(client.streams[stream].body) < 65535:
            await client.more()
        assert not world.over.is_set()
        client.window = True
        client.h2.increment_flow_control_window(1 << 21)
        client.h2.increment_flow_control_window(1 << 21, stream)
        client.flush()
        assert len((await client.answer(stream)).body) == 1 << 20


async def test_a_head_and_a_stream_without_a_body() -> None:
    async with running() as world, talking(world.port) as client:
        answered = await client.get("/some", method="HEAD")
        assert (answered.status, answered.headers["content-length"], answered.text) == (200, "5", "")
        assert world.refused == []


async def test_a_cut_is_a_reset_of_its_stream_alone() -> None:
    async def cut(exchange: Exchange) -> None:
        if exchange.head.path != "/cut":
            await echo(exchange)
            return
        await exchange.begin(200, (("content-type", "text/event-stream"),))
        await exchange.write(b"data: 1\n\n")
        await exchange.end("abort")

    async with running(cut) as world, talking(world.port) as client:
        answered = await client.get("/cut")
        assert (answered.reset, answered.text) == (ErrorCodes.INTERNAL_ERROR, "data: 1\n\n")
        assert (await client.get("/other")).body == b"/other"


async def test_a_write_that_is_cut_short_is_finished_before_the_last_word() -> None:
    async def stream(exchange: Exchange) -> None:
        await exchange.begin(200, (("content-type", "text/event-stream"),))
        writing = asyncio.create_task(exchange.write(b"a" * 100_000))
        await world.open.wait()
        writing.cancel()
        assert exchange.streaming
        await exchange.finish_within(b"last", SOON)

    async with running(stream) as world, talking(world.port) as client:
        client.window = False
        asked = client.ask(client.fields("/"))
        while len(client.streams[asked].body) < 65535:
            await client.more()
        world.open.set()
        client.h2.increment_flow_control_window(1 << 20)
        client.h2.increment_flow_control_window(1 << 20, asked)
        client.flush()
        assert bytes((await client.answer(asked)).body) == b"a" * 100_000 + b"last"
        assert client.streams[asked].ended


async def test_a_last_word_that_is_not_taken_in_time_is_a_reset() -> None:
    async def stream(exchange: Exchange) -> None:
        await exchange.begin(200, ())
        await exchange.finish_within(bytes(100_000), 0.05)

    async with running(stream) as world, talking(world.port) as client:
        client.window = False
        assert (await client.get("/")).reset == ErrorCodes.INTERNAL_ERROR
        assert world.over.is_set()


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_handler_ends_when_its_client_leaves(how: str) -> None:
    async with running() as world, talking(world.port) as client:
        stream = client.ask(client.fields("/wait"))
        await asyncio.wait_for(world.reached.wait(), SOON)
        if how == "reset":
            client.h2.reset_stream(stream)
            client.flush()
        else:
            client.writer.transport.abort()
        await asyncio.wait_for(world.over.wait(), SOON)
        assert how == "close" or (await client.get("/after")).status == 200


async def test_a_handler_that_fails_is_answered() -> None:
    async def fail(exchange: Exchange) -> None:
        raise ValueError("wrong")

    async with running(fail) as world, talking(world.port) as client:
        answered = await client.get("/")
        assert (answered.status, b"wrong" in answered.body) == (500, False)
        assert world.codes == ["invalid"]


async def test_dropped_streams_count_until_they_are_over_here() -> None:
    """Rapid reset: the client has none open by its own count, and gets no more of them for it."""

    async def stubborn(exchange: Exchange) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await world.open.wait()
            raise

    async with running(stubborn) as world, talking(world.port) as client:
        streams = [client.ask(client.fields("/")) for _ in range(STREAMS)]
        while len(world.served) < STREAMS:
            world.reached.clear()
            await asyncio.wait_for(world.reached.wait(), SOON)
        for stream in streams:
            client.h2.reset_stream(stream)
        client.flush()
        answered = await client.get("/")
        assert (answered.reset, len(world.served)) == (ErrorCodes.REFUSED_STREAM, STREAMS)
        world.open.set()


def raw_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def request(stream: int, *, end: int = 1) -> bytes:
    fields = [
        (":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", "/wait"),
    ]  # fmt: skip
    return raw_frame(1, 4 | end, stream, Encoder().encode(fields))


_BEGUN = raw_frame(1, 0, 1, b"")
FLOODS = {
    "resets": (
        b"".join(request(2 * n + 1) + raw_frame(3, 0, 2 * n + 1, bytes(4)) for n in range(5000)),
        "overloaded",
    ),
    "pings": (raw_frame(6, 0, 0, bytes(8)) * 20_000, "overloaded"),
    "settings": (raw_frame(4, 0, 0) * 20_000, "overloaded"),
    "windows": (raw_frame(8, 0, 0, b"\0\0\0\1") * 20_000, "overloaded"),
    "priorities": (raw_frame(2, 0, 1, b"\0\0\0\3\1") * 20_000, "overloaded"),
    "empty data": (request(1, end=0) + raw_frame(0, 0, 1) * 20_000, "overloaded"),
    "unknown frames": (raw_frame(99, 0, 0) * 20_000, "overloaded"),
    "continuations": (_BEGUN + raw_frame(9, 0, 1) * 20_000, "overloaded"),
    "large continuations": (_BEGUN + raw_frame(9, 0, 1, bytes(16384)) * 100, "malformed"),
    "a bomb of headers": (
        raw_frame(1, 5, 1, b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000 + b"\xbe" * 10_000),
        "malformed",
    ),
    "streams": (b"".join(request(2 * n + 1) for n in range(STREAMS + 1)), "overloaded"),
    "a long frame": ((1 << 23).to_bytes(3, "big") + bytes(6), "malformed"),
    "no preface": (b"", "malformed"),
    "a push": (raw_frame(5, 4, 1, b"\0\0\0\2"), "malformed"),
}


@pytest.mark.parametrize(("flood", "code"), FLOODS.values(), ids=FLOODS.keys())
async def test_a_flood_ends_its_connection_and_is_on_record_once(flood: bytes, code: str) -> None:
    async with running() as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        preface = PREFACE if flood else b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"
        writer.write(preface + raw_frame(4, 0, 0) + flood)
        with contextlib.suppress(ConnectionError):
            while await asyncio.wait_for(reader.read(1 << 16), SOON):
                pass
        writer.transport.abort()
        assert world.codes == [code]
        async with talking(world.port) as client:
            assert (await client.get("/")).status == 200


async def test_who_does_not_read_is_not_read() -> None:
    """A client that reads nothing cannot make the sidecar hold more than the transport's buffer."""
    async with running() as world, talking(world.port) as client:
        client.window = False
        client.h2.increment_flow_control_window((1 << 31) - 1 - 65535)
        client.h2.update_settings({4: (1 << 31) - 1})
        client.flush()
        for _ in range(STREAMS):
            client.ask(client.fields("/large"))
        await client.writer.drain()
        await asyncio.wait_for(world.reached.wait(), SOON)
        for stream in list(client.streams):
            assert len((await client.answer(stream)).body) == 1 << 20


@pytest.mark.parametrize("busy", [False, True])
async def test_a_connection_ends_with_the_task_of_its_last_call(busy: bool) -> None:
    """At once, or when the streams that are at work are over."""
    ended, other = TaskId("task-ended"), TaskId("task-other")

    async def serve(exchange: Exchange) -> None:
        exchange.serves(TaskId(exchange.head.path[1:]))
        world.reached.set()
        if exchange.head.method == "POST":
            await world.open.wait()
        await exchange.answer(Answer(200, "text/plain", b"ok"))

    async with running(serve) as world, talking(world.port) as mine, talking(world.port) as others:
        assert (await others.get(f"/{other}")).status == 200
        world.reached.clear()
        stream = mine.ask(mine.fields(f"/{ended}", "POST" if busy else "GET"))
        await asyncio.wait_for(world.reached.wait(), SOON)
        if not busy:
            await mine.answer(stream)
            await asyncio.wait_for(world.over.wait(), SOON)
        world.listener.end_of([ended])
        world.open.set()
        assert (await mine.answer(stream)).status == 200
        assert await mine.gone() == ErrorCodes.NO_ERROR
        assert (await others.get(f"/{other}")).status == 200


async def test_time_without_a_stream_is_bounded() -> None:
    async with running(keepalive_timeout=0.2) as world, talking(world.port) as client:
        assert (await client.get("/")).status == 200
        client.h2.ping(bytes(8))
        client.flush()
        assert await client.gone() == ErrorCodes.NO_ERROR
        assert world.refused == []
    async with running(head_timeout=0.2) as world, talking(world.port) as client:
        assert await client.gone() == ErrorCodes.NO_ERROR


async def test_a_stop_lets_streams_end_and_then_ends_them() -> None:
    async with running() as world:
        async with talking(world.port) as client:
            client.ask(client.fields("/wait"))
            await asyncio.wait_for(world.reached.wait(), SOON)
        await asyncio.wait_for(world.over.wait(), SOON)
