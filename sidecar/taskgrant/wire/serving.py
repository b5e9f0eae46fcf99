"""An exchange in the hands of its handler, whatever it came in on: afterwards it is answered, or ended."""

import logging
from collections.abc import Awaitable, Callable

from taskgrant.model.call import Caller, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.ports import Exchange
from taskgrant.wire.problem import problem

_log = logging.getLogger("taskgrant.wire")

Handler = Callable[[Exchange], Awaitable[None]]
#: Told of each request that is refused before it is an exchange, so that it is on record like any other.
Refusing = Callable[[Caller, Refusal], None]


async def hand_over(exchange: Exchange, handler: Handler, on_refused: Refusing, listener: str) -> None:
    """Raises nothing of the handler's but a cancellation, after which the exchange is over as well."""
    try:
        await handler(exchange)
        if not exchange.begun and not exchange.ended:
            raise RuntimeError("the handler gave no answer")
    except ConnectionError:
        await exchange.end("abort")  # the client is gone
    except Exception:
        _log.exception("a request on the %s listener failed", listener)
        await _fail(exchange, on_refused)
    finally:
        if not exchange.ended:
            await exchange.end("abort")


async def _fail(exchange: Exchange, on_refused: Refusing) -> None:
    if exchange.begun or exchange.ended:
        await exchange.end("abort")
        return
    refusal = Refusal(Code.INVALID, "the sidecar failed; its log says why")
    on_refused(exchange.caller, refusal)
    await exchange.answer(problem(refusal.code, refusal.reason, 500), close=True)
