"""Model values as JSON documents, and back: the shapes of the control API, the same for its server and
clients.

Times are RFC 3339 strings, durations are seconds, identifiers are strings, PEM is text, DER is base64. A
reader ignores members that it does not know (a newer authority may say more) and raises ``ValueError`` for
one that is missing or of another type. Secrets leave in one place only: ``started`` shows the handle, and
shows null when the answer is a replay.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from taskgrant.model.credential import Enrolled, Issued
from taskgrant.model.event import Cursor, Ended, Event, EventKind, Scope, ScopeKind
from taskgrant.model.grant import Grant, GrantSpec, GrantState
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.task import Started, Task, TaskSpec, TaskState
from taskgrant.model.time import Instant, from_rfc3339, to_rfc3339

Document = dict[str, Any]
T = TypeVar("T")


def _time(at: Instant | None) -> str | None:
    return None if at is None else to_rfc3339(at)


def grant_spec(spec: GrantSpec) -> Document:
    """What is asked for; members that say nothing are left out."""
    document: Document = {"server": spec.server, "tools": list(spec.tools)}
    if spec.arguments is not None:
        document["arguments"] = dict(spec.arguments)
    for name in ("max_uses", "expires_in", "idle_timeout"):
        if getattr(spec, name) is not None:
            document[name] = getattr(spec, name)
    if spec.reason:
        document["reason"] = spec.reason
    return document


def task_spec(spec: TaskSpec) -> Document:
    """What an orchestrator asks for; members that say nothing are left out."""
    document: Document = {"purpose": spec.purpose}
    for name in ("type", "on_behalf_of", "session"):
        if getattr(spec, name):
            document[name] = getattr(spec, name)
    if spec.params:
        document["params"] = dict(spec.params)
    for name in ("expires_in", "idle_timeout", "uid"):
        if getattr(spec, name) is not None:
            document[name] = getattr(spec, name)
    if spec.grants:
        document["grants"] = [grant_spec(one) for one in spec.grants]
    return document


def task(value: Task) -> Document:
    """The task without its handle's digest, which is of no use to anyone but the authority."""
    return {
        "id": value.id,
        "agent": value.agent,
        "purpose": value.purpose,
        "state": value.state.value,
        "type": value.type,
        "params": dict(value.params),
        "on_behalf_of": value.on_behalf_of,
        "session": value.session,
        "uid": value.uid,
        "created_at": to_rfc3339(value.created_at),
        "created_by": value.created_by,
        "deadline": to_rfc3339(value.deadline),
        "idle_timeout": value.idle_timeout,
        "last_active_at": _time(value.last_active_at),
        "ended_at": _time(value.ended_at),
        "ended_by": value.ended_by,
    }


def grant(value: Grant) -> Document:
    return {
        "id": value.id,
        "task": value.task,
        "server": value.server,
        "tools": list(value.tools),
        "schemas": [dict(schema) for schema in value.schemas],
        "state": value.state.value,
        "created_at": to_rfc3339(value.created_at),
        "expires_at": to_rfc3339(value.expires_at),
        "requested_by": value.requested_by,
        "max_uses": value.max_uses,
        "idle_timeout": value.idle_timeout,
        "reason": value.reason,
        "used": value.used,
        "in_flight": value.in_flight,
        "remaining": value.remaining,
        "last_used_at": _time(value.last_used_at),
        "ended_at": _time(value.ended_at),
        "ended_by": value.ended_by,
        "notes": list(value.notes),
        "approvers": list(value.approvers),
        "activated_at": _time(value.activated_at),
    }


def grants(values: Sequence[Grant]) -> Document:
    return {"grants": [grant(value) for value in values]}


def task_with_grants(value: Task, its: Sequence[Grant]) -> Document:
    return {"task": task(value), **grants(its)}


def started(value: Started) -> Document:
    return {**task_with_grants(value.task, value.grants), "handle": value.handle}


def ended(value: Ended) -> Document:
    return {
        "enforced_at": to_rfc3339(value.enforced_at),
        "durable_at": _time(value.durable_at),
        "tasks": list(value.tasks),
        "grants": list(value.grants),
        "unacknowledged": list(value.unacknowledged),
        "begun": list(value.begun),
    }


def event(value: Event) -> Document:
    return {
        "cursor": str(value.cursor),
        "kind": value.kind.value,
        "at": to_rfc3339(value.at),
        "body": dict(value.body),
    }


def issued(value: Issued) -> Document:
    return {
        "task": value.task,
        "audience": value.audience,
        "certificate": value.certificate.decode("ascii"),
        "token": value.token,
        "bundle": value.bundle.decode("ascii"),
        "serial": value.serial,
        "jti": value.jti,
        "grants": list(value.grants),
        "not_after": to_rfc3339(value.not_after),
    }


def enrolled(value: Enrolled) -> Document:
    return {
        "server": value.server,
        "certificate": value.certificate.decode("ascii"),
        "bundle": value.bundle.decode("ascii"),
        "jwks": dict(value.jwks),
        "not_after": to_rfc3339(value.not_after),
    }


def scope(value: Scope) -> Document:
    """``{"task": "task-1"}``, or ``{"all": true}``."""
    return {value.kind.value: True if value.kind is ScopeKind.ALL else value.id}


def csr(der: bytes) -> str:
    return base64.b64encode(der).decode("ascii")


def read_csr(text: str) -> bytes:
    """DER from base64 (RFC 4648, section 4). Raises ValueError."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None


# Readers. ``_get`` is the only place that looks into a document, so that each fault names its member.


def _get(document: Mapping[str, Any], name: str, kind: type[T], default: T | None = None) -> T:
    value = document.get(name, default)
    if kind is float and type(value) is int:
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name!r} is missing or of the wrong type")
    return value


def _maybe(document: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    return None if document.get(name) is None else _get(document, name, kind)


def _at(document: Mapping[str, Any], name: str) -> Instant:
    return from_rfc3339(_get(document, name, str))


def _maybe_at(document: Mapping[str, Any], name: str) -> Instant | None:
    return None if document.get(name) is None else _at(document, name)


def _strings(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = _get(document, name, list, [])
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name!r} is no list of strings")
    return tuple(values)


def _many(document: Mapping[str, Any], name: str, read: Callable[[Mapping[str, Any]], T]) -> tuple[T, ...]:
    values = _get(document, name, list, [])
    if not all(isinstance(value, dict) for value in values):
        raise ValueError(f"{name!r} is no list of objects")
    return tuple(read(value) for value in values)


def read_grant_spec(document: Mapping[str, Any]) -> GrantSpec:
    return GrantSpec(
        server=_get(document, "server", str),
        tools=_strings(document, "tools"),
        arguments=_maybe(document, "arguments", dict),
        max_uses=_maybe(document, "max_uses", int),
        expires_in=_maybe(document, "expires_in", float),
        idle_timeout=_maybe(document, "idle_timeout", float),
        reason=_get(document, "reason", str, ""),
    )


def read_task_spec(document: Mapping[str, Any]) -> TaskSpec:
    return TaskSpec(
        purpose=_get(document, "purpose", str),
        grants=_many(document, "grants", read_grant_spec),
        type=_get(document, "type", str, ""),
        params=_get(document, "params", dict, {}),
        on_behalf_of=_get(document, "on_behalf_of", str, ""),
        session=_get(document, "session", str, ""),
        expires_in=_maybe(document, "expires_in", float),
        idle_timeout=_maybe(document, "idle_timeout", float),
        uid=_maybe(document, "uid", int),
    )


def read_task(document: Mapping[str, Any]) -> Task:
    """A task as the API shows it: ``handle_digest`` is empty."""
    return Task(
        id=TaskId(_get(document, "id", str)),
        agent=_get(document, "agent", str),
        purpose=_get(document, "purpose", str),
        state=TaskState(_get(document, "state", str)),
        created_at=_at(document, "created_at"),
        deadline=_at(document, "deadline"),
        created_by=_get(document, "created_by", str),
        handle_digest=b"",
        type=_get(document, "type", str, ""),
        params=_get(document, "params", dict, {}),
        on_behalf_of=_get(document, "on_behalf_of", str, ""),
        session=_get(document, "session", str, ""),
        uid=_maybe(document, "uid", int),
        idle_timeout=_maybe(document, "idle_timeout", float),
        last_active_at=_maybe_at(document, "last_active_at"),
        ended_at=_maybe_at(document, "ended_at"),
        ended_by=_get(document, "ended_by", str, ""),
    )


def read_grant(document: Mapping[str, Any]) -> Grant:
    return Grant(
        id=GrantId(_get(document, "id", str)),
        task=TaskId(_get(document, "task", str)),
        server=_get(document, "server", str),
        tools=_strings(document, "tools"),
        schemas=_many(document, "schemas", dict),
        state=GrantState(_get(document, "state", str)),
        created_at=_at(document, "created_at"),
        expires_at=_at(document, "expires_at"),
        requested_by=_get(document, "requested_by", str),
        max_uses=_maybe(document, "max_uses", int),
        idle_timeout=_maybe(document, "idle_timeout", float),
        reason=_get(document, "reason", str, ""),
        used=_get(document, "used", int, 0),
        in_flight=_get(document, "in_flight", int, 0),
        last_used_at=_maybe_at(document, "last_used_at"),
        ended_at=_maybe_at(document, "ended_at"),
        ended_by=_get(document, "ended_by", str, ""),
        notes=_strings(document, "notes"),
        approvers=_strings(document, "approvers"),
        activated_at=_maybe_at(document, "activated_at"),
    )


def read_grants(document: Mapping[str, Any]) -> tuple[Grant, ...]:
    return _many(document, "grants", read_grant)


def read_task_with_grants(document: Mapping[str, Any]) -> tuple[Task, tuple[Grant, ...]]:
    return read_task(_get(document, "task", dict)), read_grants(document)


def read_tasks(document: Mapping[str, Any]) -> tuple[Task, ...]:
    return _many(document, "tasks", read_task)


def read_started(document: Mapping[str, Any]) -> Started:
    its_task, its_grants = read_task_with_grants(document)
    return Started(its_task, its_grants, _maybe(document, "handle", str))


def read_ended(document: Mapping[str, Any]) -> Ended:
    return Ended(
        enforced_at=_at(document, "enforced_at"),
        durable_at=_maybe_at(document, "durable_at"),
        tasks=tuple(TaskId(one) for one in _strings(document, "tasks")),
        grants=tuple(GrantId(one) for one in _strings(document, "grants")),
        unacknowledged=_strings(document, "unacknowledged"),
        begun=_strings(document, "begun"),
    )


def read_event(document: Mapping[str, Any]) -> Event:
    return Event(
        cursor=Cursor.parse(_get(document, "cursor", str)),
        kind=EventKind(_get(document, "kind", str)),
        at=_at(document, "at"),
        body=_get(document, "body", dict),
    )


def read_issued(document: Mapping[str, Any]) -> Issued:
    return Issued(
        task=TaskId(_get(document, "task", str)),
        audience=_get(document, "audience", str),
        certificate=_get(document, "certificate", str).encode("ascii"),
        token=_get(document, "token", str),
        bundle=_get(document, "bundle", str).encode("ascii"),
        serial=_get(document, "serial", str),
        jti=_get(document, "jti", str),
        grants=tuple(GrantId(one) for one in _strings(document, "grants")),
        not_after=_at(document, "not_after"),
    )


def read_enrolled(document: Mapping[str, Any]) -> Enrolled:
    return Enrolled(
        server=_get(document, "server", str),
        certificate=_get(document, "certificate", str).encode("ascii"),
        bundle=_get(document, "bundle", str).encode("ascii"),
        jwks=_get(document, "jwks", dict),
        not_after=_at(document, "not_after"),
    )
