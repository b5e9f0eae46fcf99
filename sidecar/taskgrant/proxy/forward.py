"""From a permit to the first byte and to the settled use: rate → credential → connection → use and record → send."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from time import perf_counter
from typing import Protocol

from taskgrant.errors import Refused, Severed
from taskgrant.model.call import Kind, Outbound, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.credential import Issued
from taskgrant.model.ports import Reply, Reservation
from taskgrant.proxy import records
from taskgrant.proxy.parts import Parts, Permitted
from taskgrant.wire.legs import Leg
from taskgrant.wire.websocket import Tally


class Sending(Protocol):
    """What sends one request: see ``ports.Upstream``."""

    def send(
        self, out: Outbound, issued: Issued, leg: Leg, admit: Callable[[], Awaitable[None]]
    ) -> AbstractAsyncContextManager[Reply]: ...


def check_rate(parts: Parts, permitted: Permitted) -> None:
    """Raises ``errors.Refused`` (rate_limited) when policy's rate for the tool is reached."""
    limit = permitted.decision.obligations.rate_per_minute
    call = permitted.call
    if limit is None or call.tool is None:
        return
    if not parts.rates.admit(permitted.task.id, call.server, call.tool, limit, parts.clock.now()):
        raise Refused(Code.RATE_LIMITED, f"{call.tool} may be called {limit} times a minute; try again later")


async def credential(parts: Parts, permitted: Permitted) -> Issued:
    started = perf_counter()
    issued = await parts.credentials.get(permitted.task.id, permitted.server.name, permitted.grants)
    parts.telemetry.observe("credential", perf_counter() - started)
    return issued


@asynccontextmanager
async def send(
    parts: Parts,
    permitted: Permitted,
    out: Outbound,
    issued: Issued,
    tally: Tally | None = None,
    upstream: Sending | None = None,
) -> AsyncIterator[Reply]:
    """One permit, one upstream request, by ``upstream`` if it is not for the usual one. The use is reserved when the
    connection stands, and settled on the way out.

    A use is given back only if not one byte of the call was written. Raises what ``Upstream.send`` raises, and
    ``errors.Refused`` when the ledger does not give the use or cannot write it down. ``tally`` counts what passes when
    the protocol is changed.
    """
    call, task = permitted.call, permitted.task
    reservation: Reservation | None = None
    # A handshake may have gone out on this leg before: what counts from here on is this call.
    permitted.leg.begun = False

    async def admit() -> None:
        nonlocal reservation
        started = perf_counter()
        record = records.permitted(
            call, permitted.exchange.caller, task, permitted.decision, issued.serial, parts.clock.now()
        )
        if call.kind is Kind.TOOL:
            identity = parts.rounds.begin(task.id, call, permitted.grant.id)
            taken = await parts.ledger.reserve(permitted.grant.id, call.id, identity, record)
            if isinstance(taken, Refusal):
                raise Refused(taken.code, taken.reason)
            reservation = taken
        else:
            await parts.recorder.write(record)
        parts.telemetry.observe("record", perf_counter() - started)
        parts.telemetry.decided(Code.GRANTED, call.server)

    outcome, status, counted = "failed", None, None
    started = perf_counter()
    try:
        async with (upstream or parts.upstream).send(out, issued, permitted.leg, admit) as reply:
            status = reply.status
            counted = tally if reply.duplex is not None else None
            yield reply
        outcome = "completed"
    except (asyncio.CancelledError, GeneratorExit, Severed):
        outcome = "cut"
        raise
    finally:
        parts.telemetry.observe("upstream", perf_counter() - started)
        parts.rounds.end(call.id, permitted.leg.begun)
        passed = None if counted is None else asdict(counted)
        record = records.settled(call, task, outcome, permitted.leg.begun, parts.clock.now(), status, passed)
        if reservation is not None:
            await parts.ledger.settle(reservation, permitted.leg.begun, record)
        elif permitted.leg.begun:
            parts.recorder.post(record)
