"""``taskgrant grant request|list|show|approve|reject|revoke``."""

from typing import Any

import click

from taskgrant.cli import tables
from taskgrant.cli.output import Output
from taskgrant.cli.values import DOCUMENT
from taskgrant.model import documents
from taskgrant.model.event import Ended

_REASON = click.option("--reason", default="", help="Why, for the record.")


@click.group("grant")
def grant_command() -> None:
    """Ask for, judge and look at grants."""


@grant_command.command()
@click.argument("task")
@click.option("--grant", "grants", type=DOCUMENT, multiple=True, required=True, help="May be repeated.")
@click.option("--key", help="Idempotency key: a repeat with the same key asks for nothing.")
@click.pass_obj
def request(output: Output, task: str, grants: tuple[dict[str, Any], ...], key: str | None) -> None:
    """Ask for more grants in a running task; they may be pending."""
    given = output.client().request(task, grants, key)
    if output.as_json:
        output.document(documents.grants(given))
    else:
        tables.grants(output, given)


@grant_command.command("list")
@click.option("--after", help="The last id of the page before.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.pass_obj
def list_(output: Output, after: str | None, limit: int) -> None:
    """List grants."""
    shown = output.client().list_grants(after, limit)
    if output.as_json:
        output.document(documents.grants(shown))
    else:
        tables.grants(output, shown)


@grant_command.command()
@click.argument("grant")
@click.pass_obj
def show(output: Output, grant: str) -> None:
    """Show a grant."""
    one = output.client().show_grant(grant)
    if output.as_json:
        output.document(documents.grant(one))
    else:
        tables.grant(output, one)


@grant_command.command()
@click.argument("grant")
@_REASON
@click.pass_obj
def approve(output: Output, grant: str, reason: str) -> None:
    """Approve a pending grant that somebody else asked for."""
    _show(output, output.client().approve(grant, reason))


@grant_command.command()
@click.argument("grant")
@_REASON
@click.pass_obj
def reject(output: Output, grant: str, reason: str) -> None:
    """Reject a pending grant."""
    _show(output, output.client().reject(grant, reason))


@grant_command.command()
@click.argument("grant")
@_REASON
@click.pass_obj
def revoke(output: Output, grant: str, reason: str) -> None:
    """Revoke a grant; returns when its calls are severed."""
    _show(output, output.client().revoke(grant, reason))


def _show(output: Output, ended: Ended) -> None:
    if output.as_json:
        output.document(documents.ended(ended))
    else:
        tables.ended(output, ended)
