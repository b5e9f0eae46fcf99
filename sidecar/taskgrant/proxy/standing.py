"""Standing streams: what a client keeps open to hear from its server while no call runs.

The sidecar holds the client's end for as long as the client likes, across tasks. Through it go ``list_changed``, when
the tools that the client may see have changed, and the messages that a server sends outside of any call, while the
task under which they were sent is live.
"""

import asyncio
import contextlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from taskgrant.errors import Refused
from taskgrant.model.call import Call, Caller
from taskgrant.model.codes import Code
from taskgrant.model.ports import Exchange

_KEEPALIVE = b": keep-alive\n\n"
_QUEUE = 64

#: What a client may see of a server now, as something that compares: the stream tells of changes of it.
Fingerprint = Callable[[Caller, str], Hashable]


@dataclass(eq=False, slots=True)
class Stream:
    caller: Caller
    server: str
    session: str | None
    changed: (
        bytes  # the event that says so, in the client's revision; empty for a client that does not ask for it
    )
    seen: Hashable
    queue: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(_QUEUE))


class Standing:
    def __init__(self, fingerprint: Fingerprint, max_streams: int, keepalive_seconds: float) -> None:
        self._fingerprint = fingerprint
        self._max_streams = max_streams
        self._keepalive = keepalive_seconds
        self._streams: set[Stream] = set()

    def __len__(self) -> int:
        return len(self._streams)

    async def serve(self, exchange: Exchange, call: Call, first: bytes, changed: bytes) -> None:
        """Holds the stream until the client leaves. ``first`` is sent at once (it may be empty).

        Raises ``errors.Refused`` (overloaded) before anything was answered when there are too many.
        """
        if len(self._streams) >= self._max_streams:
            raise Refused(Code.OVERLOADED, f"{self._max_streams} streams are open already")
        seen = self._fingerprint(exchange.caller, call.server)
        stream = Stream(exchange.caller, call.server, call.session, changed, seen)
        self._streams.add(stream)
        try:
            await exchange.begin(200, (("content-type", "text/event-stream"), ("cache-control", "no-store")))
            await exchange.write(first or _KEEPALIVE)
            while True:
                try:
                    async with asyncio.timeout(self._keepalive):
                        data = await stream.queue.get()
                except TimeoutError:
                    data = _KEEPALIVE
                await exchange.write(data)
        except ConnectionError:
            await exchange.end("abort")
        finally:
            self._streams.discard(stream)

    def notify(self) -> None:
        """Something changed: tells each client whose view of its server is another than when it was last told."""
        for stream in self._streams:
            now = self._fingerprint(stream.caller, stream.server)
            if now != stream.seen:
                stream.seen = now
                if not stream.changed:
                    continue
                # A full queue belongs to a client that does not read; it will list again when it does.
                with contextlib.suppress(asyncio.QueueFull):
                    stream.queue.put_nowait(stream.changed)

    def find(self, caller: Caller, server: str, session: str | None) -> Stream | None:
        """The stream on which a client listens for messages of a server, if it does.

        Whoever has another handle or uid is another client: a session's name is the client's to choose.
        """
        for stream in self._streams:
            if (
                stream.server == server
                and stream.session == session
                and (stream.caller.handle, stream.caller.uid) == (caller.handle, caller.uid)
            ):
                return stream
        return None
