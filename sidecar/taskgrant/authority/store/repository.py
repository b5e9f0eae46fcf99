"""Rows to values: what is read from the database, at opening and for what memory no longer holds."""

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from taskgrant.authority.store.statements import Credential
from taskgrant.model.event import Scope, ScopeKind
from taskgrant.model.grant import Grant, GrantState
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.task import Task, TaskState
from taskgrant.model.time import Instant

Row = tuple[Any, ...]

_TASK = (
    "SELECT id, agent, purpose, state, created_at, deadline, created_by, handle_digest, type, params, on_behalf_of,"
    " session, uid, idle_timeout, last_active_at, ended_at, ended_by FROM tasks"
)
_GRANT = (
    "SELECT id, task, server, tools, schemas, state, created_at, expires_at, requested_by, max_uses, idle_timeout,"
    " reason, used, last_used_at, ended_at, ended_by, notes, approvers, activated_at FROM grants"
)


def _task(row: Row) -> Task:
    return Task(
        id=row[0], agent=row[1], purpose=row[2], state=TaskState(row[3]), created_at=row[4], deadline=row[5],
        created_by=row[6], handle_digest=row[7], type=row[8], params=json.loads(row[9]), on_behalf_of=row[10],
        session=row[11], uid=row[12], idle_timeout=row[13], last_active_at=row[14], ended_at=row[15],
        ended_by=row[16],
    )  # fmt: skip


def _grant(row: Row) -> Grant:
    return Grant(
        id=row[0], task=row[1], server=row[2], tools=tuple(json.loads(row[3])), schemas=tuple(json.loads(row[4])),
        state=GrantState(row[5]), created_at=row[6], expires_at=row[7], requested_by=row[8], max_uses=row[9],
        idle_timeout=row[10], reason=row[11], used=row[12], last_used_at=row[13], ended_at=row[14],
        ended_by=row[15], notes=tuple(json.loads(row[16])), approvers=tuple(json.loads(row[17])),
        activated_at=row[18],
    )  # fmt: skip


def _rows(connection: sqlite3.Connection, sql: str, *values: object) -> Iterable[Row]:
    return connection.execute(sql, values)


def tasks_with_state(connection: sqlite3.Connection, state: TaskState) -> list[tuple[Task, str]]:
    """Tasks with the epoch that they were started in."""
    sql = _TASK.replace(" FROM tasks", ", epoch FROM tasks") + " WHERE state = ? ORDER BY seq"
    return [(_task(row[:-1]), row[-1]) for row in _rows(connection, sql, state.value)]


def find_task(connection: sqlite3.Connection, task: TaskId) -> Task | None:
    for row in _rows(connection, _TASK + " WHERE id = ?", task):
        return _task(row)
    return None


def find_grant(connection: sqlite3.Connection, grant: GrantId) -> Grant | None:
    for row in _rows(connection, _GRANT + " WHERE id = ?", grant):
        return _grant(row)
    return None


def grants_of(connection: sqlite3.Connection, task: TaskId) -> list[Grant]:
    return [_grant(row) for row in _rows(connection, _GRANT + " WHERE task = ? ORDER BY seq", task)]


def page_tasks(connection: sqlite3.Connection, after: TaskId | None, limit: int) -> list[Task]:
    """Newest first; ``after`` is the last one of the page before. An unknown ``after`` gives nothing."""
    if after is None:
        return [_task(row) for row in _rows(connection, _TASK + " ORDER BY seq DESC LIMIT ?", limit)]
    sql = _TASK + " WHERE seq < (SELECT seq FROM tasks WHERE id = ?) ORDER BY seq DESC LIMIT ?"  # noqa: S608
    return [_task(row) for row in _rows(connection, sql, after, limit)]


def page_grants(connection: sqlite3.Connection, after: GrantId | None, limit: int) -> list[Grant]:
    """Like ``page_tasks``."""
    if after is None:
        return [_grant(row) for row in _rows(connection, _GRANT + " ORDER BY seq DESC LIMIT ?", limit)]
    sql = _GRANT + " WHERE seq < (SELECT seq FROM grants WHERE id = ?) ORDER BY seq DESC LIMIT ?"  # noqa: S608
    return [_grant(row) for row in _rows(connection, sql, after, limit)]


def open_uses(connection: sqlite3.Connection) -> list[tuple[str, GrantId]]:
    """Calls that were reserved and never settled."""
    return [(row[0], row[1]) for row in _rows(connection, "SELECT call, grant_id FROM uses")]


def credentials(connection: sqlite3.Connection, alive_after: Instant) -> list[Credential]:
    sql = (
        "SELECT serial, jti, task, server, grants, token_digest, claims, not_after, revoked_at FROM credentials"
        " WHERE not_after >= ? ORDER BY not_after"
    )
    return [
        Credential(
            row[0],
            row[1],
            row[2],
            row[3],
            tuple(json.loads(row[4])),
            row[5],
            json.loads(row[6]),
            row[7],
            row[8],
        )
        for row in _rows(connection, sql, alive_after)
    ]


def freezes(connection: sqlite3.Connection) -> list[Scope]:
    return [Scope(ScopeKind(row[0]), row[1]) for row in _rows(connection, "SELECT kind, id FROM freezes")]


def remembered(
    connection: sqlite3.Connection, limit: int
) -> list[tuple[str, str, bytes, TaskId, list[GrantId], Instant]]:
    """Idempotency-Keys, oldest first, the newest ``limit`` of them."""
    sql = "SELECT principal, key, body, task, grants, at FROM idempotency ORDER BY at DESC LIMIT ?"
    rows = [
        (row[0], row[1], row[2], row[3], json.loads(row[4]), row[5]) for row in _rows(connection, sql, limit)
    ]
    return rows[::-1]


def meta(connection: sqlite3.Connection, key: str) -> str | None:
    for row in _rows(connection, "SELECT value FROM meta WHERE key = ?", key):
        return str(row[0])
    return None
