"""When time alone changes a task: pure arithmetic over deadlines, expiries and idle time-outs.

Idle time counts from the last use (or the start, or the approval), and only while no call is in flight; a task with a
grant that waits for a person is not idle either.
"""

from taskgrant.model.grant import Grant, GrantState
from taskgrant.model.task import Task
from taskgrant.model.time import Instant


def task_due(task: Task, grants: tuple[Grant, ...], active_at: Instant) -> Instant:
    """When the task as a whole expires if nothing else happens."""
    if task.idle_timeout is None or any(g.in_flight or g.state is GrantState.PENDING for g in grants):
        return task.deadline
    return Instant(min(task.deadline, active_at + task.idle_timeout))


def grant_due(grant: Grant) -> Instant | None:
    """When the grant expires if nothing else happens; None for one that is over."""
    if grant.state is GrantState.PENDING:
        return grant.expires_at
    if not grant.state.live:
        return None
    if grant.idle_timeout is None or grant.in_flight:
        return grant.expires_at
    since = grant.last_used_at or grant.activated_at or grant.created_at
    return Instant(min(grant.expires_at, since + grant.idle_timeout))


def next_due(task: Task, grants: tuple[Grant, ...], active_at: Instant) -> Instant:
    """The first instant at which something of the task expires."""
    due = task_due(task, grants, active_at)
    for grant in grants:
        at = grant_due(grant)
        if at is not None and at < due:
            due = at
    return due
