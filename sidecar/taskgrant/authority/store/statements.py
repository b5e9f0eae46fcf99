"""What is written, as statements with their parameters: pure, so that any thread may make them and one runs them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from taskgrant.model.event import Scope
from taskgrant.model.grant import Grant
from taskgrant.model.ids import CallId, GrantId, TaskId
from taskgrant.model.json import JsonObject
from taskgrant.model.task import Task
from taskgrant.model.time import Instant

Statement: TypeAlias = tuple[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Credential:
    """What is remembered of a credential. The token itself is not: its SHA-256 is enough to know it again.

    ``claims`` are the token's, for introspection. ``revoked_at`` is None while it has not been revoked.
    """

    serial: str
    jti: str
    task: TaskId
    server: str
    grants: tuple[GrantId, ...]
    token_digest: bytes
    claims: JsonObject
    not_after: Instant
    revoked_at: Instant | None = None


_TASK = (
    "INSERT INTO tasks (id, epoch, agent, purpose, state, created_at, deadline, created_by, handle_digest, type,"
    " params, on_behalf_of, session, uid, idle_timeout, last_active_at, ended_at, ended_by)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
    " ON CONFLICT (id) DO UPDATE SET state = excluded.state, handle_digest = excluded.handle_digest,"
    " last_active_at = excluded.last_active_at, ended_at = excluded.ended_at, ended_by = excluded.ended_by"
    " WHERE tasks.state = 'active'"  # what has ended stays ended, here too
)
_GRANT = (
    "INSERT INTO grants (id, task, server, tools, schemas, state, created_at, expires_at, requested_by, max_uses,"
    " idle_timeout, reason, used, last_used_at, ended_at, ended_by, notes, approvers, activated_at)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
    " ON CONFLICT (id) DO UPDATE SET state = excluded.state, expires_at = excluded.expires_at,"
    " used = excluded.used, last_used_at = excluded.last_used_at, ended_at = excluded.ended_at,"
    " ended_by = excluded.ended_by, activated_at = excluded.activated_at"
    " WHERE grants.state NOT IN ('expired', 'revoked', 'rejected')"
)
_COUNT = (
    "UPDATE grants SET used = ?, state = ?, last_used_at = ?"
    " WHERE id = ? AND state NOT IN ('expired', 'revoked', 'rejected')"
)
_USE = "INSERT INTO uses VALUES (?, ?)"
_USED = "DELETE FROM uses WHERE call = ?"


def save_task(task: Task, epoch: str) -> Statement:
    return _TASK, (
        task.id, epoch, task.agent, task.purpose, task.state.value, task.created_at, task.deadline,
        task.created_by, task.handle_digest, task.type, json.dumps(task.params), task.on_behalf_of, task.session,
        task.uid, task.idle_timeout, task.last_active_at, task.ended_at, task.ended_by,
    )  # fmt: skip


def save_grant(grant: Grant) -> Statement:
    return _GRANT, (
        grant.id, grant.task, grant.server, json.dumps(grant.tools), json.dumps(grant.schemas),
        grant.state.value, grant.created_at, grant.expires_at, grant.requested_by, grant.max_uses,
        grant.idle_timeout, grant.reason, grant.used, grant.last_used_at, grant.ended_at, grant.ended_by,
        json.dumps(grant.notes), json.dumps(grant.approvers), grant.activated_at,
    )  # fmt: skip


def count(grant: Grant) -> Statement:
    """A grant's counters, absolute: whatever failed to be written before, this mends."""
    return _COUNT, (grant.used, grant.state.value, grant.last_used_at, grant.id)


def open_use(call: CallId, grant: GrantId) -> Statement:
    return _USE, (call, grant)


def close_use(call: CallId) -> Statement:
    return _USED, (call,)


def save_credential(c: Credential) -> Statement:
    return "INSERT INTO credentials VALUES (?,?,?,?,?,?,?,?,?)", (
        c.serial, c.jti, c.task, c.server, json.dumps(c.grants), c.token_digest, json.dumps(c.claims),
        c.not_after, c.revoked_at,
    )  # fmt: skip


def revoke_credential(serial: str, at: Instant) -> Statement:
    return "UPDATE credentials SET revoked_at = ? WHERE serial = ?", (at, serial)


def freeze(scope: Scope) -> Statement:
    return "INSERT OR IGNORE INTO freezes VALUES (?, ?)", (scope.kind.value, scope.id)


def unfreeze(scope: Scope) -> Statement:
    return "DELETE FROM freezes WHERE kind = ? AND id = ?", (scope.kind.value, scope.id)


def remember(
    principal: str, key: str, body: bytes, task: TaskId, grants: Sequence[GrantId], at: Instant
) -> Statement:
    """Keeps what an Idempotency-Key was answered with: identifiers, never a handle."""
    values = (principal, key, body, task, json.dumps(list(grants)), at)
    return "INSERT OR REPLACE INTO idempotency VALUES (?,?,?,?,?,?)", values


def keep(key: str, value: str) -> Statement:
    return "INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value)


def prune(
    ended_before: Instant, expired_before: Instant, remembered_before: Instant
) -> tuple[Statement, ...]:
    """Removes what nobody needs any more: old ended tasks, expired credentials, old Idempotency-Keys."""
    old = "SELECT id FROM tasks WHERE ended_at < ?"
    # Table and column names are ours; every value is a parameter.
    return (
        (f"DELETE FROM grants WHERE task IN ({old})", (ended_before,)),  # noqa: S608
        (f"DELETE FROM freezes WHERE kind = 'task' AND id IN ({old})", (ended_before,)),  # noqa: S608
        ("DELETE FROM tasks WHERE ended_at < ?", (ended_before,)),
        ("DELETE FROM credentials WHERE not_after < ?", (expired_before,)),
        ("DELETE FROM idempotency WHERE at < ?", (remembered_before,)),
    )
