"""``SyncTaskgrantClient``: the control API without asyncio, on http.client; what TaskgrantClient does,
this does too."""

import http.client
import socket as sockets
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar

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

DEFAULT_TIMEOUT = 60.0
STREAM_SILENCE = 75.0
_CHUNK = 65_536


class SyncTaskgrantClient:
    """Every method raises Refused: with the problem's code, or authority_unavailable when nobody answers.

    A connection per request, so that it may be shared between threads and needs no closing.
    """

    def __init__(self, socket: str | Path, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.socket = Path(socket)
        self._timeout = timeout

    def start(self, asked: TaskSpec | Mapping[str, Any], key: str | None = None) -> Started:
        """Starts a task. With a ``key`` it can be repeated; a repeat answers without the handle."""
        return self._send(operations.start(asked, key))

    def end(self, task: str, how: Outcome = Outcome.COMPLETE) -> Ended:
        """Returns when everything that the task had is severed."""
        return self._send(operations.end(task, how))

    def complete(self, task: str) -> Ended:
        return self.end(task, Outcome.COMPLETE)

    def cancel(self, task: str) -> Ended:
        return self.end(task, Outcome.CANCEL)

    def rotate(self, task: str) -> str:
        """A new handle; the old one is dead."""
        return self._send(operations.rotate(task))

    def request(self, task: str, grants: Sequence[AskedGrant], key: str | None = None) -> tuple[Grant, ...]:
        """Asks for more grants; they may be pending."""
        return self._send(operations.request(task, grants, key))

    def show_task(self, task: str) -> tuple[Task, tuple[Grant, ...]]:
        return self._send(operations.show_task(task))

    def list_tasks(self, after: str | None = None, limit: int = 100) -> tuple[Task, ...]:
        """One page; the next one is ``after`` the last id of this one."""
        return self._send(operations.list_tasks(after, limit))

    def report(self, task: str) -> JsonObject:
        """Granted against used, as the API shows it."""
        return self._send(operations.report(task))

    def show_grant(self, grant: str) -> Grant:
        return self._send(operations.show_grant(grant))

    def list_grants(self, after: str | None = None, limit: int = 100) -> tuple[Grant, ...]:
        return self._send(operations.list_grants(after, limit))

    def approve(self, grant: str, reason: str = "") -> Ended:
        return self._send(operations.judge_grant(grant, Verdict.APPROVE, reason))

    def reject(self, grant: str, reason: str = "") -> Ended:
        return self._send(operations.judge_grant(grant, Verdict.REJECT, reason))

    def revoke(self, grant: str, reason: str = "") -> Ended:
        """Returns when the grant's calls are severed."""
        return self._send(operations.judge_grant(grant, Verdict.REVOKE, reason))

    def freeze(self, kind: ScopeKind | str, id: str = "", reason: str = "") -> Ended:
        return self._send(operations.freeze(Scope(ScopeKind(kind), id), Verdict.FREEZE, reason))

    def unfreeze(self, kind: ScopeKind | str, id: str = "", reason: str = "") -> Ended:
        return self._send(operations.freeze(Scope(ScopeKind(kind), id), Verdict.UNFREEZE, reason))

    def acknowledge(self, subscriber: str, cursor: Cursor) -> None:
        self._send(operations.acknowledge(subscriber, cursor))

    def enrol(self, server: str, csr: bytes) -> Enrolled:
        """A guard's server certificate for a CSR in DER."""
        return self._send(operations.enrol(server, csr))

    def issue(self, task: str, audience: str, csr: bytes) -> Issued:
        """A task's credential at one audience for a CSR in DER."""
        return self._send(operations.issue(task, audience, csr))

    def introspect(self, token: str, audience: str) -> JsonObject:
        return self._send(operations.introspect(token, audience))

    def jwks(self) -> JsonObject:
        return self._send(operations.jwks())

    def bundle(self) -> bytes:
        return self._send(operations.bundle())

    def crl(self) -> bytes:
        return self._send(operations.crl())

    def events(
        self, after: Cursor | None = None, subscriber: str | None = None
    ) -> Generator[Event, None, None]:
        """Snapshot (unless ``after`` can be resumed), changes, heartbeats. Never ends by itself, see
        TaskgrantClient."""
        operation = operations.events(after, subscriber)
        parser = Parser()
        with self._exchange(operation, STREAM_SILENCE) as response:
            if response.status != 200:
                raise operations.refusal(response.status, response.read())
            while chunk := response.read1(_CHUNK):
                yield from feed(parser, chunk)
        raise operations.unreachable(self.socket, "it closed the event stream")

    @contextmanager
    def task(
        self, purpose: str, grants: Sequence[AskedGrant] = (), **members: Any
    ) -> Iterator["SyncRunningTask"]:
        """A task for the time of the block: completed when it is left, cancelled when it is left by an
        exception."""
        asked = operations.task_request(purpose, grants, members)
        running = SyncRunningTask(self, self.start(asked, str(uuid.uuid4())))
        try:
            yield running
        except BaseException:
            if not running.over:
                with suppress(Refused):  # what is under way matters more; the deadline ends the task
                    running.cancel()
            raise
        if not running.over:
            running.complete()

    def _send(self, operation: Operation[T]) -> T:
        with self._exchange(operation, self._timeout) as response:
            body = response.read()
        return operation.answer(response.status, body)

    @contextmanager
    def _exchange(self, operation: Operation[T], timeout: float) -> Iterator[http.client.HTTPResponse]:
        try:
            with closing(_UnixConnection(self.socket, timeout)) as connection:
                connection.request(operation.method, operation.path, operation.payload, operation.all_headers)
                with connection.getresponse() as response:
                    yield response
        except TimeoutError as error:
            raise operations.unreachable(self.socket, "it did not answer in time") from error
        except (http.client.HTTPException, OSError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise operations.unreachable(self.socket, why) from error


@dataclass(slots=True)
class SyncRunningTask:
    """A started task and what can be done with it. ``handle`` is a secret of the agent that works on
    the task."""

    client: SyncTaskgrantClient
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

    def request(self, grants: Sequence[AskedGrant], key: str | None = None) -> tuple[Grant, ...]:
        return self.client.request(self.id, grants, key)

    def report(self) -> JsonObject:
        return self.client.report(self.id)

    def complete(self) -> Ended:
        return self._end(Outcome.COMPLETE)

    def cancel(self) -> Ended:
        return self._end(Outcome.CANCEL)

    def _end(self, how: Outcome) -> Ended:
        ended = self.client.end(self.id, how)
        self.over = True
        return ended


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("taskgrant", timeout=timeout)
        self._path = path
        self._seconds = timeout

    def connect(self) -> None:
        self.sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self.sock.settimeout(self._seconds)
        self.sock.connect(str(self._path))
