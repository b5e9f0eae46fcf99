"""The way back: a tool server's answer to the client, whole events and whole messages only.

What the transport of a reply says of sessions, authentication and redirection is the sidecar's business and is never
relayed: a 401 would start the client's own OAuth flow, a redirect would lead it around us.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable

from taskgrant.errors import Refused
from taskgrant.model.call import Answer, Headers
from taskgrant.model.codes import Code
from taskgrant.model.json import JsonObject
from taskgrant.model.ports import Exchange, Reply
from taskgrant.protocols import sse, strictjson
from taskgrant.protocols.mcp.messages import MessageKind, classify

#: A JSON answer up to this size is sent in one piece, so that a cut before its end can still be told in plain words.
_WHOLE = 1 << 20
_EVENT_LIMIT = 16 << 20

#: Changes a message on its way back (lists are filtered); None relays it as it is.
Transform = Callable[[JsonObject], Awaitable[JsonObject]]
#: Told of each message that a server answers with, as it came, before the client gets it.
Heard = Callable[[bytes | str], None]
#: Told of each request that the server sends to the client.
Asked = Callable[[str | int], None]

_MCP_MEDIA = ("application/json", "text/event-stream")
#: What a guard may say of a call that it did not let through.
_GUARD_CODES = frozenset(
    {
        Code.UPSTREAM_UNREACHABLE,
        Code.AUTHORITY_UNAVAILABLE,
        Code.NO_GRANT,
        Code.UNSUPPORTED,
        Code.TOO_LARGE,
        Code.OVERLOADED,
    }
)
_PROBLEM_LIMIT = 1 << 16

_KEPT = ("content-type", "cache-control", "retry-after")


def media_type(reply: Reply) -> str:
    for name, value in reply.headers:
        if name == "content-type":
            return value.partition(";")[0].strip().lower()
    return ""


def kept_headers(reply: Reply) -> Headers:
    return tuple((name, value) for name, value in reply.headers if name in _KEPT)


def check_status(reply: Reply, server: str) -> None:
    """Raises ``errors.Refused`` for statuses that speak to us rather than to the client."""
    if reply.status in (401, 403, 407):
        raise Refused(Code.CREDENTIAL_REFUSED, f"{server} did not accept this task's credential")
    if 300 <= reply.status < 400:
        raise Refused(Code.UNSUPPORTED, f"{server} answered with a redirect, and redirects are not followed")


async def check_kind(reply: Reply, server: str) -> None:
    """Raises ``errors.Refused`` for an answer that is no MCP: a page or a problem of whatever stands before the server.

    A guard says in its problem (RFC 9457) what it refused and whether the server may have begun; what anything else has
    done, nobody knows.
    """
    kind = media_type(reply)
    if kind in _MCP_MEDIA or (reply.status < 400 and not kind):
        return
    told: JsonObject = {}
    if kind == "application/problem+json":
        told = read_message(await whole(reply, _PROBLEM_LIMIT))
    code = told.get("code")
    if code in _GUARD_CODES and told.get("begun") is False:
        raise Refused(Code(code), f"the guard of {server} refused it: {told.get('detail', '')}")
    raise Refused(Code.OUTCOME_UNKNOWN, f"{server} answered {reply.status} without a message", begun=True)


async def relay(reply: Reply, exchange: Exchange, heard: Heard | None = None) -> None:
    """The reply as it comes; one piece if it is small enough, and only then ``heard``."""
    pieces: list[bytes] = []
    size = 0
    async for chunk in reply.chunks():
        if exchange.begun:
            await exchange.write(chunk)
            continue
        pieces.append(chunk)
        size += len(chunk)
        if size > _WHOLE:
            await exchange.begin(reply.status, kept_headers(reply))
            await exchange.write(b"".join(pieces))
            pieces.clear()
    if exchange.begun:
        await exchange.end("clean")
        return
    body = b"".join(pieces)
    if heard is not None:
        heard(body)
    content_type = next((value for name, value in reply.headers if name == "content-type"), "")
    rest = tuple(pair for pair in kept_headers(reply) if pair[0] != "content-type")
    await exchange.answer(Answer(reply.status, content_type, body, rest))


async def whole(reply: Reply, limit: int) -> bytes:
    """All of a reply's body. Raises ``errors.Refused`` (too_large) past ``limit`` bytes."""
    body = bytearray()
    async for chunk in reply.chunks():
        body += chunk
        if len(body) > limit:
            raise Refused(Code.TOO_LARGE, "the tool server's answer is larger than the sidecar reads")
    return bytes(body)


def read_message(body: bytes | str) -> JsonObject:
    """One JSON-RPC message of a server. Raises ``errors.Refused`` (outcome_unknown): the tool did get the call.

    Read less strictly than what the agent sends: nothing is decided on it, and a tool's own schema may well have names
    that differ in case only.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as fault:
        raise unreadable(str(fault)) from fault
    if not isinstance(message, dict):
        raise unreadable("it is no JSON object")
    return message


def unreadable(why: str) -> Refused:
    return Refused(Code.OUTCOME_UNKNOWN, f"the tool server's answer cannot be read: {why}", begun=True)


async def relay_message(reply: Reply, exchange: Exchange, transform: Transform) -> None:
    """One JSON-RPC message, changed on its way."""
    message = read_message(await whole(reply, _EVENT_LIMIT))
    body = strictjson.encode(await transform(message))
    await exchange.answer(Answer(reply.status, "application/json", body))


async def events(reply: Reply, asked: Asked) -> AsyncIterator[tuple[sse.SseEvent, MessageKind]]:
    """The whole events of a stream, and what message each carries. Raises ``errors.Refused`` when one is too large."""
    decoder = sse.SseDecoder(_EVENT_LIMIT)
    async for chunk in reply.chunks():
        try:
            whole_events = decoder.feed(chunk)
        except sse.SseFault as fault:
            raise unreadable(str(fault)) from fault
        for event in whole_events:
            message = classify(event.data)
            if message.kind is MessageKind.REQUEST and message.id is not None:
                asked(message.id)
            yield event, message.kind


async def relay_events(
    reply: Reply, exchange: Exchange, asked: Asked, transform: Transform | None, heard: Heard
) -> None:
    """A stream of events, each relayed whole and at once; never half of one, so that a cut can be told in an event."""
    await exchange.begin(reply.status, (("content-type", "text/event-stream"), ("cache-control", "no-store")))
    async for event, kind in events(reply, asked):
        raw = event.raw
        if kind is MessageKind.OTHER and event.data:
            heard(event.data)
        if transform is not None and event.data and kind is MessageKind.OTHER:
            raw = sse.encode(strictjson.encode(await transform(read_message(event.data))), id=event.id)
        await exchange.write(raw)
    await exchange.end("clean")
