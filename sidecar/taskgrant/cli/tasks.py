"""``taskgrant task start|list|show|report|complete|cancel``."""

from typing import Any

import click

from taskgrant.cli import tables
from taskgrant.cli.output import Output
from taskgrant.cli.values import DOCUMENT
from taskgrant.model import documents
from taskgrant.model.event import Ended


@click.group("task")
def task_command() -> None:
    """Start, look at and end tasks."""


@task_command.command()
@click.option("--purpose", required=True, help="What the agent is to do.")
@click.option("--grant", "grants", type=DOCUMENT, multiple=True, help="A grant to ask for; may be repeated.")
@click.option("--type", "type_", help="A task type that policy has a template for.")
@click.option("--params", type=DOCUMENT, help="Parameters of the template.")
@click.option("--on-behalf-of", help="For whom, such as user:alice.")
@click.option("--session", help="A name that several tasks share, to freeze them together.")
@click.option("--expires-in", type=click.FloatRange(min=0, min_open=True), help="Seconds until the deadline.")
@click.option(
    "--idle-timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds without a tool call."
)
@click.option("--uid", type=click.IntRange(min=0), help="The uid that works on the task (task_binding: uid).")
@click.option("--key", help="Idempotency key: a repeat with the same key starts nothing.")
@click.pass_obj
def start(
    output: Output,
    /,
    purpose: str,
    grants: tuple[dict[str, Any], ...],
    key: str | None,
    type_: str | None,
    **members: Any,
) -> None:
    """Start a task. Its handle is shown once.

    \b
    taskgrant task start --purpose "send the summary" --expires-in 300 \\
      --grant '{"server": "mail", "tools": ["send_message"], "max_uses": 1}'
    """
    given = {name: value for name, value in {**members, "type": type_}.items() if value is not None}
    started = output.client().start({"purpose": purpose, **given, "grants": list(grants)}, key)
    if output.as_json:
        output.document(documents.started(started))
        return
    tables.task(output, started.task)
    output.fields(("handle", started.handle or "not shown again: this answer repeats an earlier one"))
    tables.grants(output, started.grants)


@task_command.command("list")
@click.option("--after", help="The last id of the page before.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.pass_obj
def list_(output: Output, after: str | None, limit: int) -> None:
    """List tasks."""
    shown = output.client().list_tasks(after, limit)
    if output.as_json:
        output.document({"tasks": [documents.task(one) for one in shown]})
    else:
        tables.tasks(output, shown)


@task_command.command()
@click.argument("task")
@click.pass_obj
def show(output: Output, task: str) -> None:
    """Show a task and its grants."""
    one, grants = output.client().show_task(task)
    if output.as_json:
        output.document(documents.task_with_grants(one, grants))
        return
    tables.task(output, one)
    tables.grants(output, grants)


@task_command.command()
@click.argument("task")
@click.pass_obj
def report(output: Output, task: str) -> None:
    """Show what a task was granted against what it used."""
    document: Any = output.client().report(task)
    if output.as_json:
        output.document(document)
    else:
        tables.report(output, document)


@task_command.command()
@click.argument("task")
@click.pass_obj
def complete(output: Output, task: str) -> None:
    """Complete a task; returns when all that it had is severed."""
    _show(output, output.client().complete(task))


@task_command.command()
@click.argument("task")
@click.pass_obj
def cancel(output: Output, task: str) -> None:
    """Cancel a task; returns when all that it had is severed."""
    _show(output, output.client().cancel(task))


def _show(output: Output, ended: Ended) -> None:
    if output.as_json:
        output.document(documents.ended(ended))
    else:
        tables.ended(output, ended)
