"""Tasks, grants and what ended, as text for people."""

from collections.abc import Sequence
from typing import Any

from taskgrant.cli.output import Output
from taskgrant.model.event import Ended
from taskgrant.model.grant import Grant
from taskgrant.model.task import Task
from taskgrant.model.time import Instant, to_rfc3339


def _moment(at: Instant | None) -> str:
    return "" if at is None else to_rfc3339(at)[:19] + "Z"


def tasks(output: Output, shown: Sequence[Task]) -> None:
    rows = [(one.id, one.state.value, _moment(one.deadline), one.purpose) for one in shown]
    output.table(["TASK", "STATE", "DEADLINE", "PURPOSE"], rows)


def grants(output: Output, shown: Sequence[Grant]) -> None:
    rows = [
        (
            one.id,
            one.server,
            ", ".join(one.tools),
            one.state.value,
            f"{one.used} of {'any' if one.max_uses is None else one.max_uses}",
            _moment(one.expires_at),
        )
        for one in shown
    ]
    output.table(["GRANT", "SERVER", "TOOLS", "STATE", "USED", "EXPIRES"], rows)


def task(output: Output, one: Task) -> None:
    output.fields(
        ("task", one.id),
        ("state", one.state.value),
        ("purpose", one.purpose),
        ("type", one.type),
        ("agent", one.agent),
        ("on behalf of", one.on_behalf_of),
        ("session", one.session),
        ("started", f"{_moment(one.created_at)} by {one.created_by}"),
        ("deadline", _moment(one.deadline)),
        ("ended", one.ended_at and f"{_moment(one.ended_at)} by {one.ended_by}"),
    )


def grant(output: Output, one: Grant) -> None:
    output.fields(
        ("grant", one.id),
        ("task", one.task),
        ("state", one.state.value),
        ("server", one.server),
        ("tools", ", ".join(one.tools)),
        ("used", f"{one.used} of {'any' if one.max_uses is None else one.max_uses}"),
        ("in flight", one.in_flight or None),
        ("expires", _moment(one.expires_at)),
        ("asked by", one.requested_by),
        ("reason", one.reason),
        ("approvers", ", ".join(one.approvers)),
        ("ended", one.ended_at and f"{_moment(one.ended_at)} by {one.ended_by}"),
        *(("note", note) for note in one.notes),
    )


def report(output: Output, document: dict[str, Any]) -> None:
    rows = [
        (
            line["grant"],
            line["server"],
            ", ".join(line["tools"]),
            line["state"],
            "any" if line["max_uses"] is None else line["max_uses"],
            line["used"] or "never",
            (line["last_used_at"] or "")[:19] + ("Z" if line["last_used_at"] else ""),
        )
        for line in document["grants"]
    ]
    output.table(["GRANT", "SERVER", "TOOLS", "STATE", "GRANTED", "USED", "LAST USED"], rows)


def ended(output: Output, one: Ended) -> None:
    """Says also what is not as one would wish: not stored, not acknowledged, outcome unknown."""
    output.fields(
        ("enforced at", _moment(one.enforced_at)),
        ("stored", _moment(one.durable_at) or "no: it is enforced, but a restart would not know"),
        ("tasks ended", ", ".join(one.tasks)),
        ("grants ended", ", ".join(one.grants)),
        ("guards silent", ", ".join(one.unacknowledged)),
        ("outcome unknown", ", ".join(one.begun)),
    )
