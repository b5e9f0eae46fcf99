"""A client's conversation over standard input and output, held with the sidecar's gateway.

::

    line of the client ──▶ POST ──▶ JSON, or events ──▶ lines to the client, the answer last
                           GET  ──▶ events ───────────▶ lines to the client          (after initialize, while it lasts)
    end of the input   ──▶ DELETE

Requests run side by side. ``initialize`` alone is waited for: it names the session and the revision of what follows. A
cancellation is sent on and then ends the request's own connection, which is what it means from 2026-07-28 on.
"""

import asyncio
import logging
import random
from collections.abc import Mapping

import aiohttp

from taskgrant.bridge import incoming, outgoing
from taskgrant.bridge.gateway import Gateway, events
from taskgrant.bridge.outgoing import BadLine, Outgoing
from taskgrant.model.json import Json, JsonObject
from taskgrant.protocols import jsonrpc, lines
from taskgrant.protocols.mcp.headers import SESSION, VERSION
from taskgrant.protocols.mcp.methods import INITIALIZE

_log = logging.getLogger(__name__)

_CHUNK = 1 << 16
_AT_ONCE = 256
#: For what is on its way when the client closes our input. One that does not care to wait ends us with SIGTERM.
_DRAIN_SECONDS, _FAREWELL_SECONDS = 10.0, 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_CANCELLED = "notifications/cancelled"
_OVERLOADED = "overloaded"


class Bridge:
    """``limit`` bounds the bytes of a message of the client."""

    def __init__(self, gateway: Gateway, output: asyncio.StreamWriter, limit: int) -> None:
        self._gateway = gateway
        self._output = output
        self._limit = limit
        self._writing = asyncio.Lock()
        self._running: dict[asyncio.Task[None], jsonrpc.RpcId | None] = {}
        self._standing: asyncio.Task[None] | None = None
        self._session: dict[str, str] = {}  # the headers of the session, once there is one
        self._version = ""

    async def run(self, source: asyncio.StreamReader) -> None:
        """Until the client closes our input, or is gone."""
        decoder = lines.LineDecoder(self._limit)
        try:
            while chunk := await source.read(_CHUNK):
                for line in decoder.feed(chunk):
                    await self._take(line)
            for line in decoder.finish():
                await self._take(line)
            if self._running:
                await asyncio.wait(self._running, timeout=_DRAIN_SECONDS)
        except ConnectionError:
            _log.info("the client has closed our output")
        finally:
            await self._leave()

    async def _take(self, line: bytes | None) -> None:
        try:
            if line is None:
                raise outgoing.too_long(self._limit)
            out = outgoing.read(line, self._version)
        except BadLine as bad:
            _log.warning("a line of the client is no message: %s", bad)
            await self._tell(bad.answer)
            return
        if out.id is not None and len(self._running) >= _AT_ONCE:
            told = f"{_AT_ONCE} requests are on their way already"
            await self._tell(incoming.failure(out.id, _OVERLOADED, told))
        elif isinstance(out.message, jsonrpc.Request) and out.message.method == INITIALIZE:
            await self._leave()
            await self._request(out, out.message.id)
        elif len(self._running) < 2 * _AT_ONCE:
            task = asyncio.create_task(self._send(out))
            self._running[task] = out.id
            task.add_done_callback(self._done)
        else:
            _log.warning("a notification was dropped: too many are on their way")

    def _done(self, task: "asyncio.Task[None]") -> None:
        del self._running[task]
        if not task.cancelled() and (fault := task.exception()) is not None:
            _log.error("a message was lost: %s", _said(fault))

    async def _send(self, out: Outgoing) -> None:
        if out.id is not None:
            await self._request(out, out.id)
            return
        cancels = out.message if isinstance(out.message, jsonrpc.Notification) else None
        if cancels is not None and cancels.method != _CANCELLED:
            cancels = None
        try:
            if cancels is None or not out.modern:
                async with self._gateway.post(out.body, out.headers | self._session) as reply:
                    if reply.status >= 400:
                        _log.warning("the sidecar answered %d to a notification", reply.status)
        except (aiohttp.ClientError, OSError) as fault:
            _log.warning("the sidecar did not take a notification: %s", _said(fault))
        if cancels is not None:
            self._cancel(cancels.params.get("requestId"))

    def _cancel(self, wanted: Json) -> None:
        for task, rpc_id in self._running.items():
            if rpc_id is not None and type(rpc_id) is type(wanted) and rpc_id == wanted:
                task.cancel()

    async def _request(self, out: Outgoing, rpc_id: jsonrpc.RpcId) -> None:
        answered = False
        try:
            async with self._gateway.post(out.body, out.headers | self._session) as reply:
                if reply.content_type == "text/event-stream":
                    # To the end, also after the answer: who leaves early has cancelled the call.
                    async for message in events(reply):
                        if "method" in message:
                            await self._tell(message)
                        elif not answered and incoming.answers(message, rpc_id):
                            answered = True
                            await self._answer(out, message, reply.headers)
                else:
                    body = await self._gateway.body(reply)
                    answered = True
                    await self._answer(out, incoming.whole(reply.status, body, rpc_id), reply.headers)
        except aiohttp.ClientConnectorError:
            answered = True
            await self._tell(incoming.unreachable(rpc_id, self._gateway.url))
        except (aiohttp.ClientError, OSError, ValueError) as fault:
            _log.warning("the sidecar broke off: %s", _said(fault))
        if not answered:
            await self._tell(incoming.broken(rpc_id))

    async def _answer(self, out: Outgoing, answer: JsonObject, headers: Mapping[str, str]) -> None:
        self._opened(out, answer, headers)
        await self._tell(answer)

    def _opened(self, out: Outgoing, answer: JsonObject, headers: Mapping[str, str]) -> None:
        """Takes in what the answer to ``initialize`` settles, before the client can go on."""
        result = answer.get("result")
        if not isinstance(out.message, jsonrpc.Request) or out.message.method != INITIALIZE:
            return
        version = result.get("protocolVersion") if isinstance(result, Mapping) else None
        if not isinstance(version, str):
            return
        self._version = version
        session = headers.get(SESSION)
        self._session = {} if session is None else {SESSION: session}
        self._standing = asyncio.create_task(self._listen({VERSION: version, **self._session}))

    async def _listen(self, headers: Mapping[str, str]) -> None:
        """The server's own stream, opened again whenever it breaks: the sidecar may be started anew."""
        pause = _FIRST_PAUSE
        while True:
            try:
                async with self._gateway.get(headers) as reply:
                    if reply.status != 200 or reply.content_type != "text/event-stream":
                        _log.info("the sidecar has no stream for us: it answered %d", reply.status)
                        if reply.status in (404, 405):
                            return
                    else:
                        pause = _FIRST_PAUSE
                        async for message in events(reply):
                            if "method" in message:
                                await self._tell(message)
            except (aiohttp.ClientError, ValueError, OSError) as fault:
                if self._output.is_closing():
                    return
                _log.info("the sidecar's stream broke: %s", _said(fault))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _tell(self, message: Mapping[str, Json]) -> None:
        """One line. Raises ConnectionError when the client is gone."""
        line = lines.encode(message)
        async with self._writing:
            self._output.write(line)
            await self._output.drain()

    async def _leave(self) -> None:
        """Ends what runs, and the session."""
        running = [*self._running, *([] if self._standing is None else [self._standing])]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        self._standing = None
        headers, self._session = {VERSION: self._version, **self._session}, {}
        self._version = ""
        if SESSION not in headers:
            return
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS), self._gateway.delete(headers):
                pass
        except (aiohttp.ClientError, OSError) as fault:
            _log.info("the session could not be ended: %s", _said(fault))


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
