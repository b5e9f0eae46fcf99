"""One request of the agent over HTTP/1.1, and the answer to it: ``ports.Exchange`` over aiohttp's low-level server.

Framing was checked before an exchange is made. Writing waits while the client does not read. An answer that is given
before the request's body was read ends the connection: what follows on it would have to be guessed.
"""

import asyncio
from typing import Literal, Protocol, cast

from aiohttp.http_writer import StreamWriter
from aiohttp.web import BaseRequest, Response, StreamResponse
from aiohttp.web_protocol import RequestPayloadError

from taskgrant.errors import Refused
from taskgrant.model.call import Answer, Caller, Head, Headers
from taskgrant.model.codes import Code
from taskgrant.model.ids import TaskId
from taskgrant.model.ports import Destination, Duplex
from taskgrant.wire.websocket import Stream

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BODILESS = frozenset({204, 205, 304})


class Connection(Protocol):
    """What a request came by."""

    task: TaskId | None
    ending: bool


class HttpExchange:
    """See ``ports.Exchange``. ``response`` is what was begun, for the server to finish."""

    def __init__(
        self, request: BaseRequest, caller: Caller, destination: Destination, head: Head, body_timeout: float
    ) -> None:
        self.caller = caller
        self.destination = destination
        self.head = head
        self.response: StreamResponse | None = None
        self._request = request
        self._body_timeout = body_timeout
        self._event_stream = False
        self._ended = False
        self._bodiless = False
        self._duplex: Stream | None = None

    def serves(self, task: TaskId) -> None:
        """The connection is this task's from now on, and ends with it."""
        self._connection.task = task

    @property
    def begun(self) -> bool:
        return self.response is not None

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def streaming(self) -> bool:
        """A stream of events or messages has begun and not ended: one more can be written."""
        return (self._event_stream or self._duplex is not None) and not self._ended

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises ``errors.Refused``: too_large past ``limit`` bytes, malformed if it does not come."""
        declared = self.head.get("content-length")
        if declared is not None and int(declared) > limit:
            raise _too_large(limit)
        content = self._request.content
        body = bytearray()
        try:
            if content.is_eof() and self.head.get("expect") is None and content.total_bytes <= limit:
                return (
                    content.read_nowait()
                )  # it came with the head, as most do: there is nothing to wait for
            async with asyncio.timeout(self._body_timeout):
                if self.head.get("expect") is not None and not content.is_eof():
                    await self._request.writer.write(_CONTINUE)
                    self._request.writer.output_size = 0
                while chunk := await content.readany():
                    body += chunk
                    if len(body) > limit:
                        raise _too_large(limit)
        except TimeoutError as error:
            raise Refused(
                Code.MALFORMED, f"the request's body did not arrive within {self._body_timeout:g} seconds"
            ) from error
        except RequestPayloadError as error:
            raise Refused(Code.MALFORMED, "the request's body is not framed as its head says") from error
        return bytes(body)

    async def begin(self, status: int, headers: Headers) -> None:
        """Sends the answer's head at once. Raises ConnectionError when the client is gone."""
        response = StreamResponse(status=status)
        for name, value in headers:
            response.headers.add(name, value)
            if name == "content-type":
                self._event_stream = value.startswith("text/event-stream")
        self._bodiless = self.head.method == "HEAD" or status in _BODILESS
        await self._start(response)
        self._request.writer.send_headers()

    async def write(self, data: bytes) -> None:
        """Returns when the client's buffers have room again. Raises ConnectionError when the client is gone."""
        if self.response is None or self._ended:
            raise ConnectionError("there is no answer to write to")
        if self._duplex is not None:
            await self._duplex.write(data)
            return
        if data and not self._bodiless:
            await self._writer.write(data, drain=False)
            await self._room()

    async def end(self, how: Literal["clean", "abort"]) -> None:
        """``abort`` drops the connection at once, so that the client sees an answer that was cut short."""
        if self._ended:
            return
        self._ended = True
        if how == "abort" or self.response is None:
            self._abort()
            return
        if self._duplex is not None:
            return  # the server closes the connection
        await self._room()
        await self.response.write_eof()

    async def upgrade(self, headers: Headers) -> Duplex:
        """Sends a 101. Raises ``errors.Refused`` (unsupported) when the parser still reads requests."""
        if not self._request.protocol._upgraded:
            raise Refused(Code.UNSUPPORTED, "the protocol of this connection cannot be changed")
        response = StreamResponse(status=101)
        for name, value in headers:
            response.headers.add(name, value)
        await self._start(response)
        self._request.writer.send_headers()
        self._duplex = Stream.of_server(self._request.protocol)
        return self._duplex

    @property
    def trailers(self) -> bool:
        return False

    async def finish(self, trailers: Headers) -> None:
        raise RuntimeError("an answer over HTTP/1.1 ends without trailers here")

    async def finish_within(self, data: bytes, seconds: float, trailers: Headers = ()) -> None:
        """The last bytes and a clean end, if the client takes them in time; else an abort. Never raises for it."""
        try:
            async with asyncio.timeout(seconds):
                await self.write(data)
                if self._duplex is not None:
                    # The kernel resets a connection that is closed with bytes unread, and the last words with it.
                    self._duplex.write_end()
                    await self._duplex.drained()
                await self.end("clean")
        except (TimeoutError, ConnectionError):
            self._ended = True
            self._abort()

    async def answer(self, answer: Answer, *, close: bool = False) -> None:
        """A whole answer, the connection's last if ``close``. Raises ConnectionError when the client is gone."""
        response = Response(status=answer.status, body=answer.body)
        if answer.content_type:
            response.headers["content-type"] = answer.content_type
        for name, value in answer.headers:
            response.headers.add(name, value)
        if close:
            response.force_close()
        self._ended = True
        await self._start(response)
        await response.write_eof()

    async def _start(self, response: StreamResponse) -> None:
        if self.response is not None:
            raise RuntimeError("the answer has begun already")
        response.headers["server"] = "taskgrant"
        # What comes behind an offer to change the protocol was never meant as a request.
        offered = "upgrade" in self._request.headers
        if not self._request.content.at_eof() or offered or self._connection.ending:
            response.force_close()
        self.response = response
        await response.prepare(self._request)

    @property
    def _connection(self) -> Connection:
        return cast(Connection, self._request.protocol)

    @property
    def _writer(self) -> StreamWriter:
        return cast(StreamWriter, self._request.writer)

    async def _room(self) -> None:
        """Returns when the client's buffers have room."""
        if self._request.protocol.writing_paused:
            # Whoever waits shares one future with those who wait later: a cancelled call must not cancel it for them.
            await asyncio.shield(asyncio.ensure_future(self._writer.drain()))

    def _abort(self) -> None:
        transport = self._request.transport
        if transport is not None:
            transport.abort()


def _too_large(limit: int) -> Refused:
    return Refused(Code.TOO_LARGE, f"the request's body is larger than {limit} bytes")
