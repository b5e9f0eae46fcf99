"""Questions as input documents, version 1, in the shape of OpenID AuthZEN; ``rego/schemas/`` describes each.

::

    {"version": 1,
     "subject":  {"type": "agent", "id": "spiffe://…",
                  "properties": {"on_behalf_of": {"id": "user:alice", "proven": false}}},
     "action":   {"name": "tools/call", "properties": {"protocol": "mcp", "version": "2025-11-25"}},
     "resource": {"type": "tool", "id": "send_message",
                  "properties": {"server": "mail", "arguments": {}, "meta": {}, "params": {}, "headers": {}}},
     "context":  {"time": "2026-01-31T12:00:00.000000Z", "task": {…}, "grants": […], "calls": 3, "request": {}}}

Every member of a call that reaches the tool is in the document.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from taskgrant.model.call import Headers
from taskgrant.model.decision import Ask, Query
from taskgrant.model.egress import EgressConnection, EgressQuery
from taskgrant.model.grant import Grant, GrantSpec
from taskgrant.model.matching import MAX_NODES
from taskgrant.model.task import Task
from taskgrant.model.time import Instant, to_rfc3339

Document = dict[str, Any]

VERSION = 1
MAX_VALUES = MAX_NODES  # a schema is not compared with more either


def authz_input(query: Query) -> Document:
    """May this call pass?"""
    call = query.call
    return {
        "version": VERSION,
        "subject": _subject(query.task.agent, query.task),
        "action": {"name": call.action, "properties": {"protocol": call.protocol, "version": call.version}},
        "resource": {
            "type": call.kind.value,
            "id": call.action if call.tool is None else call.tool,
            "properties": {
                "server": call.server,
                "arguments": call.arguments,
                "meta": call.meta,
                "params": call.params,
                "headers": _headers(call.headers),
            },
        },
        "context": {
            "time": to_rfc3339(query.now),
            "task": _task(query.task),
            "grants": [_grant(grant) for grant in query.grants],
            "calls": query.calls,
            "request": query.request,
        },
    }


def egress_input(query: EgressQuery) -> Document:
    """May this traffic pass, that is no tool call?"""
    about = query.about
    host = about.host
    properties: Document = {"port": host.port, "mode": host.mode.value}
    if isinstance(about, EgressConnection):
        name = "egress/connect"
    else:
        name = "egress/request"
        values: dict[str, list[str]] = {}
        for parameter, value in about.query:
            values.setdefault(parameter, []).append(value or "")
        properties |= {
            "method": about.method,
            "path": about.path,
            "query": values,
            "headers": _headers(about.headers),
            "secrets": [header for header, _ in about.secrets],
            "has_body": bool(about.body),
            "members": list(about.members),
            "body": about.visible,
        }
    return {
        "version": VERSION,
        "subject": {"type": "agent", "id": query.agent, "properties": {}}
        if query.task is None
        else _subject(query.agent, query.task),
        "action": {"name": name},
        "resource": {"type": "host", "id": host.host, "properties": properties},
        "context": {
            "time": to_rfc3339(query.now),
            "task": None if query.task is None else _task(query.task),
            "request": query.request,
        },
    }


def oversized(*values: object) -> bool:
    """True if these hold more values than OPA is to be asked about: each costs OPA 200 bytes and more."""
    left = MAX_VALUES
    rest: list[object] = list(values)
    while rest:
        value = rest.pop()
        inner: Collection[object] = ()
        if isinstance(value, Mapping):
            inner = value.values()
        elif isinstance(value, (list, tuple)):
            inner = value
        left -= len(inner)
        if left < 0:
            return True
        rest.extend(inner)
    return False


def visible_input(
    task: Task, grants: Sequence[Grant], server: str, tools: Sequence[str], now: Instant
) -> Document:
    """Which of these tools may this task see?"""
    return {
        "version": VERSION,
        "subject": _subject(task.agent, task),
        "action": {"name": "tools/list"},
        "resource": {"type": "server", "id": server, "properties": {"tools": list(tools)}},
        "context": {
            "time": to_rfc3339(now),
            "task": _task(task),
            "grants": [_grant(grant) for grant in grants],
        },
    }


def grants_input(ask: Ask) -> Document:
    """May this task be started, or these grants be added to it?"""
    return {
        "version": VERSION,
        "subject": _subject(ask.agent, ask.task),
        "action": {"name": "grants/request"},
        "resource": {"type": "task", "id": ask.task.id},
        "context": {
            "time": to_rfc3339(ask.now),
            "task": _task(ask.task),
            "requested_by": ask.requested_by,
            "grants": [_spec(spec) for spec in ask.grants],
        },
    }


def _subject(agent: str, task: Task) -> Document:
    # Who a task is for is what the orchestrator says; nothing here has proven it.
    properties = {"on_behalf_of": {"id": task.on_behalf_of, "proven": False}} if task.on_behalf_of else {}
    return {"type": "agent", "id": agent, "properties": properties}


def _task(task: Task) -> Document:
    return {
        "id": task.id,
        "type": task.type,
        "purpose": task.purpose,
        "deadline": to_rfc3339(task.deadline),
        "params": task.params,
    }


def _grant(grant: Grant) -> Document:
    return {
        "id": grant.id,
        "server": grant.server,
        "tools": grant.tools,
        "schemas": grant.schemas,
        "state": grant.state.value,
        "expires_at": to_rfc3339(grant.expires_at),
        "max_uses": grant.max_uses,
        "used": grant.used,
        "in_flight": grant.in_flight,
        "remaining": grant.remaining,
    }


def _spec(spec: GrantSpec) -> Document:
    return {
        "server": spec.server,
        "tools": spec.tools,
        "arguments": spec.arguments,
        "max_uses": spec.max_uses,
        "expires_in": spec.expires_in,
        "idle_timeout": spec.idle_timeout,
        "reason": spec.reason,
    }


def _headers(headers: Headers) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name, []).append(value)
    return found
