"""WebSockets through the pipeline: a real client, and a tool server made of another implementation of the protocol."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as Opening
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from tests.e2e.recorder import Request
from tests.proxy.rig import Behaviour, Rig, spec
from tests.wire.support import Peer

ROOM = spec("live", "desk")
#: More than the kernel and every buffer of ours on the way hold.
BUFFERS = 64 << 20
#: What the tool server does with each frame that is not control: None ends it.
OnFrame = Callable[["Server", Frame], Awaitable[None]]


class Server:
    """The tool's end of one connection."""

    def __init__(self, peer: Peer, subprotocol: str | None) -> None:
        self.peer = peer
        self.protocol = ServerProtocol(subprotocols=[Subprotocol(subprotocol)] if subprotocol else None)
        self.frames: list[Frame] = []
        self.closed: tuple[int, str] | None = None

    async def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                await self.peer.send(data)

    async def text(self, data: str) -> None:
        self.protocol.send_text(data.encode())
        await self.flush()

    async def run(self, on_frame: OnFrame) -> None:
        while data := await self.peer.reader.read(65536):
            self.protocol.receive_data(data)
            await self.flush()
            for frame in self.protocol.events_received():
                assert isinstance(frame, Frame)
                if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                    self.frames.append(frame)
                    await on_frame(self, frame)
            await self.flush()
            if self.protocol.close_rcvd is not None:
                self.closed = (self.protocol.close_rcvd.code, self.protocol.close_rcvd.reason)
                return


async def echo(server: Server, frame: Frame) -> None:
    assert frame.fin  # what was sent in pieces comes whole
    if frame.opcode is Opcode.TEXT:
        server.protocol.send_text(frame.data)
    else:
        server.protocol.send_binary(frame.data)
    await server.flush()


def speaking(servers: list[Server], on_frame: OnFrame = echo, subprotocol: str | None = None) -> Behaviour:
    """A tool server that accepts each WebSocket."""

    async def behave(peer: Peer, request: Request) -> None:
        server = Server(peer, subprotocol)
        head = [request.line, *(f"{name}: {value}" for name, value in request.headers.items()), "", ""]
        server.protocol.receive_data("\r\n".join(head).encode())
        (opening,) = server.protocol.events_received()
        assert isinstance(opening, Opening)
        server.protocol.send_response(server.protocol.accept(opening))
        servers.append(server)
        await server.flush()
        await server.run(on_frame)
        raise ConnectionResetError

    return behave


@asynccontextmanager
async def opened(rig: Rig, path: str = "/rooms/7/live", **options: object) -> AsyncIterator[ClientConnection]:
    """A WebSocket in a task of its own with a grant for it."""
    started = await rig.start(ROOM)
    async with connecting(rig, started, path, **options) as client:
        yield client


def connecting(rig: Rig, started, path: str = "/rooms/7/live", **options):
    url = rig.gateway.replace("http", "ws", 1) + "/desk" + path
    handle = {} if started is None else {"Taskgrant-Task": started.handle}
    return websockets.connect(url, additional_headers=handle, proxy=None, **options)


@pytest.fixture
def servers(rig: Rig) -> list[Server]:
    found: list[Server] = []
    rig.behaviour = speaking(found)
    return found


async def test_messages_pass_both_ways_and_are_counted(rig, servers):
    async with opened(rig, "/rooms/7/live?since=3") as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers
        await client.send("grüße")
        assert await client.recv() == "grüße"
        await client.send(["in ", "three ", "pieces"])
        assert await client.recv() == "in three pieces"
        large = os.urandom(60000)
        await client.send(large)
        assert await client.recv() == large
        await (await client.ping())
        await client.close(4000, "enough")
    assert (client.close_code, client.close_reason) == (4000, "enough")
    (server,) = servers
    assert server.closed == (4000, "enough")
    (request,) = rig.requests
    assert request.line == "GET /rooms/7/live?since=3 HTTP/1.1"
    assert "sec-websocket-extensions" not in request.headers
    assert "sec-websocket-protocol" not in request.headers
    assert request.headers["authorization"].startswith("Bearer ")
    (settled,) = await rig.until(lambda: rig.trail.fields("call.settled"))
    assert (settled["outcome"], settled["status"]) == ("completed", 101)
    assert (settled["messages_sent"], settled["messages_received"]) == (3, 3)
    assert settled["bytes_sent"] == settled["bytes_received"] == 7 + 15 + 60000


async def test_a_subprotocol_is_what_the_client_offered_and_the_server_chose(rig):
    servers: list[Server] = []
    rig.behaviour = speaking(servers, subprotocol="v2")
    async with opened(rig, subprotocols=["v1", "v2"]) as client:
        assert client.subprotocol == "v2"
    assert rig.requests[0].headers["sec-websocket-protocol"] == "v1, v2"


async def test_a_close_of_the_server_is_the_clients(rig):
    async def bye(server: Server, frame: Frame) -> None:
        server.protocol.send_close(4001, "bye")

    servers: list[Server] = []
    rig.behaviour = speaking(servers, bye)
    async with opened(rig) as client:
        await client.send("go")
        with pytest.raises(ConnectionClosed):
            await client.recv()
    assert (client.close_code, client.close_reason) == (4001, "bye")
    assert servers[0].closed == (4001, "bye")


async def test_completing_cuts_it_with_a_reason(rig):
    received: list[bytes] = []

    async def note(server: Server, frame: Frame) -> None:
        received.append(bytes(frame.data))
        await server.text("noted")

    servers: list[Server] = []
    rig.behaviour = speaking(servers, note)
    started = await rig.start(ROOM)
    async with connecting(rig, started) as client:
        await client.send("one")
        assert await client.recv() == "noted"
        await rig.end(started)
        with contextlib.suppress(ConnectionClosed):
            await client.send("two")
        with pytest.raises(ConnectionClosedError):
            await client.recv()
    assert client.close_code == 1008
    assert (client.close_reason or "").startswith("outcome_unknown: ")
    assert "task" in (client.close_reason or "")
    assert received == [b"one"]
    (settled,) = await rig.until(lambda: rig.trail.fields("call.settled"))
    assert (settled["outcome"], settled["messages_sent"], settled["messages_received"]) == ("cut", 1, 1)
    (cut,) = await rig.until(lambda: rig.trail.fields("call.interrupted"))
    assert cut["code"] == "outcome_unknown"


@pytest.mark.parametrize(
    ("path", "grants", "code", "status"),
    [
        ("/rooms/7/live", (spec("show", "desk"),), "no_grant", 403),
        ("/rooms/7/live", None, "no_task", 403),
        ("/tickets/7", (spec("show", "desk"),), "unsupported", 400),
        ("/rooms/7/live?until=3", (ROOM,), "malformed", 400),
    ],
)
async def test_what_is_refused_opens_nothing(rig, servers, path, grants, code, status):
    started = None if grants is None else await rig.start(*grants)
    with pytest.raises(InvalidStatus) as refused:
        async with connecting(rig, started, path):
            pass
    assert refused.value.response.status_code == status
    assert f'"code":"{code}"'.encode() in refused.value.response.body.replace(b" ", b"")
    assert refused.value.response.headers["Connection"] == "close"
    assert rig.requests == []


async def test_such_an_operation_is_no_plain_request(rig, servers):
    started = await rig.start(ROOM)
    async with rig.client.get(f"{rig.gateway}/desk/rooms/7/live", headers=rig.headers(started)) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (400, "unsupported")
    assert rig.requests == []


HANDSHAKE = (
    "GET /desk{path} HTTP/1.1\r\nHost: {host}\r\nTaskgrant-Task: {handle}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
#: A masked text "x", and a request that somebody else could take it for.
BEHIND = b"\x81\x81\x00\x00\x00\x00x" + b"GET /desk/tickets/7 HTTP/1.1\r\nHost: h\r\n\r\n"


async def raw(rig: Rig, path: str, handle: str, behind: bytes) -> bytes:
    """All that comes back."""
    host = rig.gateway.removeprefix("http://")
    reader, writer = await asyncio.open_connection(*host.split(":"))
    head = HANDSHAKE.format(path=path, host=host, handle=handle).encode()
    writer.write(head + behind)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def test_bytes_behind_a_refused_handshake_are_nobodys(rig, servers):
    started = await rig.start(spec("show", "desk"))
    answer = await raw(rig, "/rooms/7/live", started.handle, BEHIND)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert rig.requests == []


@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found", b"426 Upgrade Required"])
async def test_an_answer_that_changes_nothing_is_an_answer(rig, status):
    seen = bytearray()

    async def decline(peer: Peer, request: Request) -> None:
        await peer.send(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\nno")
        seen.extend(await peer.gone())
        raise ConnectionResetError

    rig.behaviour = decline
    started = await rig.start(ROOM)
    answer = await raw(rig, "/rooms/7/live", started.handle, BEHIND)
    assert answer.startswith(b"HTTP/1.1 " + status[:4])
    assert answer.endswith(b"\r\n\r\nno")
    assert answer.count(b"HTTP/1.1") == 1
    await rig.end(started)
    assert seen == b""


GOOD = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: %s\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"upgrade: websocket\r\nconnection: upgrade\r\n",
        GOOD % b"AAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        b"upgrade: h2c\r\nconnection: upgrade\r\n",
        b"connection: upgrade\r\n",
    ],
)
async def test_a_101_that_is_not_to_this_handshake(rig, head):
    seen = bytearray()

    async def lie(peer: Peer, request: Request) -> None:
        await peer.send(b"HTTP/1.1 101 Switching Protocols\r\n" + head + b"\r\n\x81\x01y")
        seen.extend(await peer.gone())
        raise ConnectionResetError

    rig.behaviour = lie
    started = await rig.start(ROOM)
    answer = await raw(rig, "/rooms/7/live", started.handle, BEHIND)
    assert not answer.startswith(b"HTTP/1.1 101")
    assert b"\x81\x01y" not in answer
    assert seen == b""


async def test_bytes_right_behind_a_handshake_that_is_taken(rig):
    async def once(server: Server, frame: Frame) -> None:
        await echo(server, frame)
        server.protocol.send_close(1000)

    rig.behaviour = speaking([], once)
    started = await rig.start(ROOM)
    answer = await raw(rig, "/rooms/7/live", started.handle, b"\x81\x81\x00\x00\x00\x00x")
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert answer.endswith(b"\r\n\r\n\x81\x01x\x88\x02\x03\xe8")


@pytest.mark.parametrize(
    ("behind", "code"),
    [
        pytest.param(b"\x81\x01x", 1002, id="not masked"),
        pytest.param(b"\xc1\x81\x00\x00\x00\x00x", 1002, id="compressed"),
        pytest.param(b"\x81\x81\x00\x00\x00\x00\xff", 1002, id="no UTF-8"),
        pytest.param(b"\x80\x81\x00\x00\x00\x00x", 1002, id="nothing to continue"),
        pytest.param(b"\x09\x80\x00\x00\x00\x00", 1002, id="a ping in pieces"),
        pytest.param(
            b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00" + b"x" * 65537, 1009, id="oversized"
        ),
        pytest.param(b"\x02\x80\x00\x00\x00\x00" + b"\x00\x80\x00\x00\x00\x00" * 2000, 1009, id="fragments"),
    ],
)
async def test_what_is_no_websocket_is_cut(rig, servers, behind, code):
    started = await rig.start(ROOM)
    answer = await raw(rig, "/rooms/7/live", started.handle, behind)
    _, _, frames = answer.partition(b"\r\n\r\n")
    assert frames[:1] == b"\x88"
    assert int.from_bytes(frames[2:4], "big") == code
    assert servers[0].frames == []


async def test_an_oversized_message_of_the_server(rig):
    async def flood(server: Server, frame: Frame) -> None:
        server.protocol.send_binary(b"x" * 65537)

    rig.behaviour = speaking([], flood)
    async with opened(rig) as client:
        await client.send("go")
        with pytest.raises(ConnectionClosedError):
            await client.recv()
    assert client.close_code == 1009


async def test_a_server_that_goes_without_a_word(rig):
    async def go(server: Server, frame: Frame) -> None:
        raise ConnectionResetError

    rig.behaviour = speaking([], go)
    async with opened(rig) as client:
        await client.send("go")
        with pytest.raises(ConnectionClosedError):
            await client.recv()
    assert client.close_code == 1008
    assert (client.close_reason or "").startswith("outcome_unknown: ")


async def test_a_client_that_goes_takes_the_servers_end_with_it(rig, servers):
    client = await connecting(rig, await rig.start(ROOM))
    client.transport.abort()
    (settled,) = await rig.until(lambda: rig.trail.fields("call.settled"))
    assert settled["outcome"] == "cut"
    await rig.until(lambda: servers[0].peer.reader.at_eof() or servers[0].peer.reader.exception())


async def poured(send: Callable[[], Awaitable[None]], chunk: int) -> int:
    """Sends until it has to wait: how many bytes the buffers on the way took. What waits is left to its end."""
    sent = 0
    while sent < BUFFERS:
        sending = asyncio.ensure_future(send())
        done, _ = await asyncio.wait((sending,), timeout=0.5)
        if not done:
            sending.add_done_callback(lambda over: over.cancelled() or over.exception())
            break
        sent += chunk
    return sent


async def test_a_client_that_does_not_read_holds_the_server_back(rig):
    taken = asyncio.get_running_loop().create_future()

    async def flood(server: Server, frame: Frame) -> None:
        async def send() -> None:
            server.protocol.send_binary(b"x" * 32768)
            await server.flush()

        taken.set_result(await poured(send, 32768))

    rig.behaviour = speaking([], flood)
    started = await rig.start(ROOM)
    async with connecting(rig, started, max_queue=1, close_timeout=0.1) as client:
        await client.send("go")
        assert await asyncio.wait_for(taken, 30) < BUFFERS
        await rig.end(started)


async def test_a_server_that_does_not_read_holds_the_client_back(rig):
    over = asyncio.Event()

    async def sleep(server: Server, frame: Frame) -> None:
        await over.wait()

    rig.behaviour = speaking([], sleep)
    started = await rig.start(ROOM)
    host = rig.gateway.removeprefix("http://")
    reader, writer = await asyncio.open_connection(*host.split(":"))
    writer.write(HANDSHAKE.format(path="/rooms/7/live", host=host, handle=started.handle).encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")

    async def send() -> None:
        writer.write(b"\x82\xfe\x7f\xff\x00\x00\x00\x00" + b"x" * 32767)
        await writer.drain()

    assert await poured(send, 32767) < BUFFERS
    await rig.end(started)
    over.set()
    assert (await reader.read())[:1] in (b"\x88", b"")  # it may be too busy writing to be told
    writer.close()
