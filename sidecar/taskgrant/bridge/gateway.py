"""The HTTP connections to the sidecar's gateway: never by a proxy, never followed elsewhere, never sent twice."""

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self

import aiohttp

from taskgrant.bridge import incoming
from taskgrant.model.json import JsonObject
from taskgrant.protocols.sse import SseDecoder

#: As much as a sidecar relays in one event.
_LIMIT = 16 << 20
_CONNECT_SECONDS = 5.0


class Gateway:
    """``url`` is the endpoint of one server. ``handle`` names the task, where a sidecar runs several."""

    def __init__(self, url: str, handle: str | None = None) -> None:
        self.url = url
        self._own = {} if handle is None else {"taskgrant-task": handle}

    async def __aenter__(self) -> Self:
        # The sidecar is what proxies lead to: trust_env stays off.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
        )
        # A request that the sidecar may have seen is not sent again: there is no public switch for that.
        self._session._retry_connection = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    def post(
        self, body: bytes, headers: Mapping[str, str]
    ) -> "aiohttp.client._BaseRequestContextManager[aiohttp.ClientResponse]":
        return self._session.post(
            self.url, data=body, headers={**headers, **self._own}, allow_redirects=False
        )

    def get(
        self, headers: Mapping[str, str]
    ) -> "aiohttp.client._BaseRequestContextManager[aiohttp.ClientResponse]":
        sent = {"accept": "text/event-stream", **headers, **self._own}
        return self._session.get(self.url, headers=sent, allow_redirects=False)

    def delete(
        self, headers: Mapping[str, str]
    ) -> "aiohttp.client._BaseRequestContextManager[aiohttp.ClientResponse]":
        return self._session.delete(self.url, headers={**headers, **self._own}, allow_redirects=False)

    async def body(self, reply: aiohttp.ClientResponse) -> bytes:
        """Raises ValueError for a body that is larger than a sidecar's."""
        body = bytearray()
        async for chunk in reply.content.iter_any():
            body += chunk
            if len(body) > _LIMIT:
                raise ValueError(f"a body of more than {_LIMIT} bytes")
        return bytes(body)


async def events(reply: aiohttp.ClientResponse) -> AsyncIterator[JsonObject]:
    """The messages of a stream. Raises aiohttp.ClientError, and ValueError for an event that is too large."""
    decoder = SseDecoder(_LIMIT)
    async for chunk in reply.content.iter_any():
        for event in decoder.feed(chunk):
            message = incoming.read(event.data) if event.data else None
            if message is not None:
                yield message
