"""The authority's events as server-sent events: ``id`` is the cursor, ``event`` the kind, ``data`` the event.

A stream resumes with ``Last-Event-ID`` (or ``?after=``). A refusal on the way is the event ``problem``, whose
data is a problem document, and the stream's last. When the peer goes away, the authority's iterator is closed
at once.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp_sse import EventSourceResponse

from taskgrant.api import problems
from taskgrant.errors import Refused
from taskgrant.model import documents
from taskgrant.model.codes import Code
from taskgrant.model.event import Cursor, Event

#: A peer that takes no byte for so long is gone, whatever its kernel says.
_SEND_TIMEOUT = 30.0


def cursor(request: web.Request, query: dict[str, str]) -> Cursor | None:
    """Where to resume. The header wins: a reconnecting client repeats its first URL. Raises Refused
    (invalid)."""
    text = request.headers.get("Last-Event-ID") or query.get("after")
    if not text:
        return None
    try:
        return Cursor.parse(text)
    except ValueError:
        raise Refused(Code.INVALID, "the cursor is not of the form <epoch>:<number>") from None


async def relay(
    request: web.Request, events: AsyncIterator[Event], ping_interval: float
) -> web.StreamResponse:
    """Sends events until the peer or the authority ends the stream."""
    response = EventSourceResponse(ping_interval=ping_interval, send_timeout=_SEND_TIMEOUT, sep="\n")
    await response.prepare(request)
    async with response, _closing(events):
        try:
            async for event in events:
                data = json.dumps(documents.event(event), ensure_ascii=False)
                await response.send(data, id=str(event.cursor), event=event.kind.value)
        except Refused as refused:
            await response.send(json.dumps(problems.from_refusal(refused)), event="problem")
        except (ConnectionResetError, TimeoutError):
            pass  # the peer is gone: nobody is left to tell
    return response


@asynccontextmanager
async def _closing(events: AsyncIterator[Event]) -> AsyncIterator[None]:
    """Ends the subscription in this task, now, and not whenever the iterator is collected."""
    try:
        yield
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()
