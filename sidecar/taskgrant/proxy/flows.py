"""What differs between protocols in the pipeline: what the sidecar answers itself, and how a permitted call is sent."""

from typing import Protocol

from taskgrant.model.call import Call, Headers, Refusal
from taskgrant.model.catalogue import Server
from taskgrant.model.ids import TaskId
from taskgrant.model.ports import Exchange
from taskgrant.model.task import Task
from taskgrant.protocols.http import HttpCodec, offered
from taskgrant.proxy import websocket
from taskgrant.proxy.forward import credential, send
from taskgrant.proxy.parts import Parts, Permitted
from taskgrant.proxy.relay import check_status, relay
from taskgrant.wire.websocket import Tally


class Flow(Protocol):
    async def answer(self, exchange: Exchange, server: Server, call: Call, task: Task | None) -> bool:
        """Answers what needs no tool server; False when the call has to go there (and so needs a task)."""
        ...

    async def forward(self, permitted: Permitted) -> None:
        """Sends a permitted call and relays its answer."""
        ...

    def refuse_event(self, call: Call, refusal: Refusal) -> bytes | None:
        """The refusal as the last event of a stream that has begun; None where the protocol has no such thing."""
        ...

    def refuse_trailers(self, call: Call, refusal: Refusal) -> Headers:
        """The refusal as the last fields of an answer that has begun; none where the protocol has no such thing."""
        ...

    def forget(self, task: TaskId) -> None: ...


class HttpFlow:
    """Operations of the catalogue: nothing is answered here, everything goes to the server and comes back as it is."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._codec = HttpCodec()

    async def answer(self, exchange: Exchange, server: Server, call: Call, task: Task | None) -> bool:
        return False

    async def forward(self, permitted: Permitted) -> None:
        issued = await credential(self._parts, permitted)
        out = self._codec.encode(permitted.server, permitted.call)
        tally = Tally()
        async with send(self._parts, permitted, out, issued, tally) as reply:
            check_status(reply, permitted.server.name)
            if reply.duplex is None:
                await relay(reply, permitted.exchange)
                return
            ending = await websocket.run(self._parts, permitted, reply, tally)
        # Settled by now: what the agent does with its end changes nothing.
        await websocket.part(self._parts, permitted, ending)

    def refuse_event(self, call: Call, refusal: Refusal) -> bytes | None:
        return websocket.refuse_event(refusal) if offered(call) is not None else None

    def refuse_trailers(self, call: Call, refusal: Refusal) -> Headers:
        return ()

    def forget(self, task: TaskId) -> None:
        """Operations keep nothing between calls."""
