"""One running tool server that speaks MCP on its standard input and output, and the requests that wait for it.

::

    request ──▶ stdin ─ keeper ─ command ─ stdout ──▶ routed to the request that it answers, or to the listener
                                         └ stderr ──▶ our log

It belongs to one task and serves one session. A line of it that is no message ends it when it looks like one (it begins
with ``{`` or ``[``), and is dropped otherwise: a banner. ``end`` is immediate: nothing is sent or read from then on,
whatever it does before the keeper has killed it.
"""

import asyncio
import json
import logging
import math
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from taskgrant.guard import keeper
from taskgrant.guard.exchanges import CANCELLED, Exchanges, Place
from taskgrant.model.json import JsonObject
from taskgrant.protocols import jsonrpc, lines

_log = logging.getLogger(__name__)

_CHUNK = 1 << 16
_QUEUE = 64
_BANNERS = 100
_UNREAD_BYTES = 1 << 20
_LOGGED_BYTES = 4096
_KILL_SECONDS = keeper.GRACE + 5.0


class ChildGone(ConnectionError):
    """The server has ended, or was ended: what it did for requests that it had received is not known."""


@dataclass(slots=True)
class Exchange:
    """One request that the server has received. ``messages`` are what belongs to it, its answer last."""

    token: int
    queue: "asyncio.Queue[tuple[JsonObject, bool] | None]" = field(
        default_factory=lambda: asyncio.Queue(_QUEUE)
    )
    gone: str = ""

    async def messages(self) -> AsyncIterator[tuple[JsonObject, bool]]:
        """Each message, and whether it is the answer. Raises ChildGone when the server ends before it."""
        while not (self.gone and self.queue.empty()):
            got = await self.queue.get()
            if got is not None:
                yield got
                if got[1]:
                    return
        raise ChildGone(self.gone)


class Child:
    """Starts at once, and is over when ``over`` is done. ``name`` is for the log."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        name: Mapping[str, str],
        line_limit: int,
        idle_seconds: float,
        on_end: Callable[["Child"], None],
    ) -> None:
        self._command = command
        self._environment = environment
        self._name = dict(name)
        self._limit = line_limit
        self._idle_seconds = idle_seconds
        self._on_end = on_end
        self._exchanges = Exchanges()
        self._waiting: dict[int, Exchange] = {}
        self._listener: asyncio.Queue[JsonObject | None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._started = asyncio.Event()
        self._writing = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = ""  # why, once it has
        self.over = asyncio.get_running_loop().create_task(self._run(), name="tool server")
        self.over.add_done_callback(self._finished)
        self._rest()

    @property
    def ended(self) -> bool:
        return bool(self._ended)

    @contextmanager
    def exchange(self, request: JsonObject) -> Iterator[tuple[Exchange, JsonObject]]:
        """A request's place among those that wait, and the request as ``write`` takes it.

        Who leaves before the answer has cancelled it, and the server is told so.
        """
        if self._ended:
            raise ChildGone(self._ended)
        token, sent = self._exchanges.open(request)
        one = self._waiting[token] = Exchange(token)
        self._busy()
        try:
            yield one, sent
        finally:
            del self._waiting[token]
            while not one.queue.empty():  # the reader may wait for room
                one.queue.get_nowait()
            if self._exchanges.close(token):
                self._cancel(token)
            if not self._waiting:
                self._rest()

    async def tell(self, message: JsonObject) -> None:
        """A notification, or an answer to a request of the server. Raises ChildGone, OSError."""
        sent = self._exchanges.notice(message)
        if sent is not None:
            await self.write(sent)

    async def write(self, message: JsonObject) -> None:
        """Raises ChildGone, OSError."""
        await self._started.wait()
        async with self._writing:
            # First room, then the message: one whose sender is gone while it waits is not sent, and takes no memory.
            await self._pipe().drain()
            self._pipe().write(lines.encode(message))

    def _pipe(self) -> asyncio.StreamWriter:
        if self._ended or self._process is None or self._process.stdin is None:
            raise ChildGone(self._ended)
        return self._process.stdin

    def _cancel(self, token: int) -> None:
        with suppress(ChildGone):
            pipe = self._pipe()
            if pipe.transport.get_write_buffer_size() > _UNREAD_BYTES:
                self.end("it does not read its standard input")
            else:
                pipe.write(lines.encode(jsonrpc.message(CANCELLED, {"requestId": token})))

    def listen(self) -> AsyncIterator[JsonObject]:
        """What the server says outside of any request, from now until it ends. The newest listener takes it all."""
        self._deafen()
        self._listener = queue = asyncio.Queue[JsonObject | None](_QUEUE)
        if self._ended:
            self._deafen()
        return self._heard(queue)

    async def _heard(self, queue: "asyncio.Queue[JsonObject | None]") -> AsyncIterator[JsonObject]:
        try:
            while (message := await queue.get()) is not None:
                yield message
        finally:
            if self._listener is queue:
                self._listener = None

    def end(self, why: str) -> None:
        """From here on nothing is sent to the server or read from it; the keeper ends it and what it has started."""
        if self._ended:
            return
        self._ended = why
        self._on_end(self)
        _log.info("a tool server ends: %s", why, extra=self._name)
        self._busy()
        for one in self._waiting.values():
            one.gone = why
            with suppress(asyncio.QueueFull):  # who has something to read sees ``gone`` after it
                one.queue.put_nowait(None)
        self._deafen()
        self._stop()

    def _deafen(self) -> None:
        """Who listens hears no more of it."""
        if self._listener is not None:
            while not self._listener.empty():
                self._listener.get_nowait()
            self._listener.put_nowait(None)
            self._listener = None

    def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        if not process.stdin.transport.is_closing():
            process.stdin.transport.abort()  # not close: what is still in the buffer is of a call that has ended
        with suppress(ProcessLookupError):
            process.terminate()
        self._timer = asyncio.get_running_loop().call_later(_KILL_SECONDS, self._kill)

    def _kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def _busy(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rest(self) -> None:
        if not self._ended:
            self._busy()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._idle_seconds, self.end, "it was not used for long")

    async def _run(self) -> None:
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", keeper.__file__, str(os.getpid()), *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=dict(self._environment),
                start_new_session=True,
            )  # fmt: skip
        except OSError as fault:
            self.end(f"it cannot be started: {fault.strerror}")
            return
        if self._ended:
            self._stop()
        self._started.set()
        assert process.stdout is not None  # noqa: S101 - pipes were asked for
        assert process.stderr is not None  # noqa: S101
        _log.info("a tool server was started", extra={**self._name, "pid": process.pid})
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(process.stdout))
            group.create_task(self._log_errors(process.stderr))
        code = await process.wait()
        _log.info("a tool server has ended", extra={**self._name, "exit_code": code})

    def _finished(self, run: "asyncio.Task[None]") -> None:
        fault = None if run.cancelled() else run.exception()
        if fault is not None:
            _log.error("a tool server could not be looked after", exc_info=fault, extra=self._name)
        self.end("it is over")
        self._started.set()
        self._busy()

    async def _read(self, stream: asyncio.StreamReader) -> None:
        """To the end of the stream in every case: the process is not seen to end before its pipes have."""
        decoder, banners = lines.LineDecoder(self._limit), 0
        while chunk := await stream.read(_CHUNK):
            for line in decoder.feed(chunk):
                if self._ended:
                    break
                message = _read_message(line) if line is not None else None
                if message is not None:
                    await self._route(message)
                elif line is None:
                    self._too_long()
                elif line[:1] in (b"{", b"[") or banners >= _BANNERS:
                    self.end("it wrote a line that is no message")
                else:
                    banners += 1
                    _log.warning("a tool server wrote a line that is no message", extra=self._name)
            if decoder.too_long:
                self._too_long()
        self.end("it has closed its standard output")

    def _too_long(self) -> None:
        self.end(f"it wrote a line of more than {self._limit} bytes")

    async def _route(self, message: JsonObject) -> None:
        routed = self._exchanges.route(message)
        token: int | None = routed.token
        if routed.place is Place.NOWHERE:
            return
        if routed.place is Place.BESIDE:
            # A message of a call goes where its answer will: before it. One that may be of any call, to the listener.
            if self._listener is not None and len(self._exchanges) != 1:
                with suppress(asyncio.QueueFull):  # a listener that does not read misses it
                    self._listener.put_nowait(message)
                return
            token = self._exchanges.newest()
        one = self._waiting.get(token) if token is not None else None
        if one is not None:
            await one.queue.put((routed.message, routed.place is Place.ANSWER))

    async def _log_errors(self, stream: asyncio.StreamReader) -> None:
        decoder = lines.LineDecoder(_LOGGED_BYTES)
        while chunk := await stream.read(_CHUNK):
            for line in decoder.feed(chunk):
                text = "(a long line)" if line is None else line.decode(errors="replace")
                _log.info("tool server: %s", text, extra=self._name)
        for line in decoder.finish():
            if line is not None:
                _log.info("tool server: %s", line.decode(errors="replace"), extra=self._name)


def _read_message(line: bytes) -> JsonObject | None:
    """Read less strictly than what an agent sends: nothing is decided on it, and it is written anew."""
    try:
        message = json.loads(line, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number too large for a double")
    return number
