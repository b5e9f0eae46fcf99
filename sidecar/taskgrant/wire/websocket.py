"""WebSocket between two connections: the bytes of each once it has changed its protocol, and messages from one to the
other.

    agent ── Duplex → Frames(server) ── whole messages → Frames(client) → Duplex ── tool
          ←──────── pings are answered on the side that they came from; a close is passed on ────────

Each direction reads the next message when the last one was taken: what is held is one buffer of a connection, one
message, and what the other side's transport has not sent.
"""

import asyncio
import base64
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_proto import ResponseHandler
from aiohttp.web_protocol import RequestHandler

from taskgrant.errors import Refused
from taskgrant.model.call import Headers
from taskgrant.model.codes import Code
from taskgrant.model.ports import Duplex
from taskgrant.protocols.websocket import (
    Close,
    FrameFault,
    Frames,
    HandshakeFault,
    Message,
    Ping,
    check_accepted,
    opening,
)

#: Bytes that a connection may hold before it is not read any more.
_BUFFER = 1 << 16
#: Frames that are read before others get their turn.
_TURN = 64
#: How long the other side may take to answer a close, and to let go of the connection.
_CLOSE_SECONDS = 5.0
_LEAVE_SECONDS = 1.0


class Stream:
    """``ports.Duplex`` over a connection of aiohttp's that has changed its protocol: it takes the parser's place."""

    def __init__(self, protocol: BaseProtocol) -> None:
        self._protocol = protocol
        self._transport = protocol.transport
        self._buffer = bytearray()
        self._ended = protocol.transport is None
        self._paused = False
        self._more = asyncio.Event()

    @classmethod
    def of_server(cls, protocol: RequestHandler) -> "Stream":
        """Bytes that a client has sent after its handshake are read first."""
        stream = cls(protocol)
        protocol.set_parser(stream)  # type: ignore[arg-type]  # asks for no more than these two methods
        return stream

    @classmethod
    def of_client(cls, protocol: ResponseHandler) -> "Stream":
        stream = cls(protocol)
        protocol.set_parser(stream, None)
        return stream

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """From the connection; never says that it is over."""
        self._buffer += data
        if len(self._buffer) >= _BUFFER and not self._paused:
            self._paused = True
            self._protocol.pause_reading()
        self._more.set()
        return False, b""

    def feed_eof(self) -> None:
        self._ended = True
        self._more.set()

    async def read(self) -> bytes:
        while not self._buffer and not self._ended:
            self._more.clear()
            await self._more.wait()
        data = bytes(self._buffer)
        self._buffer.clear()
        if self._paused:
            self._paused = False
            self._protocol.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        transport.write(data)
        if self._protocol.writing_paused:
            # Both directions wait for one future: one that is cancelled must not cancel it for the other.
            room = asyncio.ensure_future(self._protocol._drain_helper())
            room.add_done_callback(_heard)
            await asyncio.shield(room)

    def write_end(self) -> None:
        """Says that nothing more will be written, where the transport can."""
        if (
            self._transport is not None
            and not self._transport.is_closing()
            and self._transport.can_write_eof()
        ):
            self._transport.write_eof()

    async def drained(self) -> None:
        """Reads and throws away, until the other side is gone."""
        while await self.read():
            pass


def _heard(done: "asyncio.Future[None]") -> None:
    """Whoever waited may have been cut: then nobody else asks how it went."""
    if not done.cancelled():
        done.exception()


@dataclass(slots=True)
class Handshake:
    """The opening handshake of a client, for one request."""

    subprotocols: tuple[str, ...]
    key: str = field(default_factory=lambda: base64.b64encode(os.urandom(16)).decode())

    @property
    def headers(self) -> Headers:
        return opening(self.key, self.subprotocols)

    def accepted(self, told: Mapping[str, str], protocol: ResponseHandler) -> tuple[Stream, str | None]:
        """The connection behind a 101 and the subprotocol. Raises ``errors.Refused`` when the answer is not to this."""
        headers = tuple(told.items())
        try:
            subprotocol = check_accepted(self.key, self.subprotocols, headers)
        except HandshakeFault as fault:
            raise Refused(Code.UNSUPPORTED, f"no WebSocket can be opened: {fault}", begun=True) from fault
        return Stream.of_client(protocol), subprotocol


@dataclass(slots=True)
class Tally:
    """What has passed: whole messages, and the bytes in them."""

    messages_sent: int = 0
    bytes_sent: int = 0
    messages_received: int = 0
    bytes_received: int = 0


@dataclass(frozen=True, slots=True)
class Ending:
    """The tool's side is closed; the agent's is to be, with ``frame``."""

    frame: bytes
    left: Callable[[], Awaitable[None]]  # returns once the agent has closed too, or is gone


async def relay(agent: Duplex, tool: Duplex, limit: int, tally: Tally) -> Ending:
    """Until one side closes. The tool's side is closed then, and let go of.

    ``limit``: bytes of a message. Raises ``errors.Refused``: malformed and too_large for what a side sent,
    outcome_unknown when the tool goes without a word; ConnectionError when the agent does.
    """
    ends = _Ends(agent, tool, limit, tally)
    up = asyncio.create_task(ends.up(), name="websocket up")
    down = asyncio.create_task(ends.down(), name="websocket down")
    try:
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        if not down.done():
            up.result()  # the agent has closed, or raises
            await asyncio.wait((down,), timeout=_CLOSE_SECONDS)
        if not down.done():
            return ends.ending(Close())  # the tool does not answer to a close: it has been told
        return ends.ending(down.result())
    finally:
        up.cancel()
        down.cancel()
        await asyncio.gather(up, down, return_exceptions=True)


class _Ends:
    def __init__(self, agent: Duplex, tool: Duplex, limit: int, tally: Tally) -> None:
        self._agent = agent
        self._tool = tool
        self._agent_frames = Frames(client=False, limit=limit)
        self._tool_frames = Frames(client=True, limit=limit)
        self._tally = tally
        self._told = False  # the tool has been sent a close: nothing may follow
        self._heard = False  # the agent has sent one

    async def up(self) -> None:
        """What the agent says, until it closes."""
        try:
            close = await self._pass(self._agent, self._agent_frames, self._send)
        except FrameFault as fault:
            raise Refused(fault.code, f"the WebSocket's client: {fault}", begun=True) from fault
        if close is None:
            raise ConnectionResetError("the client is gone")
        self._heard = True
        await self._close(close)

    async def down(self) -> Close:
        """What the tool says, until it closes and is gone."""
        try:
            close = await self._pass(self._tool, self._tool_frames, self._receive)
        except FrameFault as fault:
            raise Refused(fault.code, f"the tool server's WebSocket: {fault}", begun=True) from fault
        if close is None:
            raise _broken()
        await self._close(close)
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                while await self._tool.read():
                    pass
        except TimeoutError:
            pass  # the caller drops the connection
        return close

    def ending(self, close: Close) -> Ending:
        return Ending(self._agent_frames.close(close), self._left)

    async def _left(self) -> None:
        with suppress(Refused, ConnectionError):
            if not self._heard:
                await self.up()  # which passes nothing any more

    async def _pass(
        self, source: Duplex, frames: Frames, passing: Callable[[Message], Awaitable[None]]
    ) -> Close | None:
        """None when the source ends without a close."""
        seen = 0
        while data := await source.read():
            frames.feed(data)
            for event in frames.events():
                if isinstance(event, Close):
                    return event
                if isinstance(event, Message):
                    await passing(event)
                elif isinstance(event, Ping):
                    await self._pong(source, frames.pong(event.payload))
                seen += 1
                if seen % _TURN == 0:
                    await asyncio.sleep(0)
        return None

    async def _send(self, message: Message) -> None:
        if self._told:
            return
        await self._to_tool(self._tool_frames.message(message))
        self._tally.messages_sent += 1
        self._tally.bytes_sent += message.size

    async def _receive(self, message: Message) -> None:
        await self._agent.write(self._agent_frames.message(message))
        self._tally.messages_received += 1
        self._tally.bytes_received += message.size

    async def _pong(self, source: Duplex, frame: bytes) -> None:
        if source is self._agent:
            await self._agent.write(frame)
        elif not self._told:
            await self._to_tool(frame)

    async def _close(self, close: Close) -> None:
        if not self._told:
            self._told = True
            await self._to_tool(self._tool_frames.close(close))

    async def _to_tool(self, frame: bytes) -> None:
        try:
            await self._tool.write(frame)
        except ConnectionError as gone:
            raise _broken() from gone


def _broken() -> Refused:
    reason = "the tool server's WebSocket ended without being closed; what it did is unknown"
    return Refused(Code.OUTCOME_UNKNOWN, reason, begun=True)
