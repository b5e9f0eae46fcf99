"""``taskgrant freeze`` and ``taskgrant unfreeze``: the kill switch."""

from collections.abc import Callable
from typing import Any

import click

from taskgrant.cli import tables
from taskgrant.cli.output import Output
from taskgrant.model import documents
from taskgrant.model.event import Ended, ScopeKind


def _scoped(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--reason", default="", help="Why, for the record."),
        click.option("--all", "all_", is_flag=True, help="Everything."),
        click.option("--session", help="All tasks of a session."),
        click.option("--tool", help="A server, or server/tool."),
        click.option("--task", help="A task."),
        click.option("--agent", help="An agent's SPIFFE ID."),
    ):
        command = option(command)
    return command


def _scope(scopes: dict[str, Any]) -> tuple[ScopeKind, str]:
    named = [(name.rstrip("_"), value) for name, value in scopes.items() if value]
    if len(named) != 1:
        raise click.UsageError("name exactly one of --agent, --task, --tool, --session and --all")
    kind = ScopeKind(named[0][0])
    return kind, "" if kind is ScopeKind.ALL else str(named[0][1])


@click.command("freeze")
@_scoped
@click.pass_obj
def freeze_command(output: Output, /, reason: str, **scopes: Any) -> None:
    """Stop what is in scope, now and until it is unfrozen."""
    kind, name = _scope(scopes)
    _show(output, output.client().freeze(kind, name, reason))


@click.command("unfreeze")
@_scoped
@click.pass_obj
def unfreeze_command(output: Output, /, reason: str, **scopes: Any) -> None:
    """Lift a freeze; nothing that ended comes back."""
    kind, name = _scope(scopes)
    _show(output, output.client().unfreeze(kind, name, reason))


def _show(output: Output, ended: Ended) -> None:
    if output.as_json:
        output.document(documents.ended(ended))
    else:
        tables.ended(output, ended)
