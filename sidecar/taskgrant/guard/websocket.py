"""A WebSocket through the guard: checked as any request is, opened anew to the tool server, messages both ways.

It is one flight from its handshake to its end: when what covers it ends, both connections are aborted at once.
"""

import asyncio
from contextlib import suppress

from aiohttp import web

from taskgrant.errors import Refused
from taskgrant.guard.flights import Flight
from taskgrant.guard.upstream import Answer
from taskgrant.model.call import Head
from taskgrant.model.codes import Code
from taskgrant.protocols.websocket import accepted, last_frame, refusal
from taskgrant.wire.websocket import Ending, Handshake, Stream, Tally, relay

_LEAVE_SECONDS = 1.0


async def pass_through(
    request: web.BaseRequest,
    head: Head,
    answer: Answer,
    handshake: Handshake | None,
    flight: Flight,
    limit: int,
) -> web.StreamResponse:
    """What follows on a 101 of the tool server, to its end. ``limit``: bytes of a message.

    Raises ``errors.Refused`` for a 101 that is not to this handshake, or to none; ConnectionError when one side goes;
    TimeoutError when the flight is cut.
    """
    if handshake is None or answer.protocol is None:
        raise Refused(Code.UNSUPPORTED, "the tool server wants to change the protocol", begun=True)
    tool, subprotocol = handshake.accepted(answer.headers, answer.protocol)
    response = web.StreamResponse(status=101)
    for name, value in accepted(head, subprotocol):
        response.headers[name] = value
    response.force_close()
    if flight.is_cut:
        raise TimeoutError
    flight.answering = True
    await response.prepare(request)
    request.writer.send_headers()
    client = Stream.of_server(request.protocol)
    try:
        ending = await relay(client, tool, limit, Tally())
    except Refused as refused:
        told = refusal(Code(refused.code), refused.reason)
        ending = Ending(last_frame(told), client.drained)
    await client.write(ending.frame)
    with suppress(TimeoutError):
        async with asyncio.timeout(_LEAVE_SECONDS):
            await ending.left()
    return response
