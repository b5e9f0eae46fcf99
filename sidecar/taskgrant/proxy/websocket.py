"""A permitted WebSocket: 101 to the agent once the tool server has said it, then messages both ways until one closes.

An answer that changes nothing is an answer like any other. The call lasts as long as the connection: it is a use of the
grant, is cut with it, and what has passed is counted on its settled record.
"""

from taskgrant.model.call import Refusal
from taskgrant.model.ports import Reply
from taskgrant.protocols.websocket import accepted, last_frame, refusal
from taskgrant.proxy.parts import Parts, Permitted
from taskgrant.wire.websocket import Tally, relay


async def run(parts: Parts, permitted: Permitted, reply: Reply, tally: Tally) -> bytes:
    """The last frame for the agent. Raises what ``wire.websocket.relay`` raises."""
    if reply.duplex is None:
        raise RuntimeError("the tool server has not changed the protocol")
    exchange = permitted.exchange
    agent = await exchange.upgrade(accepted(exchange.head, reply.subprotocol))
    close = await relay(agent, reply.duplex, parts.body_limit, tally)
    return last_frame(close)


def refuse_event(told: Refusal) -> bytes:
    """The refusal as the last frame of a WebSocket that is open."""
    return last_frame(refusal(told.code, told.reason))
