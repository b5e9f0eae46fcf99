"""TLS connections with bounds: how many, how long a handshake may take, and how long the head of a request."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

_KEEP_ALIVE_SECONDS = 75.0
_HANDSHAKE_SECONDS = 10.0
_LINGER_SECONDS = 1.0
_BACKLOG = 128

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class _Connection(RequestHandler):
    """Gives a client ``header_seconds`` from a request's first byte to the end of its head."""

    __slots__ = ("_bounds", "_impatience")

    def __init__(self, manager: "Listener", **options: Any) -> None:
        super().__init__(manager, **options)
        self._bounds = manager
        self._impatience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if len(self._bounds.connections) >= self._bounds.bound and isinstance(transport, asyncio.Transport):
            transport.abort()
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._current_request is None and self._impatience is None:
            self._wait()
        super().data_received(data)

    def arrived(self) -> None:
        """A whole head is there."""
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._impatience = loop.call_later(self._bounds.header_seconds, self.force_close)


class Listener(web.Server):
    """``bound``: connections at a time; a further one is closed at once."""

    def __init__(self, handler: Handler, *, bound: int, header_seconds: float) -> None:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            if isinstance(request.protocol, _Connection):
                request.protocol.arrived()
            return await handler(request)

        # A client that is gone ends the work for it: what it asked the tool server for is cut off too.
        super().__init__(handle, handler_cancellation=True)
        self.bound = bound
        self.header_seconds = header_seconds

    def __call__(self) -> _Connection:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            lingering_time=_LINGER_SECONDS,
            access_log=None,
            auto_decompress=False,
        )

    async def listen(self, host: str, port: int, context: ssl.SSLContext) -> asyncio.Server:
        """Raises OSError when the address cannot be taken."""
        loop = asyncio.get_running_loop()
        return await loop.create_server(
            self, host, port, ssl=context, backlog=_BACKLOG, ssl_handshake_timeout=_HANDSHAKE_SECONDS
        )

    async def close(self, server: asyncio.Server) -> None:
        """Closes the address and every connection."""
        server.close()
        await self.shutdown(timeout=_LINGER_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await server.wait_closed()
