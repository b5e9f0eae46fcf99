"""What events and records say of a task or a grant: identifiers and states, never an argument or a secret."""

from taskgrant.model.event import Revocation
from taskgrant.model.grant import Grant
from taskgrant.model.json import JsonObject
from taskgrant.model.task import Task
from taskgrant.model.time import to_rfc3339


def described_task(task: Task) -> JsonObject:
    """The body of a task event."""
    return {
        "id": task.id,
        "agent": task.agent,
        "state": task.state.value,
        "deadline": to_rfc3339(task.deadline),
    }


def described_grant(grant: Grant) -> JsonObject:
    """The body of a grant event."""
    return {
        "id": grant.id,
        "task": grant.task,
        "server": grant.server,
        "tools": list(grant.tools),
        "state": grant.state.value,
        "expires_at": to_rfc3339(grant.expires_at),
    }


def recorded_grant(grant: Grant) -> JsonObject:
    """The fields of a record about a grant that was asked for or approved."""
    return {
        "task": grant.task,
        "grant": grant.id,
        "server": grant.server,
        "tools": list(grant.tools),
        "state": grant.state.value,
        "expires_at": to_rfc3339(grant.expires_at),
        "max_uses": grant.max_uses,
        "requested_by": grant.requested_by,
        "reason": grant.reason,
        "notes": list(grant.notes),
    }


def recorded_task(task: Task) -> JsonObject:
    """The fields of a record about a new task."""
    return {
        "task": task.id,
        "agent": task.agent,
        "type": task.type,
        "purpose": task.purpose,
        "on_behalf_of": task.on_behalf_of,
        "session": task.session,
        "by": task.created_by,
        "deadline": to_rfc3339(task.deadline),
    }


def described_revocation(revocation: Revocation) -> JsonObject:
    """The body of a revocation event."""
    return {
        "reason": revocation.reason,
        "tasks": sorted(revocation.tasks),
        "grants": sorted(revocation.grants),
        "serials": sorted(revocation.serials),
        "jtis": sorted(revocation.jtis),
    }
