"""A permitted WebSocket: 101 to the agent once the tool server has said it, then messages both ways until one closes.

An answer that changes nothing is an answer like any other. The call lasts as long as the connection: it is a use of the
grant, is cut with it, and what has passed is counted on its settled record.
"""

import asyncio

from taskgrant.model.call import Refusal
from taskgrant.model.ports import Reply
from taskgrant.protocols.websocket import accepted, last_frame, refusal
from taskgrant.proxy.parts import Parts, Permitted
from taskgrant.wire.websocket import Ending, Tally, relay


async def run(parts: Parts, permitted: Permitted, reply: Reply, tally: Tally) -> Ending:
    """To the end of the tool's side. Raises what ``wire.websocket.relay`` raises."""
    if reply.duplex is None:
        raise RuntimeError("the tool server has not changed the protocol")
    exchange = permitted.exchange
    agent = await exchange.upgrade(accepted(exchange.head, reply.subprotocol))
    return await relay(agent, reply.duplex, parts.body_limit, tally)


async def part(parts: Parts, permitted: Permitted, ending: Ending) -> None:
    """Closes the agent's side, which has a moment to close too. Raises ConnectionError when the agent is gone."""
    exchange = permitted.exchange
    try:
        async with asyncio.timeout(parts.config.cut_grace_ms / 1000):
            await exchange.write(ending.frame)
            await ending.left()
    except TimeoutError:
        await exchange.end("abort")
    else:
        await exchange.end("clean")


def refuse_event(told: Refusal) -> bytes:
    """The refusal as the last frame of a WebSocket that is open."""
    return last_frame(refusal(told.code, told.reason))
