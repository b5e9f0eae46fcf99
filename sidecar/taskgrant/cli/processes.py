"""``taskgrant run``, ``guard`` and ``demo``, which stay until they are stopped; and ``version``."""

from pathlib import Path
from typing import Any

import click

from taskgrant.cli.output import Output
from taskgrant.cli.values import DOCUMENT


@click.command("run")
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_context
def run_command(ctx: click.Context, config: Path) -> None:
    """Run the sidecar (authority, OPA and control API included) as CONFIG says."""
    from taskgrant.app import config as configuration

    loaded = configuration.load(config)
    from taskgrant.app import sidecar  # after the check: a file at fault is told without importing all of it

    ctx.exit(sidecar.run(loaded))


@click.command("guard")
@click.option("--server", required=True, help="The catalogue's name of the tool server behind it.")
@click.option("--trust-domain", required=True, help="The trust domain whose credentials are let in.")
@click.option("--listen", required=True, metavar="HOST:PORT", help="Where to take mutual TLS.")
@click.option(
    "--upstream",
    required=True,
    metavar="URL",
    help="The tool server: http://…, https://… or unix:///socket:/path.",
)
@click.option("--protocol", type=click.Choice(["mcp", "http"]), default="mcp", show_default=True)
@click.option(
    "--operation",
    "operations",
    type=DOCUMENT,
    multiple=True,
    help="For http, an operation that is a tool: tool, method, path, query. May be repeated.",
)
@click.option(
    "--staleness",
    "staleness_seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds without a word of the authority after which everything is refused.",
)
@click.pass_context
def guard_command(ctx: click.Context, /, **options: Any) -> None:
    """Stand in front of a tool server and let only live credentials of a task in."""
    from taskgrant.app import guard

    output: Output = ctx.obj
    given = {name: value for name, value in options.items() if value is not None}
    ctx.exit(guard.run(guard.configured(given), Path(output.socket)))


@click.command("demo")
@click.pass_context
def demo_command(ctx: click.Context) -> None:
    """Watch an agent get access for one task, overstep, be refused, and lose it."""
    from taskgrant.app import demo

    ctx.exit(demo.run())


@click.command("version")
@click.pass_obj
def version_command(output: Output) -> None:
    """Show the version."""
    from taskgrant import version

    number = version()
    if output.as_json:
        output.document({"version": number})
    else:
        click.echo(f"taskgrant {number}")
