"""``TaskgrantClient``: the control API for asyncio."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp

from taskgrant.client import operations
from taskgrant.client.events import feed
from taskgrant.client.operations import AskedGrant, Operation
from taskgrant.client.sse import Parser
from taskgrant.errors import Refused
from taskgrant.model.credential import Enrolled, Issued
from taskgrant.model.event import Cursor, Ended, Event, Scope, ScopeKind, Verdict
from taskgrant.model.grant import Grant
from taskgrant.model.json import JsonObject
from taskgrant.model.task import Outcome, Started, Task, TaskSpec

T = TypeVar("T")

#: Ending a task waits for the guards, each at most for its staleness bound.
DEFAULT_TIMEOUT = 60.0
#: How long an interrupted ``task()`` tries to end its task before it gives up and leaves it to its deadline.
END_TIMEOUT = 10.0
#: A silent event stream is dead: the server sends a comment at least this often.
STREAM_SILENCE = 75.0
_URL = "http://taskgrant"


class TaskgrantClient:
    """Every method raises Refused: with the problem's code, or authority_unavailable when nobody answers.

    Usable at once; ``async with`` or ``close`` ends its connections. ``timeout`` is seconds for one answer.
    """

    def __init__(self, socket: str | Path, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.socket = Path(socket)
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def start(self, asked: TaskSpec | Mapping[str, Any], key: str | None = None) -> Started:
        """Starts a task. With a ``key`` it can be repeated; a repeat answers without the handle."""
        return await self._send(operations.start(asked, key))

    async def end(self, task: str, how: Outcome = Outcome.COMPLETE) -> Ended:
        """Returns when everything that the task had is severed."""
        return await self._send(operations.end(task, how))

    async def complete(self, task: str) -> Ended:
        return await self.end(task, Outcome.COMPLETE)

    async def cancel(self, task: str) -> Ended:
        return await self.end(task, Outcome.CANCEL)

    async def rotate(self, task: str) -> str:
        """A new handle; the old one is dead."""
        return await self._send(operations.rotate(task))

    async def request(
        self, task: str, grants: Sequence[AskedGrant], key: str | None = None
    ) -> tuple[Grant, ...]:
        """Asks for more grants; they may be pending."""
        return await self._send(operations.request(task, grants, key))

    async def show_task(self, task: str) -> tuple[Task, tuple[Grant, ...]]:
        return await self._send(operations.show_task(task))

    async def list_tasks(self, after: str | None = None, limit: int = 100) -> tuple[Task, ...]:
        """One page; the next one is ``after`` the last id of this one."""
        return await self._send(operations.list_tasks(after, limit))

    async def report(self, task: str) -> JsonObject:
        """Granted against used, as the API shows it."""
        return await self._send(operations.report(task))

    async def show_grant(self, grant: str) -> Grant:
        return await self._send(operations.show_grant(grant))

    async def list_grants(self, after: str | None = None, limit: int = 100) -> tuple[Grant, ...]:
        return await self._send(operations.list_grants(after, limit))

    async def approve(self, grant: str, reason: str = "") -> Ended:
        return await self._send(operations.judge_grant(grant, Verdict.APPROVE, reason))

    async def reject(self, grant: str, reason: str = "") -> Ended:
        return await self._send(operations.judge_grant(grant, Verdict.REJECT, reason))

    async def revoke(self, grant: str, reason: str = "") -> Ended:
        """Returns when the grant's calls are severed."""
        return await self._send(operations.judge_grant(grant, Verdict.REVOKE, reason))

    async def freeze(self, kind: ScopeKind | str, id: str = "", reason: str = "") -> Ended:
        return await self._send(operations.freeze(Scope(ScopeKind(kind), id), Verdict.FREEZE, reason))

    async def unfreeze(self, kind: ScopeKind | str, id: str = "", reason: str = "") -> Ended:
        return await self._send(operations.freeze(Scope(ScopeKind(kind), id), Verdict.UNFREEZE, reason))

    async def acknowledge(self, subscriber: str, cursor: Cursor) -> None:
        await self._send(operations.acknowledge(subscriber, cursor))

    async def enrol(self, server: str, csr: bytes) -> Enrolled:
        """A guard's server certificate for a CSR in DER."""
        return await self._send(operations.enrol(server, csr))

    async def issue(self, task: str, audience: str, csr: bytes) -> Issued:
        """A task's credential at one audience for a CSR in DER."""
        return await self._send(operations.issue(task, audience, csr))

    async def introspect(self, token: str, audience: str) -> JsonObject:
        return await self._send(operations.introspect(token, audience))

    async def jwks(self) -> JsonObject:
        return await self._send(operations.jwks())

    async def bundle(self) -> bytes:
        return await self._send(operations.bundle())

    async def crl(self) -> bytes:
        return await self._send(operations.crl())

    async def events(
        self, after: Cursor | None = None, subscriber: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """Snapshot (unless ``after`` can be resumed), changes, heartbeats.

        Never ends by itself: a stream that breaks, falls silent or is closed raises Refused
        (authority_unavailable).
        """
        operation = operations.events(after, subscriber)
        parser = Parser()
        silence = aiohttp.ClientTimeout(
            total=None, sock_connect=self._timeout.total, sock_read=STREAM_SILENCE
        )
        try:
            async with self._connected().get(
                _URL + operation.path, headers=operation.all_headers, timeout=silence
            ) as response:
                if response.status != 200:
                    raise operations.refusal(response.status, await response.read())
                async for chunk in response.content.iter_any():
                    for event in feed(parser, chunk):
                        yield event
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise operations.unreachable(self.socket, _why(error)) from error
        raise operations.unreachable(self.socket, "it closed the event stream")

    @asynccontextmanager
    async def task(
        self, purpose: str, grants: Sequence[AskedGrant] = (), **members: Any
    ) -> AsyncIterator["RunningTask"]:
        """A task for the time of the block: completed when it is left, cancelled when it is left by an
        exception.

        ``members`` are those of ``POST /v1/tasks`` (``expires_in``, ``on_behalf_of``, …). Cancelling the
        caller never leaves a task behind, not even while it is being started, as long as the authority
        answers.
        """
        asked = operations.task_request(purpose, grants, members)
        starting = asyncio.ensure_future(self.start(asked, str(uuid.uuid4())))
        try:
            started = await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.ensure_future(self._abandon(starting)))
            raise
        running = RunningTask(self, started)
        try:
            yield running
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(self._cancel_quietly(running)))
            raise
        if not running.over:
            await asyncio.shield(asyncio.ensure_future(running.complete()))

    async def _abandon(self, starting: "asyncio.Future[Started]") -> None:
        """Ends a task whose start was interrupted, once it is known to have started."""
        with suppress(Refused, TimeoutError):
            async with asyncio.timeout(END_TIMEOUT):
                await self.cancel((await starting).task.id)

    async def _cancel_quietly(self, running: "RunningTask") -> None:
        """The exception that is under way matters more than a task that its deadline will end."""
        if not running.over:
            with suppress(Refused, TimeoutError):
                async with asyncio.timeout(END_TIMEOUT):
                    await running.cancel()

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            # A connection each: a kept one that the server has closed would make aiohttp send a GET twice.
            connector = aiohttp.UnixConnector(path=str(self.socket), force_close=True, limit=0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        return self._session

    async def _send(self, operation: Operation[T]) -> T:
        try:
            async with self._connected().request(
                operation.method, _URL + operation.path, data=operation.payload, headers=operation.all_headers
            ) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise operations.unreachable(self.socket, _why(error)) from error
        return operation.answer(response.status, body)


@dataclass(slots=True)
class RunningTask:
    """A started task and what can be done with it. ``handle`` is a secret of the agent that works on
    the task."""

    client: TaskgrantClient
    started: Started
    over: bool = False

    @property
    def id(self) -> str:
        return self.started.task.id

    @property
    def handle(self) -> str | None:
        return self.started.handle

    @property
    def grants(self) -> tuple[Grant, ...]:
        """As they were at the start."""
        return self.started.grants

    def env(self, proxy: str = operations.PROXY, trust: PurePath | str | None = None) -> dict[str, str]:
        """Environment variables for the agent's process; see ``operations.environment``."""
        return operations.environment(self.handle, proxy, trust)

    async def request(self, grants: Sequence[AskedGrant], key: str | None = None) -> tuple[Grant, ...]:
        return await self.client.request(self.id, grants, key)

    async def report(self) -> JsonObject:
        return await self.client.report(self.id)

    async def complete(self) -> Ended:
        return await self._end(Outcome.COMPLETE)

    async def cancel(self) -> Ended:
        return await self._end(Outcome.CANCEL)

    async def _end(self, how: Outcome) -> Ended:
        ended = await self.client.end(self.id, how)
        self.over = True
        return ended


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
