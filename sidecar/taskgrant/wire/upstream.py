"""Calls to tool servers: ``ports.Upstream`` over HTTP/1.1 and TLS, one pool per task, audience and certificate.

What goes out is what the codec encoded, the credential, and nothing of the agent's; what comes back is told by
``wire.reply``. Failures say whether the tool may have seen the call: ``upstream_unreachable`` (not a byte was written)
or ``outcome_unknown``.

Requests that are no tool calls (``send_plain``) go the same way without a credential, in pools of their task.
"""

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache

from aiohttp import ClientResponse
from yarl import URL

from taskgrant.errors import Refused
from taskgrant.model.call import Outbound
from taskgrant.model.codes import Code
from taskgrant.model.credential import Issued
from taskgrant.model.event import Revocation
from taskgrant.model.ids import CallId
from taskgrant.wire.legs import Leg, Legs
from taskgrant.wire.pool import SENDING, Key, Pool, Sending
from taskgrant.wire.reply import FAULTS, KEPT, HttpReply, Keeps, check_encoding, outcome_unknown
from taskgrant.wire.transports import abort
from taskgrant.wire.websocket import Handshake

#: Request headers that no codec may set: they are this module's, or the framing's.
_OURS = frozenset(
    {"authorization", "host", "user-agent", "accept-encoding", "content-length", "transfer-encoding", "connection",
     "cookie", "expect", "te", "trailer", "upgrade"}
)  # fmt: skip
#: The same of requests that carry the agent's own headers.
_FRAMING = _OURS - {"authorization", "user-agent", "accept-encoding", "cookie"}
#: How long a credential that was remade may still serve calls that were handed it just before.
_LINGER_SECONDS = 5.0

_LARGE = 1 << 18

#: The TLS context of a credential, and the name to verify the server by (None: the name that is dialled).
Contexts = Callable[[Issued, str], tuple[ssl.SSLContext, str | None]]


class HttpUpstream:
    """``ports.Upstream``. ``contexts`` is asked once a pool; it raises ``errors.Refused`` for a dropped credential."""

    def __init__(self, legs: Legs, contexts: Contexts) -> None:
        self._legs = legs
        self._contexts = contexts
        self._pools: dict[Key, Pool] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._lingering: dict[Pool, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        """Pools that are open."""
        return len(self._pools)

    @asynccontextmanager
    async def send(
        self, out: Outbound, issued: Issued, leg: Leg, admit: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[HttpReply]:
        """One request, at most once. Raises ``errors.Refused`` (upstream_unreachable, outcome_unknown, unsupported,
        what the context's maker raises), and what ``admit`` raises; ``errors.Severed`` comes from the leg's scope."""
        headers = _headers(out, issued)
        handshake = None if out.websocket is None else Handshake(out.websocket)
        if handshake is not None:
            headers.update(handshake.headers)
        pool = self._pool(issued)
        async with self._send(pool, out, headers, leg, admit) as (response, sending):
            check_encoding(response)
            yield HttpReply(response, sending, issued.serial, KEPT.__contains__, handshake)

    @asynccontextmanager
    async def send_plain(
        self,
        out: Outbound,
        server: str,
        context: ssl.SSLContext,
        leg: Leg,
        admit: Callable[[], Awaitable[None]],
        keeps: Keeps,
    ) -> AsyncIterator[HttpReply]:
        """One request without a credential, at most once; the answer's body is passed on as it is encoded.

        Raises as ``send`` does.
        """
        headers = _unique(out, _FRAMING)
        key = (leg.task, server, "")
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(key, context, None)
        async with self._send(pool, out, headers, leg, admit) as (response, sending):
            yield HttpReply(response, sending, "", keeps)

    @asynccontextmanager
    async def _send(
        self,
        pool: Pool,
        out: Outbound,
        headers: dict[str, str],
        leg: Leg,
        admit: Callable[[], Awaitable[None]],
    ) -> AsyncIterator[tuple[ClientResponse, Sending]]:
        url = _target(out.url)
        sending = Sending(leg, admit)
        pool.users += 1
        response: ClientResponse | None = None
        try:
            response = await self._request(pool, sending, out, url, headers)
            yield response, sending
        finally:
            if sending.transport is not None:
                if response is None or not response.closed:
                    abort(sending.transport)
                leg.drop(sending.transport)
            if response is not None:
                response.close()
            pool.users -= 1
            if pool.retired and not pool.users and pool not in self._lingering:
                self._discard(pool)

    async def apply(self, revocation: Revocation) -> tuple[CallId, ...]:
        """Severs what ended and drops its pools. Returning means severed; answers the calls that had begun."""
        doomed = [pool for key, pool in self._pools.items() if key[0] in revocation.tasks]
        for pool in doomed:
            self._forget(pool)
        for pool in [pool for key, pool in self._pools.items() if key[2] in revocation.serials]:
            self._retire(pool, 0.0)
        begun = await self._legs.sever_revocation(revocation)
        for pool in doomed:
            await pool.close()
        return begun

    def retire(self, serial: str) -> None:
        """The credential was remade: its pool is closed when its last call is done."""
        for pool in [pool for key, pool in self._pools.items() if key[2] == serial]:
            self._retire(pool, _LINGER_SECONDS)

    async def close(self) -> None:
        """Aborts every connection. Calls that are on their way end with outcome_unknown."""
        pools = list(self._pools.values())
        for pool in pools:
            self._forget(pool)
        for pool in pools:
            await pool.close()
        while self._closing:
            await asyncio.wait(tuple(self._closing))

    # -- pools -------------------------------------------------------------------------------------------------

    def _pool(self, issued: Issued) -> Pool:
        key = (issued.task, issued.audience, issued.serial)
        pool = self._pools.get(key)
        if pool is None:
            context, hostname = self._contexts(issued, issued.audience)
            pool = self._pools[key] = Pool(key, context, hostname)
        return pool

    def _retire(self, pool: Pool, linger: float) -> None:
        pool.retired = True
        if (handle := self._lingering.pop(pool, None)) is not None:
            handle.cancel()
        if linger > 0:
            self._lingering[pool] = asyncio.get_running_loop().call_later(linger, self._retire, pool, 0.0)
        elif not pool.users:
            self._discard(pool)

    def _discard(self, pool: Pool) -> None:
        self._forget(pool)
        task = asyncio.get_running_loop().create_task(pool.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _forget(self, pool: Pool) -> None:
        self._pools.pop(pool.key, None)
        pool.retired = False
        if (handle := self._lingering.pop(pool, None)) is not None:
            handle.cancel()

    # -- one request -------------------------------------------------------------------------------------------

    async def _request(
        self, pool: Pool, sending: Sending, out: Outbound, url: URL, headers: dict[str, str]
    ) -> ClientResponse:
        token = SENDING.set(sending)
        try:
            return await pool.session.request(
                out.method,
                url,
                headers=headers,
                data=_body(out),
                allow_redirects=False,
                server_hostname=pool.server_hostname,
            )
        except (*FAULTS, RuntimeError) as fault:
            if sending.begun:
                raise outcome_unknown() from fault
            if sending.failure is fault:
                if isinstance(fault, OSError):
                    raise _unreachable(fault) from fault
                raise
            raise _unreachable(fault) from fault
        finally:
            SENDING.reset(token)


@lru_cache(maxsize=256)
def _target(address: str) -> URL:
    url = URL(address, encoded=True)
    if url.scheme != "https" or url.user is not None or url.password is not None:
        raise Refused(
            Code.UNSUPPORTED, "a tool server is reached by an https:// URL without user information"
        )
    return url


def _unique(out: Outbound, refused: frozenset[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in out.headers:
        if name in refused or name in headers:
            raise Refused(Code.MALFORMED, f"the header {name} cannot be sent on")
        headers[name] = value
    return headers


def _headers(out: Outbound, issued: Issued) -> dict[str, str]:
    headers = _unique(out, _OURS)
    headers["authorization"] = f"Bearer {issued.token}"
    headers["user-agent"] = "taskgrant"
    headers["accept-encoding"] = "identity"
    return headers


def _body(out: Outbound) -> bytes | io.BytesIO | None:
    if not out.body and out.method not in ("POST", "PUT", "PATCH"):
        return None
    # A large one is written piece by piece, so that other calls are served in between.
    return out.body if len(out.body) <= _LARGE else io.BytesIO(out.body)


def _unreachable(fault: BaseException) -> Refused:
    why = "did not answer in time" if isinstance(fault, TimeoutError) else "could not be connected to"
    return Refused(Code.UPSTREAM_UNREACHABLE, f"the tool server {why}; nothing was sent")
