"""Questions to OPA over its Unix socket: the only module that knows opa-python-client.

What that library has no options for is set in one place, ``_Session``: the socket, an unbounded pool (a call must not
wait for another's answer), no cookies, no compression, and a hook that keeps what OPA says about an error.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from opa_client.opa_async import AsyncOpaClient

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
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError) as error:
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
        self._connector = aiohttp.UnixConnector(str(self._socket), limit=0)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
            skip_auto_headers=("User-Agent", "Accept"),
            json_serialize=_ENCODER.encode,
            raise_for_status=_keep_message,
        )


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_plain)


async def _keep_message(response: aiohttp.ClientResponse) -> None:
    if response.status == 200:
        return
    text = await response.text(errors="replace")
    try:
        fault = json.loads(text)
        details = fault.get("errors") or [fault]
        message = "; ".join(str(one["message"]) for one in details)
    except (ValueError, TypeError, KeyError, AttributeError):
        message = text.strip() or "no message"
    raise OpaFault(f"OPA answered {response.status}: {message}"[:_LONGEST_MESSAGE])
