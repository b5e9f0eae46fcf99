"""One stream of the agent's HTTP/2, and the answer to it: ``ports.Exchange`` beside ``wire.exchange``."""

import asyncio
from typing import Literal

from taskgrant.errors import Refused
from taskgrant.model.call import Answer, Caller, Head, Headers
from taskgrant.model.codes import Code
from taskgrant.model.ids import TaskId
from taskgrant.model.ports import Destination, Duplex
from taskgrant.wire.http2.stream import Stream

_BODILESS = frozenset({204, 205, 304})


class Http2Exchange:
    """See ``ports.Exchange``. An answer before the request was read ends the stream, not its connection."""

    def __init__(
        self, stream: Stream, caller: Caller, destination: Destination, head: Head, body_timeout: float
    ) -> None:
        self.caller = caller
        self.destination = destination
        self.head = head
        self._stream = stream
        self._body_timeout = body_timeout
        self._begun = False
        self._ended = False
        self._event_stream = False
        self._bodiless = False

    def serves(self, task: TaskId) -> None:
        """The connection is this task's from now on, and ends with it when no stream is at work."""
        self._stream.serves(task)

    @property
    def begun(self) -> bool:
        return self._begun

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def streaming(self) -> bool:
        return self._event_stream and not self._ended

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises ``errors.Refused``: too_large past ``limit`` bytes, malformed if it does not come."""
        declared = self.head.get("content-length")
        if declared is not None and int(declared) > limit:
            raise _too_large(limit)
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout):
                if self.head.get("expect") is not None and not self._stream.ended:
                    self._stream.head(((":status", "100"),))
                while chunk := await self._stream.read():
                    body += chunk
                    if len(body) > limit:
                        raise _too_large(limit)
        except TimeoutError as error:
            raise Refused(
                Code.MALFORMED, f"the request's body did not arrive within {self._body_timeout:g} seconds"
            ) from error
        return bytes(body)

    async def begin(self, status: int, headers: Headers) -> None:
        """Sends the answer's head at once. Raises ConnectionError when the client is gone."""
        for name, value in headers:
            if name == "content-type":
                self._event_stream = value.startswith("text/event-stream")
        self._start(status, headers)

    async def write(self, data: bytes) -> None:
        """Returns when the client has room again. Raises ConnectionError when it is gone."""
        if not self._begun or self._ended:
            raise ConnectionError("there is no answer to write to")
        if data and not self._bodiless:
            await self._stream.write(data)

    async def end(self, how: Literal["clean", "abort"]) -> None:
        """``abort`` resets the stream at once, so that the client sees an answer that was cut short."""
        if self._ended:
            return
        self._ended = True
        if how == "abort" or not self._begun:
            self._stream.reset()
            return
        await self._stream.finish()

    async def upgrade(self, headers: Headers) -> Duplex:
        """Never: HTTP/2 has no such thing (RFC 9113, section 8.6), and extended CONNECT is not offered."""
        raise Refused(Code.UNSUPPORTED, "the protocol of a stream cannot be changed")

    @property
    def trailers(self) -> bool:
        return True

    async def finish(self, trailers: Headers) -> None:
        """A clean end with these fields. Raises ConnectionError when the client is gone."""
        await self._stream.finish(trailers)
        self._ended = True

    async def finish_within(self, data: bytes, seconds: float, trailers: Headers = ()) -> None:
        """The last bytes and a clean end, if the client takes them in time; else an abort. Never raises for it."""
        try:
            async with asyncio.timeout(seconds):
                await self.write(data)
                await self._stream.finish(trailers)
        except (TimeoutError, ConnectionError):
            self._stream.reset()
        self._ended = True

    async def answer(self, answer: Answer, *, close: bool = False) -> None:
        """A whole answer. ``close`` changes nothing: what follows on the connection is framed whatever was asked."""
        headers = answer.headers
        if answer.content_type:
            headers = (("content-type", answer.content_type), *headers)
        length = () if answer.status in _BODILESS else (("content-length", str(len(answer.body))),)
        alone = not answer.body or self.head.method == "HEAD" or answer.status in _BODILESS
        self._start(answer.status, (*headers, *length), end=alone)
        self._ended = True
        if not alone:
            await self._stream.write(answer.body)
            await self._stream.finish()

    def _start(self, status: int, headers: Headers, *, end: bool = False) -> None:
        if self._begun:
            raise RuntimeError("the answer has begun already")
        self._begun = True
        self._bodiless = self.head.method == "HEAD" or status in _BODILESS
        kept = (pair for pair in headers if pair[0] != "server")
        self._stream.head(((":status", str(status)), *kept, ("server", "taskgrant")), end=end)


def _too_large(limit: int) -> Refused:
    return Refused(Code.TOO_LARGE, f"the request's body is larger than {limit} bytes")
