"""Requests that are no tool calls, to hosts of the configuration's ``egress``: model APIs, package mirrors.

    read and parse → bind to a task, if there is one → register → decide → record → send → relay as it comes

No grant is asked and no credential is made: whatever the agent is known by to such a host is its own. Answers are not
read, and streamed as they come.
"""

import asyncio
import ssl
from collections.abc import Mapping
from time import perf_counter

from taskgrant.errors import Refused, Severed
from taskgrant.model.call import Malformed, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.egress import EgressDecision, EgressHost, EgressHosts, EgressRequest
from taskgrant.model.ports import Destination, Exchange
from taskgrant.model.task import Task
from taskgrant.protocols import egress as codec
from taskgrant.protocols.http import HttpCodec
from taskgrant.proxy.gate import Gate
from taskgrant.proxy.locate import split
from taskgrant.wire.legs import Leg
from taskgrant.wire.upstream import HttpUpstream


class Egress:
    """``contexts``: by whom a host's certificate is vouched for, as in ``EgressHost.trust``."""

    def __init__(
        self,
        hosts: EgressHosts,
        gate: Gate,
        upstream: HttpUpstream,
        contexts: Mapping[str, ssl.SSLContext],
        body_limit: int,
    ) -> None:
        self._hosts = hosts
        self._gate = gate
        self._upstream = upstream
        self._contexts = contexts
        self._body_limit = body_limit

    def of(self, destination: Destination) -> EgressHost | None:
        """The host that a request dials, if it is one of these."""
        if destination.way == "gateway":
            return None
        return self._hosts.dialled(destination.scheme, *split(destination))

    async def handle(self, exchange: Exchange, host: EgressHost) -> None:
        parsed: EgressRequest | Malformed | None = None
        task: Task | None = None
        try:
            parsed = codec.parse(host, exchange.head, await exchange.body(self._body_limit))
            if isinstance(parsed, Malformed):
                raise Refused(parsed.code, parsed.detail)
            task = self._gate.bind(exchange.caller)
            if task is not None:
                exchange.serves(task.id)
            if task is not None:
                exchange.serves(task.id)
            await self._pass(exchange, parsed, task)
        except Refused as refused:
            about = parsed if isinstance(parsed, EgressRequest) else None
            if refused.details.get("begun"):
                await _fail(exchange, refused)
                return
            self._gate.record_refused(host, about, exchange.caller, task, refused)
            await _fail(exchange, refused)

    async def _pass(self, exchange: Exchange, request: EgressRequest, task: Task | None) -> None:
        """Raises ``errors.Refused``; with ``begun`` when the host may have got the request."""
        try:
            async with self._gate.open(request, task) as leg:
                decision = await self._gate.decide(request, exchange.caller, task)
                await self._send(exchange, request, task, decision, leg)
        except Severed as severed:
            raise Refused(severed.code, severed.reason, begun=severed.begun) from severed

    async def _send(
        self,
        exchange: Exchange,
        request: EgressRequest,
        task: Task | None,
        decision: EgressDecision,
        leg: Leg,
    ) -> None:
        async def admit() -> None:
            await self._gate.record_permitted(request, exchange.caller, task, decision)

        outcome, received, status, started = "failed", 0, 0, perf_counter()
        try:
            async with self._upstream.send_plain(
                codec.encode(request),
                request.host.name,
                self._contexts[request.host.trust],
                leg,
                admit,
                lambda name: name not in codec.DROPPED,
            ) as reply:
                status = reply.status
                await exchange.begin(status, reply.headers)
                async for chunk in reply.chunks():
                    await exchange.write(chunk)
                    received += len(chunk)
            await exchange.end("clean")
            outcome = "completed"
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cut"
            raise
        finally:
            if leg.begun:
                self._gate.record_settled(
                    request, task, Code.GRANTED, outcome,
                    status=status, received=received, milliseconds=round((perf_counter() - started) * 1000, 1),
                )  # fmt: skip


async def _fail(exchange: Exchange, refused: Refused) -> None:
    if exchange.begun:
        await exchange.end("abort")  # what comes of an answer is the host's own, or its end is to be seen
        return
    begun = bool(refused.details.get("begun"))
    code = Code.OUTCOME_UNKNOWN if begun else Code(refused.code)
    refusal = Refusal(code, refused.reason, begun=begun)
    await exchange.answer(HttpCodec().refuse(Malformed(code, refused.reason), refusal))
