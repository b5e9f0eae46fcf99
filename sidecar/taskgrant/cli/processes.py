"""``taskgrant run``, ``guard`` and ``demo``, which stay until they are stopped; and ``version``."""

from pathlib import Path

import click

from taskgrant.cli.output import Output


@click.command("run")
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_context
def run_command(ctx: click.Context, config: Path) -> None:
    """Run the sidecar (authority, OPA and control API included) as CONFIG says."""
    from taskgrant.app import config as configuration
    from taskgrant.app import sidecar

    ctx.exit(sidecar.run(configuration.load(config)))


@click.command("guard")
@click.option("--server", required=True, help="The catalogue's name of the tool server behind it.")
@click.option("--protocol", type=click.Choice(["mcp", "http"]), default="mcp", show_default=True)
@click.option("--listen", required=True, metavar="HOST:PORT", help="Where to take mutual TLS.")
@click.option("--upstream", required=True, metavar="URL", help="The tool server, as the guard reaches it.")
@click.option(
    "--staleness",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds without a word of the authority after which everything is refused.",
)
@click.pass_context
def guard_command(
    ctx: click.Context, server: str, protocol: str, listen: str, upstream: str, staleness: float
) -> None:
    """Stand in front of a tool server and let only live credentials of a task in."""
    from taskgrant.app import guard

    output: Output = ctx.obj
    ctx.exit(
        guard.run(
            server=server,
            protocol=protocol,
            listen=listen,
            upstream=upstream,
            socket=Path(output.socket),
            staleness=staleness,
        )
    )


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
    from importlib.metadata import version

    number = version("taskgrant")
    if output.as_json:
        output.document({"version": number})
    else:
        click.echo(f"taskgrant {number}")
