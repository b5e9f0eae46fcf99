"""Questions to OPA over its Unix socket: the only module that knows opa-python-client.

That library has no option for a Unix socket, and loses what OPA says about an error: it is given a session of ours
(``policy.session``), in the one place where it would make its own.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from opa_client.opa_async import AsyncOpaClient

from taskgrant.policy.session import UnixSession

#: A builtin that fails inside a `deny` would otherwise take the denial with it.
_STRICT = {"strict-builtin-errors": "true"}
_LONGEST_MESSAGE = 500


class OpaUnavailable(Exception):
    """No answer: nothing listens, the connection broke, or the deadline passed."""


class OpaFault(Exception):
    """An answer that is none: an error of evaluation, an undefined result, a refusal. ``str()`` is OPA's message."""


@dataclass(frozen=True, slots=True)
class Reply:
    """``result`` as OPA sent it; ``decision_id`` is empty unless that OPA logs its decisions."""

    result: Any
    decision_id: str


class OpaClient:
    """Asks within ``deadline`` seconds, once: no retries. Use as ``async with``; callers may share one."""

    def __init__(self, socket: Path, deadline: float) -> None:
        self._session = _Session(socket)
        self._deadline = deadline
        self._open = False

    async def __aenter__(self) -> Self:
        await self._session.__aenter__()
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        await self._session.close_connection()

    async def ask(self, package: str, rule: str, document: Mapping[str, Any]) -> Reply:
        """``data.<package>.<rule>`` for this input. Raises ``OpaUnavailable`` or ``OpaFault``, and nothing else."""
        if not self._open:
            raise OpaUnavailable("the connection to OPA is closed")
        try:
            async with asyncio.timeout(self._deadline):
                reply = await self._session.query_rule(document, package, rule, _STRICT)
        except TimeoutError as error:
            raise OpaUnavailable(f"OPA did not answer within {self._deadline * 1000:g} ms") from error
        except OSError as error:
            raise OpaUnavailable(f"OPA cannot be reached: {error}") from error
        except OpaFault:
            raise
        except Exception as error:  # the library and JSON raise what they like; none of it is an answer
            raise OpaFault(
                f"the question or the answer cannot be read: {error}"[:_LONGEST_MESSAGE]
            ) from error
        if not isinstance(reply, dict) or "result" not in reply:
            raise OpaFault(f"data.{package.replace('/', '.')}.{rule} is undefined")
        decision_id = reply.get("decision_id")
        return Reply(reply["result"], decision_id if isinstance(decision_id, str) else "")


class _Session(AsyncOpaClient):  # type: ignore[misc]  # the library ships no types
    def __init__(self, socket: Path) -> None:
        # The host is only what the Host header says.
        super().__init__(host="opa", port=80, retries=0)
        self._socket = socket

    async def _init_session(self) -> None:
        self._session = UnixSession(self._socket, _fault)


def _fault(status: int, body: bytes) -> OpaFault:
    text = body.decode(errors="replace")
    try:
        fault = json.loads(text)
        details = fault.get("errors") or [fault]
        message = "; ".join(_told(one) for one in details)
    except (ValueError, TypeError, KeyError, AttributeError):
        message = text.strip() or "no message"
    return OpaFault(f"OPA answered {status}: {message}"[:_LONGEST_MESSAGE])


def _told(fault: Mapping[str, Any]) -> str:
    """One of OPA's errors, and where. What a builtin says of its operands is left out: an agent's arguments are not for
    a log.
    """
    message = str(fault["message"])
    if fault.get("code") == "eval_builtin_error":
        message = f"{message.partition(':')[0]} failed"
    where = fault.get("location")
    return message if where is None else f"{message} at {where['file']}:{where['row']}"
