"""A real listener, spoken to in raw bytes: who may speak to it, what is refused, and what a handler can do."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from taskgrant.errors import ConfigurationError, Refused
from taskgrant.model.call import Answer
from taskgrant.model.ids import TaskId
from taskgrant.model.ports import Exchange
from taskgrant.wire.config import ListenConfig
from taskgrant.wire.listener import Listener
from taskgrant.wire.serving import Handler
from tests.wire.support import SOON

LIMIT = 1000
US = frozenset({os.getuid()})


class Server:
    def __init__(self, listener: Listener, port: int, seen: list[Exchange], bodies: list[bytes]) -> None:
        self.listener = listener
        self.port = port
        self.seen = seen
        self.bodies = bodies

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def talk(self, data: bytes) -> bytes:
        """Everything that comes back until the server closes."""
        reader, writer = await self.dial()
        try:
            writer.write(data)
            return await asyncio.wait_for(read_all(reader), SOON)
        finally:
            writer.transport.abort()

    def request(
        self, *headers: str, target: str = "/mail/mcp", method: str = "POST", body: bytes = b""
    ) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode() + body


async def read_all(reader: asyncio.StreamReader) -> bytes:
    data = bytearray()
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            data += chunk
    return bytes(data)


@asynccontextmanager
async def listening(
    handler: Handler | None = None, name: str = "gateway", uids: frozenset[int] = US, **settings: Any
) -> AsyncIterator[Server]:
    seen: list[Exchange] = []
    bodies: list[bytes] = []

    async def read_and_answer(exchange: Exchange) -> None:
        seen.append(exchange)
        try:
            bodies.append(await exchange.body(LIMIT))
        except Refused as refused:
            await exchange.answer(Answer(400, "text/plain", refused.code.encode()))
        else:
            await exchange.answer(Answer(200, "text/plain", b"ok:" + bodies[-1], (("x-a", "b"),)))

    listener = Listener(name, "127.0.0.1:0", handler or read_and_answer, ListenConfig(**settings), uids)
    _, port = await listener.start()
    try:
        yield Server(listener, port, seen, bodies)
    finally:
        await asyncio.wait_for(listener.stop(0.1), SOON)


def code(raw: bytes) -> str:
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"connection: close" in head.lower()
    found: str = json.loads(body)["code"]
    return found


async def test_a_request_and_its_answer() -> None:
    async with listening() as server:
        raw = await server.talk(server.request("Connection: close", "Taskgrant-Task: h", body=b"hi"))
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"ok:hi"
    assert b"x-a: b" in head
    assert b"server: taskgrant" in head.lower()
    (exchange,) = server.seen
    assert (exchange.caller.uid, exchange.caller.listener, exchange.caller.handle) == (
        os.getuid(),
        "gateway",
        "h",
    )
    assert (exchange.destination.name, exchange.head.path) == ("mail", "/mcp")


async def test_each_request_of_a_connection_is_its_own_exchange() -> None:
    async with listening() as server:
        pipelined = server.request("Taskgrant-Task: one", body=b"1") + server.request(
            "Connection: close", body=b"2"
        )
        raw = await server.talk(pipelined)
    assert server.bodies == [b"1", b"2"]
    assert [exchange.caller.handle for exchange in server.seen] == ["one", None]
    assert raw.index(b"ok:1") < raw.index(b"ok:2")


# {v1} ends a request line and names our host.
SMUGGLED = {
    "two lengths": "POST /mail/mcp {v1}Content-Length: 0\r\nContent-Length: 5\r\n\r\nGET /",
    "length and chunks": "POST /mail/mcp {v1}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip, chunked": "POST /mail/mcp {v1}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ", chunked": "POST /mail/mcp {v1}Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "underscore": "POST /mail/mcp {v1}Transfer_Encoding: chunked\r\n\r\n",
    "HTTP/1.0 chunks": "POST /mail/mcp HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "plus sign": "POST /mail/mcp {v1}Content-Length: +2\r\n\r\nab",
    "space before colon": "POST /mail/mcp {v1}Content-Length : 2\r\n\r\nab",
    "folded header": "POST /mail/mcp {v1}A: b\r\n c\r\n\r\n",
    "bare LF": "POST /mail/mcp HTTP/1.1\nHost: {host}\n\n",
    "two hosts": "POST /mail/mcp {v1}Host: {host}\r\n\r\n",
    "no host": "POST /mail/mcp HTTP/1.1\r\n\r\n",
    "upgrade": "GET /mail/mcp {v1}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /mail/x {v1}\r\n",
    "h2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": "CONNECT tool:443 HTTP/1.1\r\nHost: tool:443\r\n\r\n",
    "TRACE": "TRACE /mail/mcp {v1}\r\n",
    "absolute on the gateway": "GET http://{host}/mail/mcp {v1}\r\n",
    "asterisk": "OPTIONS * {v1}\r\n",
    "fragment": "GET /mail/mcp#a {v1}\r\n",
    "other expectation": "POST /mail/mcp {v1}Expect: magic\r\nContent-Length: 2\r\n\r\nab",
    "NUL": "POST /mail/mcp {v1}A: b\0c\r\n\r\n",
    "other host": "POST /mail/mcp HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "other origin": "POST /mail/mcp {v1}Origin: http://evil.example\r\n\r\n",
    "TLS": "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
}


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_offer_to_go_on_in_http2_is_declined_and_nothing_after_it_is_read(method: str) -> None:
    async with listening() as server:
        offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
        raw = await server.talk(server.request(*offer, method=method) + server.request())
    assert len(server.seen) == 1
    assert raw.startswith(b"HTTP/1.1 200")
    assert raw.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("name", SMUGGLED)
async def test_what_no_handler_ever_sees(name: str) -> None:
    async with listening() as server:
        host = f"127.0.0.1:{server.port}"
        innocent = server.request("Connection: close").decode()
        raw = await server.talk(
            (SMUGGLED[name].format(host=host, v1=f"HTTP/1.1\r\nHost: {host}\r\n") + innocent).encode(
                "latin-1"
            )
        )
        assert server.seen == []
    assert raw[:12] in (b"HTTP/1.1 400", b"HTTP/1.0 400", b"HTTP/1.1 403", b"HTTP/1.1 501")
    assert raw.count(b"HTTP/1.") == 1  # and nothing of what followed it was answered


async def test_a_process_that_is_not_the_agent_s() -> None:
    async with listening(uids=frozenset({os.getuid() + 1})) as server:
        raw = await server.talk(server.request() * 2)
        assert server.seen == []
    assert raw.startswith(b"HTTP/1.1 403")
    assert code(raw) == "peer_refused"


async def test_the_proxy_speaks_absolute_form_only() -> None:
    async with listening(name="proxy") as server:
        good = b"GET http://tool.example/x HTTP/1.1\r\nHost: tool.example\r\nConnection: close\r\n\r\n"
        assert b"200 OK" in await server.talk(good)
        assert server.seen[0].destination.name == "tool.example"
        assert code(await server.talk(server.request())) == "unsupported"
        assert len(server.seen) == 1


async def test_a_body_that_is_too_large_ends_the_connection() -> None:
    async with listening() as server:
        raw = await server.talk(server.request(body=b"x" * (LIMIT + 1)) + server.request())
        assert len(server.seen) == 1
        assert raw.endswith(b"too_large")
        chunks = b"%x\r\n" % (LIMIT + 1) + b"x" * (LIMIT + 1) + b"\r\n"
        raw = await server.talk(server.request("Transfer-Encoding: chunked") + chunks)
        assert raw.endswith(b"too_large")


async def test_a_body_that_does_not_come() -> None:
    async with listening(body_timeout=0.05) as server:
        raw = await server.talk(server.request("Content-Length: 10") + b"abc")
        assert raw.endswith(b"malformed")
        raw = await server.talk(server.request("Transfer-Encoding: chunked") + b"zz\r\n")
        assert b"400" in raw


async def test_continue_is_said_when_the_body_is_wanted() -> None:
    async with listening() as server:
        reader, writer = await server.dial()
        writer.write(server.request("Expect: 100-continue", "Content-Length: 2", "Connection: close"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert (await read_all(reader)).endswith(b"ok:hi")
        writer.close()
        raw = await server.talk(server.request("Expect: 100-continue", f"Content-Length: {LIMIT + 1}"))
        assert b"100 Continue" not in raw
        assert raw.endswith(b"too_large")


@pytest.mark.parametrize("sent", [b"", b"POST /mail/mcp HT", b"POST /mail/mcp HTTP/1.1\r\nHost: a\r\nX: "])
async def test_a_head_that_does_not_come(sent: bytes) -> None:
    async with listening(head_timeout=0.05) as server:
        assert await server.talk(sent) == b""
        assert server.seen == []


async def test_connections_are_bounded() -> None:
    async with listening(max_connections=1) as server:
        reader, writer = await server.dial()
        writer.write(server.request())
        await reader.readuntil(b"ok:")
        assert await server.talk(server.request()) == b""
        writer.transport.abort()
        assert len(server.seen) == 1


ENDED, OTHER = TaskId("task-ended"), TaskId("task-other")


@pytest.mark.parametrize(("name", "ends"), [("proxy", True), ("gateway", False)])
async def test_a_connection_ends_with_the_task_of_its_last_call(name: str, ends: bool) -> None:
    """At once where no request is under way; another task's, and the gateway's, go on."""

    async def serve(exchange: Exchange) -> None:
        for task in (exchange.head.get("x-tasks") or "").split():
            exchange.serves(TaskId(task))
        await exchange.answer(Answer(200, "text/plain", b"ok"))

    async with listening(serve, name) as server:
        target = f"http://127.0.0.1:{server.port}/mail/mcp" if name == "proxy" else "/mail/mcp"

        async def ask(tasks: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await server.dial()
            writer.write(server.request(f"X-Tasks: {tasks}", target=target))
            assert b"200 OK" in await reader.readuntil(b"ok")
            return reader, writer

        # Before it is closed, each has been asked once more than the last one that is told to end.
        ended, other, moved, nobodys = [await ask(each) for each in (ENDED, OTHER, f"{ENDED} {OTHER}", "")]
        server.listener.end_of([ENDED])
        for (reader, writer), open_ in ((ended, not ends), (other, True), (moved, True), (nobodys, True)):
            if not open_:
                assert await asyncio.wait_for(reader.read(), SOON) == b""
            else:
                writer.write(server.request(target=target))
                assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"ok"), SOON)
            writer.transport.abort()


async def test_an_answer_that_is_under_way_is_its_connections_last() -> None:
    begun, told = asyncio.Event(), asyncio.Event()
    calls = 0

    async def serve(exchange: Exchange) -> None:
        nonlocal calls
        calls += 1
        exchange.serves(ENDED)
        begun.set()
        await told.wait()
        await exchange.answer(Answer(200, "text/plain", b"ok"))

    async with listening(serve, "proxy") as server:
        reader, writer = await server.dial()
        request = server.request(target=f"http://127.0.0.1:{server.port}/mail/mcp")
        writer.write(request * 2)
        await asyncio.wait_for(begun.wait(), SOON)
        server.listener.end_of([ENDED])
        told.set()
        raw = await asyncio.wait_for(read_all(reader), SOON)
        writer.transport.abort()
    assert raw.count(b"200 OK") == calls == 1
    assert b"connection: close" in raw.lower()


async def test_a_handler_that_fails_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(exchange: Exchange) -> None:
        raise LookupError("a secret")

    async def forget(exchange: Exchange) -> None:
        """Gives no answer."""

    for handler in (fail, forget):
        async with listening(handler) as server:
            raw = await server.talk(server.request())
        assert raw.startswith(b"HTTP/1.1 500")
        assert b"secret" not in raw
        assert code(raw)
    assert "a secret" in caplog.text


async def test_a_stream_that_ends_well_and_one_that_is_aborted() -> None:
    async def stream(exchange: Exchange) -> None:
        await exchange.begin(200, (("content-type", "text/event-stream"),))
        assert exchange.streaming
        await exchange.write(b"data: 1\n\n")
        if exchange.head.path == "/abort":
            await exchange.end("abort")
        elif exchange.head.path == "/fail":
            raise LookupError
        else:
            await exchange.finish_within(b"data: last\n\n", 1.0)
        assert not exchange.streaming

    async with listening(stream) as server:
        raw = await server.talk(server.request("Connection: close"))
        assert b"data: last\n\n" in raw
        assert raw.endswith(b"0\r\n\r\n")
        for path in ("/mail/abort", "/mail/fail"):
            assert not (await server.talk(server.request(target=path))).endswith(b"0\r\n\r\n")


async def test_a_reader_that_does_not_read_holds_the_writer_and_not_the_end() -> None:
    blocked, ended = asyncio.Event(), asyncio.Event()

    async def flood(exchange: Exchange) -> None:
        await exchange.begin(200, (("content-type", "text/event-stream"),))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while True:
                    await exchange.write(b"x" * 65536)
        blocked.set()
        await exchange.finish_within(b"data: last\n\n", 0.05)
        ended.set()

    async with listening(flood) as server:
        _, writer = await server.dial()
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(server.request())
        await asyncio.wait_for(blocked.wait(), SOON)
        await asyncio.wait_for(ended.wait(), SOON)
        writer.transport.abort()


async def test_a_client_that_goes_away_ends_its_handler() -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(exchange: Exchange) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with listening(wait) as server:
        _, writer = await server.dial()
        writer.write(server.request())
        await asyncio.wait_for(began.wait(), SOON)
        writer.transport.abort()
        await asyncio.wait_for(cancelled.wait(), SOON)


async def test_answers_without_a_body() -> None:
    async def head(exchange: Exchange) -> None:
        await exchange.begin(200, ())
        await exchange.write(b"not for HEAD")
        await exchange.end("clean")

    async with listening(head) as server:
        raw = await server.talk(server.request("Connection: close", method="HEAD"))
    assert b"not for HEAD" not in raw
    assert raw.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "bind", ["0.0.0.0:1", "10.0.0.1:1", "example.org:1", "127.0.0.1", "127.0.0.1:x", "[::]:1", ":1"]
)
def test_addresses_that_are_not_loopback(bind: str) -> None:
    async def handler(exchange: Exchange) -> None:
        """Never called."""

    with pytest.raises(ConfigurationError):
        Listener("gateway", bind, handler, ListenConfig(), US)
