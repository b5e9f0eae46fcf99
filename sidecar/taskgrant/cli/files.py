"""``taskgrant policy …``, ``config check`` and ``audit …``: commands that need no running authority."""

from pathlib import Path
from typing import Any

import click

from taskgrant.cli.exits import Exit
from taskgrant.cli.output import Output, printable
from taskgrant.cli.values import DOCUMENT

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_DIRECTORIES = click.argument(
    "directories", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path)
)


@click.group("policy")
def policy_command() -> None:
    """Check, test and try policy."""


@policy_command.command()
@_DIRECTORIES
@click.pass_obj
@click.pass_context
def check(ctx: click.Context, output: Output, directories: tuple[Path, ...]) -> None:
    """Check policy against OPA and the rules of taskgrant."""
    from taskgrant.app import policy

    faults = policy.check(list(directories))
    if output.as_json:
        output.document({"faults": faults})
    else:
        for fault in faults or ["no fault found"]:
            click.echo(fault)
    ctx.exit(Exit.FAULTS if faults else Exit.OK)


@policy_command.command("test")
@_DIRECTORIES
@click.pass_context
def test_(ctx: click.Context, directories: tuple[Path, ...]) -> None:
    """Run the tests beside the policy."""
    from taskgrant.app import policy

    ctx.exit(Exit.FAULTS if policy.test(list(directories)) else Exit.OK)


@policy_command.command("try")
@_DIRECTORIES
@click.option("--input", "document", type=DOCUMENT, required=True, help="The input document.")
@click.pass_obj
def try_(output: Output, directories: tuple[Path, ...], document: dict[str, Any]) -> None:
    """Ask the policy one question, and show the whole answer."""
    from taskgrant.app import policy

    output.document(policy.try_(list(directories), document))


@click.group("config")
def config_command() -> None:
    """Check configuration."""


@config_command.command("check")
@click.argument("file", type=_FILE)
@click.pass_obj
def config_check(output: Output, file: Path) -> None:
    """Check a configuration file; every fault is named, with its line."""
    from taskgrant.app.loading import load

    load(file)
    if output.as_json:
        output.document({"file": str(file), "faults": []})
    else:
        click.echo(f"{printable(file)}: no fault found")


@click.group("audit")
def audit_command() -> None:
    """Read and verify the audit trail."""


@audit_command.command()
@click.argument("file", type=_FILE)
@click.option("--follow", "-f", is_flag=True, help="Go on with records to come, until interrupted.")
@click.pass_obj
def tail(output: Output, file: Path, follow: bool) -> None:
    """Show the records, oldest first."""
    from taskgrant.app import audit

    for record in audit.tail(file, follow):
        if output.as_json:
            output.line(record)
        else:
            click.echo(_record_line(record))


def _record_line(record: dict[str, Any]) -> str:
    """Time and event first, then what people look for; the chain's own members only with --output json."""
    shown = dict(record)
    head = [printable(shown.pop(name, "")) for name in ("time", "event")]
    chain = ("seq", "prev", "hash")
    rest = [
        f"{name}={printable(value)}" for name, value in shown.items() if name not in chain and value != ""
    ]
    return "  ".join([*head, " ".join(rest)]).rstrip()


@audit_command.command()
@click.argument("file", type=_FILE)
@click.pass_obj
@click.pass_context
def verify(ctx: click.Context, output: Output, file: Path) -> None:
    """Check the chain of records from the first one."""
    from taskgrant.app import audit

    verdict = audit.verify(file)
    if output.as_json:
        fault = {"line": verdict.bad_line, "reason": verdict.reason}
        output.document({"records": verdict.records, "fault": None if verdict.ok else fault})
    elif verdict.ok:
        click.echo(f"{verdict.records} records, the chain is whole")
    else:
        click.echo(f"line {verdict.bad_line}: {printable(verdict.reason)}")
    ctx.exit(Exit.OK if verdict.ok else Exit.FAULTS)
