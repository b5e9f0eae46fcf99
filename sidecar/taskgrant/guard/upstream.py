"""The connections to the tool server: pooled, never retried, and each known to the request that it serves."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from taskgrant.guard import flights
from taskgrant.guard.config import GuardConfig
from taskgrant.model.call import Headers

_log = logging.getLogger(__name__)
_NO_AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_FAREWELL_SECONDS = 5.0
_FAREWELLS = 64  # sessions that are ended at once; the others the tool server has to time out


@dataclass(frozen=True, slots=True)
class Answer:
    """A tool server's answer. ``length`` is that of the body, where it is known; ``chunks`` are the body as it
    comes.
    """

    status: int
    headers: Mapping[str, str]
    length: int | None
    chunks: AsyncIterator[bytes]
    protocol: ResponseHandler | None = None  # of the connection that it came by, while there is one


class ToolServer(Protocol):
    """What a guard stands in front of: an address, or a command that it runs for each task."""

    def send(
        self, method: str, url: str, headers: Headers, body: bytes
    ) -> AbstractAsyncContextManager[Answer]:
        """One request, sent at most once. Raises aiohttp.ClientError, OSError, TimeoutError, errors.Refused."""
        ...

    def end(self, task: str, sessions: tuple[str, ...]) -> None:
        """A task has ended, with these sessions. Returns at once."""
        ...

    def end_all(self) -> None:
        """Another authority has taken over, for which nothing that runs here is anybody's any more."""
        ...

    async def close(self) -> None: ...


def _attach(connection: Connection) -> Connection:
    flight, transport = flights.current.get(None), connection.transport
    if flight is not None and transport is not None:
        flight.attach(transport)
    return connection


class _TcpConnector(aiohttp.TCPConnector):
    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        return _attach(await super().connect(req, traces, timeout))


class _UnixConnector(aiohttp.UnixConnector):
    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        return _attach(await super().connect(req, traces, timeout))


class Upstream:
    """Made inside a running loop. ``close`` when done."""

    def __init__(self, config: GuardConfig) -> None:
        connector: aiohttp.BaseConnector
        if config.socket is not None:
            connector = _UnixConnector(config.socket, limit=0)
        else:
            verify = ssl.create_default_context() if config.url.startswith("https:") else True
            connector = _TcpConnector(limit=0, ssl=verify)
        self._url = config.url
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_NO_AUTOMATIC,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.connect_seconds),
        )
        # A request that the tool server may have seen is not sent again: there is no public switch for that.
        self._session._retry_connection = False
        self._farewells: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def send(self, method: str, url: str, headers: Headers, body: bytes) -> AsyncIterator[Answer]:
        sending = self._session.request(
            method, url, headers=list(headers), data=body or None, allow_redirects=False
        )
        async with sending as answer:
            protocol = answer.connection.protocol if answer.connection is not None else None
            chunks = answer.content.iter_any()
            yield Answer(answer.status, answer.headers, answer.content_length, chunks, protocol)

    def end_all(self) -> None:
        """Sessions at an address are left to its time-out: they reach nobody without a credential."""

    def end(self, task: str, sessions: tuple[str, ...]) -> None:
        """Ends sessions at the tool server, in the background: nobody waits for it, and it may fail."""
        for session in sessions:
            if len(self._farewells) >= _FAREWELLS:
                _log.warning("too many sessions end at once: some are left to the tool server's time-out")
                return
            farewell = asyncio.get_running_loop().create_task(self._end(session))
            self._farewells.add(farewell)
            farewell.add_done_callback(self._farewells.discard)

    async def close(self) -> None:
        for task in tuple(self._farewells):
            task.cancel()
        await asyncio.gather(*self._farewells, return_exceptions=True)
        await self._session.close()

    async def _end(self, session: str) -> None:
        try:
            async with (
                asyncio.timeout(_FAREWELL_SECONDS),
                self.send("DELETE", self._url, (("mcp-session-id", session),), b""),
            ):
                pass
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            _log.info(
                "a session of an ended task could not be ended at the tool server: %s", type(error).__name__
            )
