"""The server's standing stream, pumped into the client's: a call like any other, decided, registered and severed.

It runs under the grant by which it was permitted and ends with it; the next call of the task opens another.
"""

import asyncio
import logging
from dataclasses import replace

from taskgrant.errors import Refused, Severed, TaskgrantError
from taskgrant.model.call import Kind, Outbound
from taskgrant.model.coverage import compare
from taskgrant.model.ids import new_call_id
from taskgrant.proxy.conversations import Conversation
from taskgrant.proxy.decide import check_permit, decide, grants_of
from taskgrant.proxy.forward import credential, send
from taskgrant.proxy.parts import Parts, Permitted
from taskgrant.proxy.relay import events, media_type
from taskgrant.proxy.standing import Standing, Stream

_log = logging.getLogger(__name__)


class Pumps:
    def __init__(self, parts: Parts, standing: Standing) -> None:
        self._parts = parts
        self._standing = standing
        self._running: dict[Conversation, asyncio.Task[None]] = {}

    def ensure(self, permitted: Permitted, conversation: Conversation) -> None:
        """Starts the pump of a conversation if its client listens and none runs yet."""
        if conversation in self._running or conversation.deaf:
            return
        call = permitted.call
        stream = self._standing.find(permitted.exchange.caller, call.server, call.session)
        if stream is None:
            return
        task = asyncio.create_task(self._run(permitted, conversation, stream), name=f"pump {call.server}")
        self._running[conversation] = task
        task.add_done_callback(lambda _: self._running.pop(conversation, None))

    async def _run(self, permitted: Permitted, conversation: Conversation, stream: Stream) -> None:
        try:
            await self._pump(permitted, conversation, stream)
        except (Refused, Severed) as over:
            _log.debug("the stream of %s has ended: %s", permitted.server.name, over)
        except TaskgrantError as fault:
            _log.warning("the stream of %s has failed: %s", permitted.server.name, fault)

    async def _pump(self, permitted: Permitted, conversation: Conversation, stream: Stream) -> None:
        parts, task, server = self._parts, permitted.task, permitted.server
        call = replace(
            permitted.call,
            id=new_call_id(),
            action="GET",
            kind=Kind.STREAM,
            tool=None,
            arguments={},
            meta={},
            params={},
            rpc_id=None,
        )
        async with parts.legs.open(call.id, task.id, server.name, task.deadline, effects=False) as leg:
            grants = grants_of(parts, call, task)
            compared = compare(grants, call)
            decision = await decide(parts, call, task, grants, compared, 0, {})
            grants = grants_of(parts, call, task)
            grant = check_permit(parts, call, grants, compared, decision)
            leg.narrow(grant.id, grant.expires_at)
            own = replace(permitted, call=call, grant=grant, grants=grants, decision=decision, leg=leg)
            issued = await credential(parts, own)
            headers = [("accept", "text/event-stream"), ("mcp-protocol-version", conversation.version)]
            if conversation.session is not None:
                headers.append(("mcp-session-id", conversation.session))
            out = Outbound("GET", server.upstream, tuple(headers), b"")
            async with send(parts, own, out, issued) as reply:
                if reply.status != 200 or media_type(reply) != "text/event-stream":
                    conversation.deaf = True  # the server offers no such stream: it is not asked again
                    return
                async for event, _ in events(reply, conversation.ask):
                    await stream.queue.put(event.raw)
