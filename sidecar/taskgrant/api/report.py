"""Granted against used: what a task was given, and what it made of it. Pure."""

from collections.abc import Sequence
from typing import Any

from taskgrant.model import documents
from taskgrant.model.grant import Grant
from taskgrant.model.task import Task

_SHOWN = ("server", "tools", "state", "max_uses", "used", "remaining", "last_used_at")


def report(task: Task, grants: Sequence[Grant]) -> dict[str, Any]:
    """The ``ReportDocument`` of a task: one line a grant, in the order granted, and the grants that no
    call used."""
    lines = []
    for grant in grants:
        document = documents.grant(grant)
        lines.append({"grant": grant.id, **{name: document[name] for name in _SHOWN}})
    return {
        "task": documents.task(task),
        "grants": lines,
        "unused": [grant.id for grant in grants if grant.used == 0],
        "uses": sum(grant.used for grant in grants),
    }
