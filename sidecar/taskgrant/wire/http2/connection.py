"""A connection of the agent that speaks HTTP/2: frames in, a task for each stream, frames out.

    bytes → watched (length, tolls) → h2 → stream opened: intake → exchange → handler, in a task of its own
                                         → data, windows, resets: to the stream that they are for

What is bounded: streams that are at work, also those that the client has dropped already (a reset is no way to have
more of them); a body that was not read (a stream's window); an answer that is not taken (one write, and the
transport's buffer: while that is full nothing is read either); frames that ask for nothing (``tolls``); a head
(``framing.MAX_HEADER_BYTES``, and 64 frames of it, which h2 holds to); the time without a stream.

A fault of the connection ends it with GOAWAY and is on record. Faults of a request are answered on its stream.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error, TooManyStreamsError
from h2.settings import SettingCodes, Settings

from taskgrant.errors import Refused
from taskgrant.model.call import Headers
from taskgrant.model.codes import Code
from taskgrant.model.ids import TaskId
from taskgrant.protocols.framing import FramingFault
from taskgrant.protocols.http2 import FrameWatch, RawHeaders
from taskgrant.wire.http2.stream import Stream
from taskgrant.wire.http2.tolls import Tolls
from taskgrant.wire.transports import abort

#: A head with its 32 bytes an entry (RFC 9113, section 6.5.2); what the checks of heads let through is smaller.
_HEADER_LIST = 1 << 16
#: So much is read before it is looked at whether the client can pay for it.
_SLICE = 1 << 14
#: So much is written before it is looked at whether the transport takes more.
_BURST = 1 << 16
_CLOSE_SECONDS = 2.0

#: Serves a request, given by its fields, on a stream; ends when the stream is over.
Serve = Callable[[Stream, RawHeaders], Awaitable[None]]


class Http2Connection(asyncio.Protocol):
    """``serve`` runs for each stream, ``on_fault`` is told why the connection had to be ended. Open, it is ``among``
    the others.
    """

    def __init__(
        self,
        serve: Serve,
        on_fault: Callable[[Refused], None],
        among: set["Http2Connection"],
        *,
        max_streams: int,
        head_timeout: float,
        idle_timeout: float,
    ) -> None:
        self._serve = serve
        self._on_fault = on_fault
        self._among = among
        self._max_streams = max_streams
        self._idle_timeout = idle_timeout
        self._seconds = head_timeout  # until the first request; then between two
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: max_streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: _HEADER_LIST,
            },
        )
        self._watch = FrameWatch()
        self._loop = asyncio.get_running_loop()
        self._tolls = Tolls(self._loop.time())
        self._streams: dict[int, Stream] = {}
        self._tasks: dict[Stream, asyncio.Task[None]] = {}
        self._idle: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._task: TaskId | None = None
        self._ending = False
        self._paused = False
        self._over = False

    # -- asyncio.Protocol --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._among.add(self)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            abort(transport)
            return
        self._h2.initiate_connection()
        self._flush()
        self._rest()

    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data), _SLICE):
            if self._over:
                return
            piece = data[at : at + _SLICE]
            try:
                now = self._loop.time()
                for frame in self._watch.feed(piece):
                    self._tolls.pay(frame, now)
                events = self._h2.receive_data(piece)
            except FramingFault as fault:
                self._end(Refused(fault.code, str(fault)), ErrorCodes.FRAME_SIZE_ERROR)
            except Refused as refused:
                self._end(refused, ErrorCodes.ENHANCE_YOUR_CALM)
            except TooManyStreamsError:
                reason = f"the client opens more than {self._max_streams} streams at once"
                self._end(Refused(Code.OVERLOADED, reason))
            except H2Error as fault:
                self._end(Refused(Code.MALFORMED, f"this is no HTTP/2 that is served here ({_kind(fault)})"))
            else:
                for event in events:
                    self._happened(event)
        self._flush()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        """Who does not read is not read: answers to its own frames would fill the buffer too."""
        self._paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._over = True
        self._stop_idling()
        if self._closing is not None:
            self._closing.cancel()
        for stream in list(self._streams.values()):
            self._forget(stream)
        for task in list(self._tasks.values()):
            task.cancel()
        self._among.discard(self)

    # -- what comes in -----------------------------------------------------------------------------------------

    def _happened(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._open(event.stream_id, cast("RawHeaders", event.headers))
            case DataReceived():
                self._data(event)
            case StreamEnded():
                if (stream := self._streams.get(event.stream_id)) is not None:
                    stream.request_ended()
            case StreamReset():
                if (stream := self._streams.get(event.stream_id)) is not None:
                    self._leave(stream)
            case WindowUpdated() if event.stream_id:
                if (stream := self._streams.get(event.stream_id)) is not None:
                    stream.wake()
            case WindowUpdated() | RemoteSettingsChanged():
                self._wake()
            case ConnectionTerminated():
                self._close()

    def _open(self, stream_id: int, fields: RawHeaders) -> None:
        if len(self._tasks) >= self._max_streams:
            # The client may count fewer: it has dropped some that are not over here.
            with contextlib.suppress(H2Error):
                self._h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._stop_idling()
        self._seconds = self._idle_timeout
        stream = Stream(self, stream_id)
        self._streams[stream_id] = stream
        task = self._loop.create_task(self._run(stream, fields), name=f"stream {stream_id}")
        self._tasks[stream] = task
        task.add_done_callback(lambda _: self._done(stream))

    async def _run(self, stream: Stream, fields: RawHeaders) -> None:
        try:
            await self._serve(stream, fields)
        except ConnectionError:
            return  # the client is gone
        finally:
            self.reset(stream)

    def _done(self, stream: Stream) -> None:
        self._tasks.pop(stream, None)
        if not self._tasks and not self._over:
            if self._ending:
                self._close()
            else:
                self._rest()

    def _data(self, event: DataReceived) -> None:
        counted = event.flow_controlled_length or 0
        stream = self._streams.get(event.stream_id or 0)
        if stream is None:
            self._acknowledge(event.stream_id or 0, counted)
        else:
            stream.received(event.data or b"", counted)

    def _leave(self, stream: Stream) -> None:
        """The client has dropped the stream, or h2 has for a fault of the client's."""
        self._forget(stream)
        if (task := self._tasks.get(stream)) is not None:
            task.cancel()

    def _forget(self, stream: Stream) -> None:
        self._streams.pop(stream.id, None)
        if held := stream.lost():
            self._acknowledge(stream.id, held)

    def _wake(self) -> None:
        for stream in self._streams.values():
            stream.wake()

    # -- Link: what goes out -----------------------------------------------------------------------------------

    def send_head(self, stream: Stream, fields: Headers, *, end: bool) -> None:
        raw = _encoded(fields)
        self._say(stream, lambda: self._h2.send_headers(stream.id, raw, end_stream=end))
        if end:
            self._said_all(stream)

    def send_data(self, stream: Stream, data: bytes) -> None:
        size = self._h2.max_outbound_frame_size

        def say() -> None:
            for at in range(0, len(data), size):
                self._h2.send_data(stream.id, data[at : at + size])
                self._tolls.sent()

        self._say(stream, say)

    def send_end(self, stream: Stream, trailers: Headers) -> None:
        if trailers:
            raw = _encoded(trailers)
            self._say(stream, lambda: self._h2.send_headers(stream.id, raw, end_stream=True))
        else:
            self._say(stream, lambda: self._h2.end_stream(stream.id))
        self._said_all(stream)

    def _said_all(self, stream: Stream) -> None:
        if stream.ended:
            self._forget(stream)
        else:
            # The rest of the request is not wanted, and the answer is whole (RFC 9113, section 8.1).
            self._reset(stream, ErrorCodes.NO_ERROR)

    def take(self, stream: Stream, count: int) -> None:
        self._acknowledge(stream.id, count)
        self._flush()

    def reset(self, stream: Stream) -> None:
        self._reset(stream, ErrorCodes.INTERNAL_ERROR)

    def serves(self, task: TaskId) -> None:
        self._task = task

    def room(self, stream: Stream) -> int:
        if stream.gone or self._over:
            raise ConnectionResetError("the stream is over")
        if self._paused:
            return 0
        try:
            window = self._h2.local_flow_control_window(stream.id)
        except H2Error as fault:
            raise ConnectionResetError("the stream is over") from fault
        return max(0, min(window, _BURST))

    def _say(self, stream: Stream, say: Callable[[], None]) -> None:
        if stream.gone or self._over:
            raise ConnectionResetError("the stream is over")
        try:
            say()
        except H2Error as fault:
            raise ConnectionResetError("the stream is over") from fault
        self._flush()

    def _reset(self, stream: Stream, code: ErrorCodes) -> None:
        if stream.gone:
            return
        self._forget(stream)
        with contextlib.suppress(H2Error):
            self._h2.reset_stream(stream.id, code)
        self._flush()

    def _acknowledge(self, stream_id: int, count: int) -> None:
        with contextlib.suppress(H2Error):
            self._h2.acknowledge_received_data(count, stream_id)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    # -- ends --------------------------------------------------------------------------------------------------

    def end_of(self, tasks: Collection[TaskId]) -> None:
        """These tasks are over, and so is the connection if it is theirs: when no stream is at work."""
        if self._task in tasks:
            self._ending = True
            if not self._tasks:
                self._close()

    async def drain(self, seconds: float) -> None:
        """Lets the streams that run end within so many seconds, then ends the connection."""
        if self._tasks and seconds > 0:
            await asyncio.wait(tuple(self._tasks.values()), timeout=seconds)
        tasks = tuple(self._tasks.values())
        self._close()
        if self._transport is not None:
            abort(self._transport)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, refused: Refused, code: ErrorCodes = ErrorCodes.PROTOCOL_ERROR) -> None:
        """For a fault: on record, told to the client if it still reads, and over."""
        if not self._over:
            self._on_fault(refused)
            self._close(code)

    def _close(self, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        if self._over:
            return
        with contextlib.suppress(H2Error):
            self._h2.close_connection(code)
        self._flush()
        self._over = True
        self._stop_idling()
        for stream in list(self._streams.values()):
            self._leave(stream)
        if self._transport is not None:
            self._transport.close()
            self._closing = self._loop.call_later(_CLOSE_SECONDS, abort, self._transport)

    def _rest(self) -> None:
        """No stream is at work: for so long it may stay that way."""
        self._stop_idling()
        self._idle = self._loop.call_later(self._seconds, self._close)

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None


def _encoded(fields: Headers) -> list[tuple[bytes, bytes]]:
    """As HTTP/1.1 writes them: what came from a host in other bytes than UTF-8 leaves as it came."""
    return [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in fields]


def _kind(fault: H2Error) -> str:
    """The fault by its name: its words may repeat what the client sent."""
    return type(fault).__name__
