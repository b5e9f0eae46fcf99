"""What each route does: read the request, ask the authority, answer with a document. No rule of the domain
is here.

Who may call what is in ``routes``; what is allowed to whom beyond that, the authority knows.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from taskgrant.api import body, shapes, stream
from taskgrant.api.config import ControlConfig
from taskgrant.api.report import report
from taskgrant.errors import Refused
from taskgrant.model import documents
from taskgrant.model.codes import Code
from taskgrant.model.event import Cursor, Scope, ScopeKind, Verdict
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.ports import Authority
from taskgrant.model.principal import Principal, Role
from taskgrant.model.task import Outcome

T = TypeVar("T")

PRINCIPAL: web.RequestKey[Principal] = web.RequestKey("principal", Principal)

_PAGE = frozenset({"after", "limit"})


@dataclass
class Handlers:
    """The handlers over one authority. ``effects`` are the changes in progress, which no peer's leaving cancels;
    ``streams`` are the event streams, which never end by themselves."""

    authority: Authority
    config: ControlConfig
    openapi: dict[str, Any] = field(default_factory=dict)
    effects: set[asyncio.Task[Any]] = field(default_factory=set)
    streams: set[asyncio.Task[Any]] = field(default_factory=set)

    async def _effect(self, change: Coroutine[Any, Any, T]) -> T:
        """Runs a change to its end even when the peer that asked for it goes away meanwhile."""
        running = asyncio.ensure_future(change)
        self.effects.add(running)
        running.add_done_callback(self.effects.discard)
        return await asyncio.shield(running)

    async def _read(self, request: web.Request, model: type[body.Model], form: bool = False) -> body.Model:
        return await body.read(request, model, self.config.body_limit, form)

    # Tasks

    async def start_task(self, request: web.Request) -> web.Response:
        asked = await self._read(request, shapes.TaskRequest)
        key = body.idempotency_key(request)
        started = await self._effect(self.authority.start(asked.spec(), request[PRINCIPAL], key))
        location = {"Location": f"/v1/tasks/{started.task.id}"}
        status = 201 if started.handle is not None else 200
        return _json(documents.started(started), status=status, headers=location)

    async def list_tasks(self, request: web.Request) -> web.Response:
        after, limit = body.page(body.parameters(request, _PAGE))
        tasks = await self.authority.tasks(TaskId(after) if after else None, limit + 1)
        shown = tasks[:limit]
        following = shown[-1].id if len(tasks) > limit else None
        return _json({"tasks": [documents.task(task) for task in shown], "next": following})

    async def show_task(self, request: web.Request) -> web.Response:
        task, grants = await self.authority.task(_task(request))
        return _json(documents.task_with_grants(task, grants))

    async def report_task(self, request: web.Request) -> web.Response:
        return _json(report(*await self.authority.task(_task(request))))

    async def complete_task(self, request: web.Request) -> web.Response:
        return await self._end(request, Outcome.COMPLETE)

    async def cancel_task(self, request: web.Request) -> web.Response:
        return await self._end(request, Outcome.CANCEL)

    async def _end(self, request: web.Request, how: Outcome) -> web.Response:
        await self._read(request, shapes.Nothing)
        ended = await self._effect(self.authority.end(_task(request), how, request[PRINCIPAL]))
        return _json(documents.ended(ended))

    async def rotate_handle(self, request: web.Request) -> web.Response:
        await self._read(request, shapes.Nothing)
        handle = await self._effect(self.authority.rotate(_task(request), request[PRINCIPAL]))
        return _json({"handle": handle})

    async def request_grants(self, request: web.Request) -> web.Response:
        asked = await self._read(request, shapes.GrantsRequest)
        key = body.idempotency_key(request)
        specs = tuple(one.spec() for one in asked.grants)
        change = self.authority.request(_task(request), specs, request[PRINCIPAL], key)
        return _json(documents.grants(await self._effect(change)), status=201)

    # Grants

    async def list_grants(self, request: web.Request) -> web.Response:
        after, limit = body.page(body.parameters(request, _PAGE))
        grants = await self.authority.grants(GrantId(after) if after else None, limit + 1)
        shown = grants[:limit]
        following = shown[-1].id if len(grants) > limit else None
        return _json({**documents.grants(shown), "next": following})

    async def show_grant(self, request: web.Request) -> web.Response:
        return _json(documents.grant(await self.authority.grant(GrantId(request.match_info["id"]))))

    async def approve_grant(self, request: web.Request) -> web.Response:
        return await self._judge_grant(request, Verdict.APPROVE)

    async def reject_grant(self, request: web.Request) -> web.Response:
        return await self._judge_grant(request, Verdict.REJECT)

    async def revoke_grant(self, request: web.Request) -> web.Response:
        return await self._judge_grant(request, Verdict.REVOKE)

    async def _judge_grant(self, request: web.Request, verdict: Verdict) -> web.Response:
        asked = await self._read(request, shapes.Reason)
        return await self._judge(
            request, Scope(ScopeKind.GRANT, request.match_info["id"]), verdict, asked.reason
        )

    async def freeze(self, request: web.Request) -> web.Response:
        asked = await self._read(request, shapes.ScopeRequest)
        return await self._judge(request, asked.scope(), Verdict.FREEZE, asked.reason)

    async def unfreeze(self, request: web.Request) -> web.Response:
        asked = await self._read(request, shapes.ScopeRequest)
        return await self._judge(request, asked.scope(), Verdict.UNFREEZE, asked.reason)

    async def _judge(self, request: web.Request, what: Scope, verdict: Verdict, reason: str) -> web.Response:
        change = self.authority.judge(what, verdict, request[PRINCIPAL], reason)
        return _json(documents.ended(await self._effect(change)))

    # Events, guards and credentials

    async def events(self, request: web.Request) -> web.StreamResponse:
        query = body.parameters(request, frozenset({"after", "subscriber"}))
        subscriber = query.get("subscriber") or None
        by = request[PRINCIPAL]
        if subscriber is not None and not (by.has(Role.GUARD) or by.has(Role.SIDECAR)):
            # A named subscriber is waited for by every revocation: only those who enforce one may be it.
            raise Refused(Code.FORBIDDEN, "only a guard or a sidecar may subscribe by name")
        after = stream.cursor(request, query)
        streaming = {task for task in (asyncio.current_task(),) if task is not None}
        self.streams |= streaming
        try:
            events = self.authority.events(after, subscriber)
            return await stream.relay(request, events, self.config.ping_interval)
        finally:
            self.streams -= streaming

    async def acknowledge(self, request: web.Request) -> web.Response:
        asked = await self._read(request, shapes.Acknowledgement)
        try:
            cursor = Cursor.parse(asked.cursor)
        except ValueError:
            fault = {"pointer": "/cursor", "detail": "not of the form <epoch>:<number>"}
            raise Refused(
                Code.INVALID, "the cursor is not of the form <epoch>:<number>", errors=[fault]
            ) from None
        await self.authority.acknowledge(asked.subscriber, cursor)
        return web.Response(status=204)

    async def enrol(self, request: web.Request) -> web.Response:
        asked = await self._read(request, shapes.SigningRequest)
        change = self.authority.enrol(request.match_info["server"], _der(asked.csr), request[PRINCIPAL])
        return _json(documents.enrolled(await self._effect(change)))

    async def issue(self, request: web.Request) -> web.Response:
        asked = await self._read(request, shapes.CredentialRequest)
        change = self.authority.issue(TaskId(asked.task), asked.audience, _der(asked.csr))
        return _json(documents.issued(await self._effect(change)))

    async def introspect(self, request: web.Request) -> web.Response:
        asked = await self._read(request, shapes.IntrospectionRequest, form=True)
        return _json(dict(await self.authority.introspect(asked.token, asked.audience)))

    async def jwks(self, request: web.Request) -> web.Response:
        return _json(dict(await self.authority.jwks()), content_type="application/jwk-set+json")

    async def bundle(self, request: web.Request) -> web.Response:
        return web.Response(body=await self.authority.bundle(), content_type="application/x-pem-file")

    async def crl(self, request: web.Request) -> web.Response:
        return web.Response(body=await self.authority.crl(), content_type="application/x-pem-file")

    async def describe(self, request: web.Request) -> web.Response:
        return _json(self.openapi)


def _json(
    document: dict[str, Any],
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    content_type: str = "application/json",
) -> web.Response:
    # Answers hold handles and credentials: no cache may keep one.
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return web.json_response(document, status=status, headers=headers, content_type=content_type)


def _task(request: web.Request) -> TaskId:
    return TaskId(request.match_info["id"])


def _der(text: str) -> bytes:
    try:
        return documents.read_csr(text)
    except ValueError:
        fault = {"pointer": "/csr", "detail": "not base64"}
        raise Refused(Code.INVALID, "the csr is not base64", errors=[fault]) from None
