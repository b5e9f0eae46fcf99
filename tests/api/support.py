"""A small authority in memory, true to the port, and the control API served over it on a real Unix socket."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from taskgrant.api.config import ControlConfig
from taskgrant.api.server import ControlServer
from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.credential import Enrolled, Issued
from taskgrant.model.event import Cursor, Ended, Event, EventKind, Scope, ScopeKind, Verdict
from taskgrant.model.grant import Grant, GrantSpec, GrantState
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.json import JsonObject
from taskgrant.model.principal import Principal, Role
from taskgrant.model.task import Outcome, Started, Task, TaskSpec, TaskState
from taskgrant.model.time import Instant

NOW = Instant(1_800_000_000.0)
EPOCH = "memory"
_STATES = {
    Verdict.APPROVE: GrantState.ACTIVE,
    Verdict.REJECT: GrantState.REJECTED,
    Verdict.REVOKE: GrantState.REVOKED,
}


class MemoryAuthority:
    """Tasks and grants in dictionaries, events in a list. ``hold`` keeps ``end`` waiting, as guards would."""

    def __init__(self) -> None:
        self.by_task: dict[TaskId, Task] = {}
        self.by_grant: dict[GrantId, Grant] = {}
        self.replays: dict[tuple[str, str], Any] = {}
        self.frozen: set[Scope] = set()
        self.log: list[Event] = []
        self.acknowledged: list[tuple[str, Cursor]] = []
        self.subscribers: list[str | None] = []
        self.reasons: list[str] = []
        self.ended: list[TaskId] = []
        self.changed = asyncio.Condition()
        self.begun = asyncio.Event()
        self.hold = asyncio.Event()
        self.hold.set()
        self.pending = False

    async def start(self, spec: TaskSpec, by: Principal, key: str | None) -> Started:
        if Scope(ScopeKind.ALL) in self.frozen:
            raise Refused(Code.FROZEN, "everything is frozen")
        if key is not None and (by.id, key) in self.replays:
            return replace(self.replays[by.id, key], handle=None)
        id = TaskId(f"task-{len(self.by_task):04d}")
        handle = f"handle-of-{id}"
        digest = hashlib.sha256(handle.encode()).digest()
        deadline = Instant(NOW + (spec.expires_in or 3600.0))
        task = Task(
            id, "spiffe://test/ns/a/sa/agent", spec.purpose, TaskState.ACTIVE, NOW, deadline, by.id, digest,
            spec.type, spec.params, spec.on_behalf_of, spec.session, spec.uid, spec.idle_timeout,
        )  # fmt: skip
        self.by_task[id] = task
        started = Started(task, self._add(id, spec.grants, by), handle)
        if key is not None:
            self.replays[by.id, key] = started
        await self._tell(EventKind.TASK, {"task": id, "state": "active"})
        self.begun.set()
        await self.hold.wait()
        return started

    async def end(self, task: TaskId, how: Outcome, by: Principal) -> Ended:
        one = self._task(task)
        if not one.live:
            raise Refused(Code.TASK_ENDED, f"{task} is {one.state}")
        self.begun.set()
        await self.hold.wait()
        state = TaskState.COMPLETED if how is Outcome.COMPLETE else TaskState.CANCELLED
        self.by_task[task] = replace(one, state=state, ended_at=NOW, ended_by=by.id)
        self.ended.append(task)
        await self._tell(EventKind.REVOCATION, {"tasks": [task]})
        return Ended(NOW, NOW, (task,), unacknowledged=("guard-1",), begun=("call-1",))

    async def request(
        self, task: TaskId, grants: Sequence[GrantSpec], by: Principal, key: str | None
    ) -> tuple[Grant, ...]:
        self._task(task)
        if key is not None and (by.id, key) in self.replays:
            given: tuple[Grant, ...] = self.replays[by.id, key]
            return given
        added = self._add(task, grants, by)
        if key is not None:
            self.replays[by.id, key] = added
        return added

    async def judge(self, what: Scope, verdict: Verdict, by: Principal, reason: str = "") -> Ended:
        self.reasons.append(reason)
        if what.kind is ScopeKind.GRANT:
            grant = await self.grant(GrantId(what.id))
            if verdict is Verdict.APPROVE and grant.requested_by == by.id:
                raise Refused(Code.FORBIDDEN, "nobody approves what they asked for")
            self.by_grant[grant.id] = replace(grant, state=_STATES[verdict])
            await self._tell(EventKind.GRANT, {"grant": grant.id})
            return Ended(NOW, NOW, grants=(grant.id,))
        (self.frozen.add if verdict is Verdict.FREEZE else self.frozen.discard)(what)
        return Ended(NOW, None)

    async def rotate(self, task: TaskId, by: Principal) -> str:
        return f"new-handle-of-{self._task(task).id}"

    async def issue(self, task: TaskId, audience: str, csr: bytes) -> Issued:
        self._task(task)
        return Issued(task, audience, b"PEM", f"token-{len(csr)}", b"CA", "1a", "jti-1", (), NOW)

    async def enrol(self, server: str, csr: bytes, by: Principal) -> Enrolled:
        if server == "unknown":
            raise Refused(Code.UNKNOWN_SERVER, "no such server")
        return Enrolled(server, b"PEM", b"CA", {"keys": []}, NOW)

    async def events(self, after: Cursor | None, subscriber: str | None = None) -> AsyncIterator[Event]:
        self.subscribers.append(subscriber)
        try:
            if after is not None and after.epoch == EPOCH and after.seq > len(self.log):
                raise Refused(Code.CONFLICT, "that cursor is from the future")
            seq = after.seq if after is not None and after.epoch == EPOCH else len(self.log)
            if after is None or after.epoch != EPOCH:
                yield Event(Cursor(EPOCH, seq), EventKind.SNAPSHOT, NOW, {"tasks": sorted(self.by_task)})
            while True:
                async with self.changed:
                    while len(self.log) <= seq:
                        await self.changed.wait()
                    batch = self.log[seq:]
                for event in batch:
                    yield event
                seq += len(batch)
        finally:
            self.subscribers.remove(subscriber)
            async with self.changed:
                self.changed.notify_all()

    async def acknowledge(self, subscriber: str, cursor: Cursor) -> None:
        self.acknowledged.append((subscriber, cursor))

    async def task(self, task: TaskId) -> tuple[Task, tuple[Grant, ...]]:
        return self._task(task), tuple(one for one in self.by_grant.values() if one.task == task)

    async def tasks(self, after: TaskId | None, limit: int) -> tuple[Task, ...]:
        return tuple(one for id, one in sorted(self.by_task.items()) if after is None or id > after)[:limit]

    async def grant(self, grant: GrantId) -> Grant:
        if grant not in self.by_grant:
            raise Refused(Code.NOT_FOUND, f"there is no grant {grant}")
        return self.by_grant[grant]

    async def grants(self, after: GrantId | None, limit: int) -> tuple[Grant, ...]:
        return tuple(one for id, one in sorted(self.by_grant.items()) if after is None or id > after)[:limit]

    async def bundle(self) -> bytes:
        return b"-----BEGIN CERTIFICATE-----\n"

    async def jwks(self) -> JsonObject:
        return {"keys": []}

    async def crl(self) -> bytes:
        return b"-----BEGIN X509 CRL-----\n"

    async def introspect(self, token: str, audience: str) -> JsonObject:
        if token == "broken":
            raise RuntimeError("a fault that nobody foresaw, with a secret in it")
        return {"active": audience == "mail"}

    def _task(self, task: TaskId) -> Task:
        if task not in self.by_task:
            raise Refused(Code.NOT_FOUND, f"there is no task {task}")
        return self.by_task[task]

    def _add(self, task: TaskId, specs: Sequence[GrantSpec], by: Principal) -> tuple[Grant, ...]:
        added = []
        for spec in specs:
            id = GrantId(f"grant-{len(self.by_grant):04d}")
            state = GrantState.PENDING if self.pending else GrantState.ACTIVE
            schemas = () if spec.arguments is None else (spec.arguments,)
            expires = Instant(NOW + (spec.expires_in or 600.0))
            self.by_grant[id] = Grant(
                id, task, spec.server, spec.tools, schemas, state, NOW, expires, by.id, spec.max_uses,
                spec.idle_timeout, spec.reason,
            )  # fmt: skip
            added.append(self.by_grant[id])
        return tuple(added)

    async def _tell(self, kind: EventKind, body: JsonObject) -> None:
        async with self.changed:
            self.log.append(Event(Cursor(EPOCH, len(self.log) + 1), kind, NOW, body))
            self.changed.notify_all()

    async def unsubscribed(self) -> None:
        """Returns when nobody listens any more."""
        async with self.changed:
            await self.changed.wait_for(lambda: not self.subscribers)


@dataclass
class Answer:
    status: int
    headers: Any
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


@dataclass
class Served:
    """The API under test, and a plain HTTP client for it."""

    authority: MemoryAuthority
    server: ControlServer
    session: aiohttp.ClientSession
    seen: list[tuple[str, str]] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.server.socket_path

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        data = options.pop("data", None)
        if body is not None:
            data = json.dumps(body).encode()
            options.setdefault("headers", {}).setdefault("Content-Type", "application/json")
        async with self.session.request(method, f"http://control{path}", data=data, **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def problem(self, method: str, path: str, body: Any = None, **options: Any) -> dict[str, Any]:
        """The answer, which has to be a whole problem document."""
        answer = await self.ask(method, path, body, **options)
        assert answer.headers["Content-Type"].startswith("application/problem+json"), answer.raw
        problem = answer.json
        assert problem["status"] == answer.status >= 400
        assert problem["code"] in set(Code)
        assert problem["title"]
        assert problem["detail"]
        assert isinstance(problem, dict)
        return problem


@asynccontextmanager
async def served(
    directory: Path, roles: Sequence[Role] | dict[Role, tuple[int]] = tuple(Role), **config: Any
) -> AsyncIterator[Served]:
    """The API on ``directory``/control.sock, with this role table, or where our own uid has these roles."""
    authority = MemoryAuthority()
    table = roles if isinstance(roles, dict) else {role: (os.getuid(),) for role in roles}
    control = ControlConfig.model_validate({"socket": directory / "control.sock", "roles": table, **config})
    server = ControlServer(authority, control)
    await server.start()
    session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(control.socket)))
    try:
        yield Served(authority, server, session)
    finally:
        await session.close()
        await server.stop()


GRANT: dict[str, Any] = {
    "server": "mail",
    "tools": ["send_message"],
    "arguments": {"type": "object", "properties": {"to": {"type": "string", "enum": ["a@example.org"]}}},
    "max_uses": 2,
}
