"""The guard at work: one request is checked, encoded anew from what was checked, sent on, and its answer
streamed back.

What the tool server gets is what the codec makes of the checked call, plus an allowlist of headers, plus what
was verified::

    Taskgrant-Task, Taskgrant-Agent, Taskgrant-Grant (identifiers, comma-separated), Taskgrant-Serial,
    Taskgrant-On-Behalf-Of (percent-encoded; only when the agent acts for somebody)

No header of the client reaches it otherwise, whatever its spelling. A refusal is problem+json with a code
(RFC 9457) and one line in the log, never with the token.
"""

import asyncio
import json
import logging
import socket
import time
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import quote

import aiohttp
from aiohttp import web

from taskgrant.errors import Refused
from taskgrant.guard import checks, flights, websocket
from taskgrant.guard.checks import Verified
from taskgrant.guard.config import GuardConfig
from taskgrant.guard.feed import Feed, GuardAuthority
from taskgrant.guard.flights import Flight, Flights
from taskgrant.guard.identity import Identity
from taskgrant.guard.listener import Listener
from taskgrant.guard.revocations import RevocationState
from taskgrant.guard.sessions import Sessions
from taskgrant.guard.stdio import StdioServer
from taskgrant.guard.upstream import Answer, ToolServer, Upstream
from taskgrant.identity import certificates, spiffe, tokens
from taskgrant.identity.certificates import CertificateFault, Peer
from taskgrant.identity.tokens import TokenFault, VerifiedToken
from taskgrant.model.call import Call, Head, Headers, Malformed, Refusal
from taskgrant.model.catalogue import ServerProtocol
from taskgrant.model.codes import Code
from taskgrant.model.ports import Codec
from taskgrant.model.time import Clock, Instant
from taskgrant.protocols.framing import check_head
from taskgrant.protocols.http import HttpCodec
from taskgrant.protocols.mcp.codec import McpCodec
from taskgrant.wire.websocket import Handshake

_log = logging.getLogger(__name__)

SESSION = "mcp-session-id"
_PASSED_ON = ("last-event-id", "traceparent", "tracestate")  # beside what the codec encodes
_PASSED_BACK = frozenset(
    {"content-type", "content-encoding", "cache-control", "etag", "retry-after", "allow"}
)
_STATUS = {
    Code.CREDENTIAL_REFUSED: 401,
    Code.REVOKED: 401,
    Code.NO_GRANT: 403,
    Code.NOT_FOUND: 404,
    Code.UNKNOWN_OPERATION: 404,
    Code.TOO_LARGE: 413,
    Code.UNSUPPORTED: 415,
    Code.UPSTREAM_UNREACHABLE: 502,
    Code.OUTCOME_UNKNOWN: 502,
    Code.AUTHORITY_UNAVAILABLE: 503,
    Code.OVERLOADED: 503,
}


class Guard:
    """Handles requests. Everything that it knows of the authority is in ``state`` and ``identity``."""

    def __init__(
        self,
        config: GuardConfig,
        identity: Identity,
        state: RevocationState,
        upstream: ToolServer,
        clock: Clock,
    ) -> None:
        self._config = config
        self._identity = identity
        self._state = state
        self._upstream = upstream
        self._clock = clock
        self._codec: Codec = McpCodec() if config.protocol is ServerProtocol.MCP else HttpCodec()
        self._server = config.catalogue_entry()
        self._audience = spiffe.audience(config.trust_domain, config.server)
        self._peer: Callable[[bytes], Peer] = lru_cache(1024)(self._read_peer)
        self.flights = Flights()
        self.sessions = Sessions(config.sessions)

    def ended(self, tasks: frozenset[str]) -> None:
        """Forgets the sessions of tasks that have ended, and ends them at the tool server."""
        for task in tasks:
            self._upstream.end(task, self.sessions.end(task))

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request. Only the client's going raises."""
        response = await self._handle(request)
        if "upgrade" in request.headers:
            response.force_close()  # what comes behind a handshake was never meant as a request
        return response

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        peer, token = self._present(request, transport)
        bearer = checks.credential(peer, token, self._config.server, self._state, self._clock.now())
        if isinstance(bearer, Refusal):
            return _refuse(bearer, peer, token)
        version = (request.version.major, request.version.minor)
        head = check_head(request.method, request.raw_path, version, request.raw_headers)
        if isinstance(head, Malformed):
            return _refuse(Refusal(head.code, head.detail), peer, token, status=head.status)
        try:
            body = await self._body(request)
        except Refused as refused:
            return _refuse(Refusal(Code(refused.code), refused.reason), peer, token)
        call = self._codec.parse(self._server, head, body)
        if isinstance(call, Malformed):
            return _refuse(Refusal(call.code, call.detail), peer, token, status=call.status)
        # Again, and in full: the body may have taken its time. From here to the flight nothing waits.
        verified = checks.check(peer, token, call, self._state, self._clock.now())
        if isinstance(verified, Refusal):
            return _refuse(verified, peer, token, call)
        session = head.get(SESSION)
        if session is not None and not self.sessions.owned(session, verified.bearer.token.task):
            return _refuse(
                Refusal(Code.NOT_FOUND, "there is no such session in this task"), peer, token, call
            )
        flight = self.flights.begin(verified, transport)
        try:
            async with flight.scope():
                return await self._forward(request, head, call, session, flight)
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError, the end of the scope, is an OSError
            if flight.answering:
                transport.abort()  # an answer that stops short must not look whole
                raise ConnectionResetError("the answer broke off") from error
            return _refuse(_failure(error, flight), peer, token, call)
        except Refused as refused:
            begun = bool(refused.details.get("begun"))
            return _refuse(Refusal(Code(refused.code), refused.reason, begun=begun), peer, token, call)
        finally:
            self.flights.end(flight)

    async def _forward(
        self, request: web.BaseRequest, head: Head, call: Call, session: str | None, flight: Flight
    ) -> web.StreamResponse:
        out = self._codec.encode(self._server, call)
        added = [(name, value) for name in _PASSED_ON if (value := head.get(name)) is not None]
        if session is not None:
            added.append((SESSION, session))
        handshake = None if out.websocket is None else Handshake(out.websocket)
        opening = () if handshake is None else handshake.headers
        headers = (*out.headers, *added, *_context(flight.verified), *opening)
        marker = flights.current.set(flight)
        try:
            async with self._upstream.send(out.method, out.url, headers, out.body) as answer:
                if answer.status == 101:
                    return await websocket.pass_through(
                        request, head, answer, handshake, flight, self._config.body_limit
                    )
                return await self._answer(request, answer, session, flight)
        finally:
            flights.current.reset(marker)

    async def _answer(
        self, request: web.BaseRequest, answer: Answer, session: str | None, flight: Flight
    ) -> web.StreamResponse:
        """Streams an answer back, no faster than the client takes it."""
        task = flight.verified.bearer.token.task
        given = answer.headers.get(SESSION)
        if given is not None and not self.sessions.bind(given, task):
            return _refuse(
                Refusal(Code.CONFLICT, "the tool server handed out the session of another task", begun=True),
                flight.verified.bearer.peer,
                flight.verified.bearer.token,
                status=502,
            )
        if session is not None and (
            answer.status == 404 or (request.method == "DELETE" and answer.status < 300)
        ):
            self.sessions.forget(session)
        response = web.StreamResponse(status=answer.status)
        for name, value in answer.headers.items():
            if name.lower() in _PASSED_BACK or name.lower().startswith("mcp-"):
                response.headers.add(name, value)
        if answer.length is not None:
            response.content_length = answer.length
        if flight.is_cut:
            raise TimeoutError
        flight.answering = True
        await response.prepare(request)
        async for chunk in answer.chunks:
            await response.write(chunk)
        await response.write_eof()
        return response

    def _present(
        self, request: web.BaseRequest, transport: asyncio.Transport
    ) -> tuple[Peer | CertificateFault, VerifiedToken | TokenFault]:
        """Who is on the connection, and what the token says that came with the request."""
        tls = transport.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        try:
            peer = self._peer(der or b"")
        except CertificateFault as fault:
            return fault, TokenFault("not looked at")
        presented = request.headers.getall("Authorization", [])
        scheme, _, token = presented[0].partition(" ") if len(presented) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or not token:
            return peer, TokenFault("there is not exactly one bearer token")
        try:
            now = self._clock.now()
            return peer, tokens.verify(token, self._identity.keys, self._audience, now, peer.thumbprint)
        except TokenFault as fault:
            return peer, fault

    def _read_peer(self, der: bytes) -> Peer:
        return certificates.peer(der, self._config.trust_domain)

    async def _body(self, request: web.BaseRequest) -> bytes:
        limit, body = self._config.body_limit, bytearray()
        if (request.content_length or 0) > limit:
            raise Refused(Code.TOO_LARGE, f"a body has at most {limit} bytes")
        try:
            async with asyncio.timeout(self._config.body_seconds):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > limit:
                        raise Refused(Code.TOO_LARGE, f"a body has at most {limit} bytes")
        except TimeoutError:
            raise Refused(Code.MALFORMED, "the body did not arrive in time") from None
        except aiohttp.ClientPayloadError:
            raise Refused(Code.MALFORMED, "the body is framed wrongly") from None
        return bytes(body)


async def serve(
    config: GuardConfig,
    authority: GuardAuthority,
    ready: asyncio.Event | None = None,
    *,
    clock: Clock | None = None,
    bound: Callable[[tuple[str, int]], None] | None = None,
) -> None:
    """Runs a guard until it is cancelled. It listens from the first snapshot on, when it could let somebody
    in.

    ``bound`` is told the address once it is taken, then ``ready`` is set. Raises OSError when it cannot be
    taken.
    """
    clock = clock or _BootClock()
    identity, state = Identity(config), RevocationState(config.staleness_seconds)
    upstream: ToolServer = StdioServer(config) if config.command else Upstream(config)
    guard = Guard(config, identity, state, upstream, clock)
    name = f"guard/{config.server}/{socket.gethostname()}/{config.listen}"
    feed = Feed(authority, name, identity, state, guard.flights, guard.ended, upstream.end_all, clock)
    following = asyncio.create_task(feed.run())
    try:
        await _either(feed.ready, following)
        context = identity.context
        assert context is not None  # noqa: S101 - enrolled before the first event
        listener = Listener(guard.handle, bound=config.connections, header_seconds=config.header_seconds)
        listening = await listener.listen(*config.address, context)
        try:
            address = listening.sockets[0].getsockname()
            _log.info(
                "the guard listens", extra={"server": config.server, "address": f"{address[0]}:{address[1]}"}
            )
            if bound is not None:
                bound((address[0], address[1]))
            if ready is not None:
                ready.set()
            await following
        finally:
            await listener.close(listening)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await upstream.close()


class _BootClock:
    """The wall clock, carried on by the boot-time clock: one that is set back makes nothing old fresh again."""

    def __init__(self) -> None:
        self._offset = -float("inf")

    def now(self) -> Instant:
        wall, boot = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
        self._offset = max(self._offset, wall - boot)
        return Instant(boot + self._offset)


async def _either(event: asyncio.Event, task: "asyncio.Task[None]") -> None:
    """Waits for the event; raises what the task raises if that ends first."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        waiting.cancel()


def _context(verified: Verified) -> Headers:
    """What the tool server may rely on: identifiers are safe as they are, what people wrote is
    percent-encoded.
    """
    token = verified.bearer.token
    told = [
        ("Taskgrant-Task", token.task),
        ("Taskgrant-Agent", token.agent),
        ("Taskgrant-Grant", ", ".join(verified.grants)),
        ("Taskgrant-Serial", verified.bearer.peer.serial),
    ]
    if token.on_behalf_of:
        told.append(("Taskgrant-On-Behalf-Of", quote(token.on_behalf_of, safe=":/@+,=~")))
    return tuple(told)


def _failure(error: Exception, flight: Flight) -> Refusal:
    if flight.is_cut:
        return Refusal(Code.REVOKED, "the grant has ended", begun=flight.connected)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return Refusal(Code.UPSTREAM_UNREACHABLE, "the tool server cannot be reached")
    return Refusal(Code.OUTCOME_UNKNOWN, "the tool server broke off; what it did is not known", begun=True)


def _refuse(
    refusal: Refusal,
    peer: Peer | CertificateFault,
    token: VerifiedToken | TokenFault,
    call: Call | None = None,
    status: int | None = None,
) -> web.Response:
    """A refusal as an answer, and as one line in the log."""
    status = status if status is not None and status >= 400 else _STATUS.get(refusal.code, 400)
    about: dict[str, object] = {"code": refusal.code.value, "status": status, "reason": refusal.reason}
    if isinstance(peer, Peer):
        about |= {"task": peer.id.task, "agent": peer.id.agent, "serial": peer.serial}
    if isinstance(token, VerifiedToken):
        about["jti"] = token.jti
    if call is not None:
        about |= {"action": call.action, "tool": call.tool}
    _log.warning("a request was refused", extra=about)
    problem = {
        "type": "about:blank",
        "title": "The guard refused this request",
        "status": status,
        "detail": refusal.reason,
        "code": refusal.code.value,
        "begun": refusal.begun,
    }
    headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'} if status == 401 else {}
    if refusal.code is Code.NO_GRANT:
        headers = {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}
    return web.Response(
        status=status,
        headers=headers,
        body=json.dumps(problem).encode(),
        content_type="application/problem+json",
    )
