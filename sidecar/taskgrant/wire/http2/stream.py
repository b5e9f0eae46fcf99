"""One stream of a connection: what has come of its request, and how its answer leaves, as far as both ends have room.

Of a request's body at most a stream's window is held; the client gets room when the body is read. Of an answer, what
one write handed over is held until the client's windows let it go, so that a write that is cut short leaves no half of
what it was given: the rest goes out first when something is still said afterwards.
"""

import asyncio
from typing import Protocol

from taskgrant.model.call import Headers
from taskgrant.model.ids import TaskId


class Link(Protocol):
    """The connection, as its streams see it. Everything raises ConnectionError when it is gone."""

    def send_head(self, stream: "Stream", fields: Headers, *, end: bool) -> None: ...
    def send_data(self, stream: "Stream", data: bytes) -> None: ...
    def send_end(self, stream: "Stream", trailers: Headers) -> None: ...
    def take(self, stream: "Stream", count: int) -> None:
        """Gives the client room for so many bytes more."""
        ...

    def reset(self, stream: "Stream") -> None:
        """Ends the stream at once, as an error. Never raises."""
        ...

    def serves(self, task: TaskId) -> None: ...
    def room(self, stream: "Stream") -> int:
        """Bytes that may go out now; 0: wait for ``Stream.changed``."""
        ...


class Stream:
    """``id`` is the client's number for it; ``gone``: nothing more can be said on it."""

    def __init__(self, link: Link, stream_id: int) -> None:
        self.id = stream_id
        self.gone = False
        self.ended = False  # the request is whole
        self._link = link
        self._received = bytearray()
        self._held = 0  # of the client's windows, padding included
        self._unsent = bytearray()
        self._changed = asyncio.Event()

    # -- from the connection -----------------------------------------------------------------------------------

    def received(self, data: bytes, counted: int) -> None:
        """``counted``: what it takes of the windows."""
        self._received += data
        self._held += counted
        self._changed.set()

    def request_ended(self) -> None:
        self.ended = True
        self._changed.set()

    def wake(self) -> None:
        """There may be room now."""
        self._changed.set()

    def lost(self) -> int:
        """Nobody is there any more. Answers what the stream still held of the connection's window."""
        self.gone = True
        self._changed.set()
        held, self._held = self._held, 0
        self._received.clear()
        self._unsent.clear()
        return held

    # -- from the exchange -------------------------------------------------------------------------------------

    async def read(self) -> bytes:
        """What has come of the body and was not read; empty at its end. Raises ConnectionError."""
        while not self._received and not self.ended:
            await self._change()
        data = bytes(self._received)
        self._received.clear()
        if self._held:
            self._link.take(self, self._held)
            self._held = 0
        return data

    def head(self, fields: Headers, *, end: bool = False) -> None:
        self._link.send_head(self, fields, end=end)

    async def write(self, data: bytes) -> None:
        """Returns when the client's windows and our buffer have taken it all."""
        self._check()
        self._unsent += data
        while self._unsent:
            room = self._link.room(self)
            if room == 0:
                await self._change()
                continue
            with memoryview(self._unsent) as unsent:
                chunk = bytes(unsent[:room])
            del self._unsent[:room]
            self._link.send_data(self, chunk)
        self._check()

    async def finish(self, trailers: Headers = ()) -> None:
        await self.write(b"")
        self._link.send_end(self, trailers)

    def serves(self, task: TaskId) -> None:
        self._link.serves(task)

    def reset(self) -> None:
        self._link.reset(self)

    async def _change(self) -> None:
        self._check()
        self._changed.clear()
        await self._changed.wait()

    def _check(self) -> None:
        if self.gone:
            raise ConnectionResetError("the stream is over")
