"""``taskgrant run``, ``guard``, ``stdio`` and ``demo``, which stay until they are stopped; and ``version``."""

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
    from taskgrant.app.loading import load

    loaded = load(config)
    from taskgrant.app import sidecar  # after the check: a file at fault is told without importing all of it

    ctx.exit(sidecar.run(loaded))


@click.command("guard")
@click.option("--server", required=True, help="The catalogue's name of the tool server behind it.")
@click.option("--trust-domain", required=True, help="The trust domain whose credentials are let in.")
@click.option("--listen", required=True, metavar="HOST:PORT", help="Where to take mutual TLS.")
@click.option(
    "--upstream",
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
@click.option(
    "--env",
    "environment",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="A variable for COMMAND; without a value, our own. May be repeated.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def guard_command(ctx: click.Context, /, **options: Any) -> None:
    """Stand in front of a tool server and let only live credentials of a task in.

    The tool server is at --upstream, or is COMMAND (after --), which speaks MCP on its standard input and output and is
    started for each task.
    """
    from taskgrant.app import guard

    output: Output = ctx.obj
    given = {name: value for name, value in options.items() if value is not None}
    ctx.exit(guard.run(guard.configured(given), Path(output.socket)))


@click.command("stdio")
@click.argument("server")
@click.option(
    "--gateway",
    envvar="TASKGRANT_GATEWAY",
    default="http://127.0.0.1:15002",
    show_default=True,
    metavar="URL",
    help="The sidecar's gateway (also TASKGRANT_GATEWAY).",
)
@click.option("--path", default="/mcp", show_default=True, help="Of the server's endpoint.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def stdio_command(ctx: click.Context, server: str, gateway: str, path: str, command: tuple[str, ...]) -> None:
    """What an MCP client starts in place of a tool server: its input and output lead to SERVER of the sidecar.

    A task's handle is taken from TASKGRANT_TASK, where the sidecar tells tasks apart by handles.
    """
    from taskgrant.app import bridge

    if command:
        raise click.UsageError(
            "a server that the agent starts is within its reach, and nothing could be kept from it. Start it on the "
            f"tools' side: taskgrant guard --server {server} … -- {' '.join(command)}"
        )
    ctx.exit(bridge.run(bridge.endpoint(gateway, server, path)))


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
