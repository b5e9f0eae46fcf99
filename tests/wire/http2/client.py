"""A client by its frames: h2 at the other end, and bytes of one's own where h2 would not say them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from tests.wire.support import SOON

Fields = list[tuple[str, str]]


@dataclass
class Answered:
    """What has come back on a stream."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.headers[":status"])

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


class Client:
    """``window``: whether what comes is acknowledged, so that more may come."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, scheme: str, authority: str
    ) -> None:
        self.reader, self.writer = reader, writer
        self.scheme, self.authority = scheme, authority
        self.h2 = H2Connection(
            H2Configuration(
                validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding="ascii"
            )
        )
        self.h2.initiate_connection()
        self.streams: dict[int, Answered] = {}
        self.window = True
        self.goaway: int | None = None
        self.events: list[Event] = []
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def fields(self, path: str, method: str = "GET", *more: tuple[str, str], authority: str = "") -> Fields:
        return [
            (":method", method), (":scheme", self.scheme), (":authority", authority or self.authority),
            (":path", path), *more,
        ]  # fmt: skip

    def ask(self, fields: Fields, *, end: bool = True) -> int:
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, fields, end_stream=end)
        self.streams[stream] = Answered()
        self.flush()
        return stream

    async def upload(self, stream: int, data: bytes) -> None:
        """As the server gives room."""
        while data:
            room = min(self.h2.local_flow_control_window(stream), 16384)
            if room <= 0:
                await self.more()
                continue
            self.h2.send_data(stream, data[:room])
            data = data[room:]
            self.flush()
        self.h2.end_stream(stream)
        self.flush()

    async def more(self) -> None:
        """What comes next. Raises ConnectionError at the end."""
        data = await asyncio.wait_for(self.reader.read(1 << 16), SOON)
        if not data:
            raise ConnectionResetError
        for event in self.h2.receive_data(data):
            self.events.append(event)
            match event:
                case ConnectionTerminated():
                    self.goaway = int(event.error_code or 0)
                case ResponseReceived():
                    self.streams[event.stream_id].headers = dict(event.headers)  # type: ignore[arg-type]
                case TrailersReceived():
                    self.streams[event.stream_id].trailers = dict(event.headers)  # type: ignore[arg-type]
                case DataReceived():
                    self.streams[event.stream_id or 0].body += event.data or b""
                    if self.window:
                        self.h2.acknowledge_received_data(
                            event.flow_controlled_length or 0, event.stream_id or 0
                        )
                case StreamEnded():
                    self.streams[event.stream_id or 0].ended = True
                case StreamReset():
                    self.streams[event.stream_id or 0].reset = int(event.error_code or 0)
        self.flush()

    async def answer(self, stream: int) -> Answered:
        answered = self.streams[stream]
        while not answered.over:
            await self.more()
        return answered

    async def get(self, path: str, **options: str) -> Answered:
        return await self.answer(self.ask(self.fields(path, **options)))

    async def gone(self) -> int | None:
        """Waits for the connection's end: GOAWAY's code, None without one."""
        try:
            while True:
                await self.more()
        except ConnectionError:
            return self.goaway


@asynccontextmanager
async def talking(
    port: int, scheme: str = "http", authority: str = "a.example", tunnel: str | None = None
) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if tunnel is not None:
            writer.write(f"CONNECT {tunnel} HTTP/1.1\r\n\r\n".encode())
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        yield Client(reader, writer, scheme, authority)
    finally:
        writer.transport.abort()
