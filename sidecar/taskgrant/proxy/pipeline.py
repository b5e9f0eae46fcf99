"""The pipeline: each request that the agent sends, from its first byte to its answer.

    locate → read and parse → bind to a task → [answered here] → register → decide → check → forward → relay → answer

Whatever goes wrong on the way ends in one place, as a refusal with a code: recorded, counted, and answered in words
that a model can read.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from time import perf_counter

from taskgrant.errors import Refused, Severed
from taskgrant.model.call import Call, Caller, Malformed, Refusal
from taskgrant.model.catalogue import Server
from taskgrant.model.codes import Code
from taskgrant.model.coverage import compare
from taskgrant.model.decision import Decision
from taskgrant.model.event import Revocation
from taskgrant.model.ids import CallId, TaskId
from taskgrant.model.ports import Codec, Exchange
from taskgrant.model.task import Task
from taskgrant.protocols.http import HttpCodec
from taskgrant.proxy import records
from taskgrant.proxy.decide import check_permit, decide, grants_of
from taskgrant.proxy.egress import Egress
from taskgrant.proxy.flows import Flow
from taskgrant.proxy.forward import check_rate
from taskgrant.proxy.gate import WITHOUT_TASK
from taskgrant.proxy.locate import check_path, locate
from taskgrant.proxy.parts import Parts, Permitted

Ended = Callable[[Collection[TaskId]], None]


class Pipeline:
    """Handles exchanges. ``flows``, by protocol, know what is answered here and how a permitted call is sent; what
    dials no tool server may be for ``egress``.
    """

    def __init__(self, parts: Parts, flows: dict[str, Flow], egress: Egress) -> None:
        self._parts = parts
        self._flows = flows
        self._egress = egress
        self._in_flight = 0
        self._calls: Counter[TaskId] = Counter()
        self._on_ended: list[Ended] = []

    @property
    def in_flight(self) -> int:
        return self._in_flight

    async def handle(self, exchange: Exchange) -> None:
        if self._in_flight >= self._parts.config.max_calls:
            fault = Malformed(
                Code.OVERLOADED,
                "too many calls are in flight; try again later",
            )
            await self._refuse(exchange, HttpCodec(), fault, _told(fault), None, None, "")
            return
        self._in_flight += 1
        try:
            await self._locate(exchange)
        finally:
            self._in_flight -= 1

    def turned_away(self, caller: Caller, refusal: Refusal) -> None:
        """A listener has refused what no exchange could be made of, or a client that is not the agent's."""
        fault = Malformed(refusal.code, refusal.reason)
        self._record_refusal(fault, caller, None, refusal, None, "")

    def on_ended(self, ended: Ended) -> None:
        """To be told of tasks that end."""
        self._on_ended.append(ended)

    async def apply(self, revocation: Revocation) -> tuple[CallId, ...]:
        """Severs and forgets what ended. Returning means severed; answers the calls that had begun."""
        for ended in self._on_ended:  # first, so that answers of severed calls are their connection's last
            ended(revocation.tasks)
        self._parts.credentials.apply(revocation)
        begun = await self._parts.upstream.apply(revocation)
        for task in revocation.tasks:
            self._parts.rates.forget(task)
            self._parts.rounds.forget(task)
            self._calls.pop(task, None)
            for flow in self._flows.values():
                flow.forget(task)
        return begun

    # -- the steps ---------------------------------------------------------------------------------------------

    async def _locate(self, exchange: Exchange) -> None:
        host = self._egress.of(exchange.destination)
        if host is not None:
            await self._egress.handle(exchange, host)
            return
        try:
            server = locate(self._parts.catalogue, exchange.destination)
        except Refused as refused:
            fault = Malformed(Code(refused.code), refused.reason)
            await self._refuse(exchange, HttpCodec(), fault, _told(fault), None, None, "")
            return
        codec = self._parts.codecs[server.protocol]
        started = perf_counter()
        try:
            check_path(server, exchange.head)
            body = await exchange.body(self._parts.body_limit)
        except Refused as refused:
            parsed: Call | Malformed = Malformed(Code(refused.code), refused.reason)
        else:
            parsed = codec.parse(server, exchange.head, body)
        self._parts.telemetry.observe("parse", perf_counter() - started)
        if isinstance(parsed, Malformed):
            await self._refuse(exchange, codec, parsed, _told(parsed), None, None, server.name)
            return
        await self._bind(exchange, server, codec, parsed)

    async def _bind(self, exchange: Exchange, server: Server, codec: Codec, call: Call) -> None:
        bound = self._parts.view.bind(exchange.caller)
        if isinstance(bound, Refusal):
            if bound.code not in WITHOUT_TASK:
                await self._refuse(exchange, codec, call, bound, None, None, server.name)
                return
            task = None
        else:
            task = bound
            exchange.serves(task.id)
        try:
            if await self._answer(exchange, server, call, task):
                return
            if isinstance(bound, Refusal):
                await self._refuse(exchange, codec, call, bound, None, None, server.name)
            else:
                await self._call(exchange, server, codec, call, bound)
        except Refused as refused:
            await self._refuse(exchange, codec, call, _refusal(refused), task, None, server.name)

    async def _answer(self, exchange: Exchange, server: Server, call: Call, task: Task | None) -> bool:
        """False when only the tool server can answer. What is answered here is on record once it is."""
        try:
            if not await self._flows[server.protocol].answer(exchange, server, call, task):
                return False
        except asyncio.CancelledError:
            if exchange.begun:  # the client has left the stream that was opened for it
                self._record_answer(exchange, server, call, task)
            raise
        self._record_answer(exchange, server, call, task)
        return True

    def _record_answer(self, exchange: Exchange, server: Server, call: Call, task: Task | None) -> None:
        self._parts.telemetry.decided(Code.GRANTED, server.name)
        self._parts.recorder.post(records.answered(call, exchange.caller, task, self._parts.clock.now()))

    async def _call(self, exchange: Exchange, server: Server, codec: Codec, call: Call, task: Task) -> None:
        decision: Decision | None = None
        try:
            # Registered first, read afterwards: a revocation either finds the leg or is already in the view.
            async with self._parts.legs.open(call.id, task.id, server.name, task.deadline) as leg:
                current = self._parts.view.bind(exchange.caller)
                if isinstance(current, Refusal):
                    raise Refused(current.code, current.reason)
                if current.id != task.id:
                    raise Refused(Code.TASK_ENDED, "the task is over; its access ended with it")
                grants = grants_of(self._parts, call, task)
                if self._parts.view.frozen(task, server.name, call.tool):
                    raise Refused(Code.FROZEN, f"{call.tool or server.name} is frozen by an operator")
                self._calls[task.id] += 1
                request = {"listener": exchange.caller.listener}
                compared = compare(grants, call)
                calls = self._calls[task.id] - 1
                decision = await decide(self._parts, call, task, grants, compared, calls, request)
                grants = grants_of(self._parts, call, task)  # as they are now: deciding took its time
                grant = check_permit(self._parts, call, grants, compared, decision)
                leg.narrow(grant.id, grant.expires_at)
                permitted = Permitted(exchange, server, call, task, grant, grants, decision, leg)
                check_rate(self._parts, permitted)
                await self._flows[server.protocol].forward(permitted)
        except Refused as refused:
            await self._refuse(exchange, codec, call, _refusal(refused), task, decision, server.name)
        except Severed as severed:
            await self._refuse(exchange, codec, call, _cut(severed), task, decision, server.name)

    # -- refusals ----------------------------------------------------------------------------------------------

    async def _refuse(
        self,
        exchange: Exchange,
        codec: Codec,
        call: Call | Malformed,
        refusal: Refusal,
        task: Task | None,
        decision: Decision | None,
        server: str,
    ) -> None:
        self._record_refusal(call, exchange.caller, task, refusal, decision, server)
        if not exchange.begun:
            await exchange.answer(codec.refuse(call, refusal))
            return
        if isinstance(call, Call) and not exchange.ended:
            flow, grace = self._flows[call.protocol], self._parts.config.cut_grace_ms / 1000
            event, trailers = flow.refuse_event(call, refusal), flow.refuse_trailers(call, refusal)
            if event is not None and exchange.streaming:
                await exchange.finish_within(event, grace)
            elif trailers:
                await exchange.finish_within(b"", grace, trailers)
        if not exchange.ended:
            await exchange.end("abort")

    def _record_refusal(
        self,
        call: Call | Malformed,
        caller: Caller,
        task: Task | None,
        refusal: Refusal,
        decision: Decision | None,
        server: str,
    ) -> None:
        now = self._parts.clock.now()
        self._parts.telemetry.decided(refusal.code, server)
        self._parts.recorder.post(records.refused(call, caller, task, refusal, decision, server, now))


def _told(fault: Malformed) -> Refusal:
    return Refusal(fault.code, fault.detail)


def _refusal(refused: Refused) -> Refusal:
    return Refusal(
        Code(refused.code),
        refused.reason,
        can_ask=bool(refused.details.get("can_ask")),
        begun=bool(refused.details.get("begun")),
    )


def _cut(severed: Severed) -> Refusal:
    """What had reached the tool may have had its effect: that is an unknown outcome, never a denial."""
    if severed.begun:
        return Refusal(Code.OUTCOME_UNKNOWN, f"{severed.reason} while the tool was at work", begun=True)
    return Refusal(Code(severed.code), severed.reason)
