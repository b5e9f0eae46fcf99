"""``taskgrant net …`` and ``run-agent``: the rules that leave an agent no way out but through the sidecar."""

from pathlib import Path

import click

from taskgrant.cli.exits import Exit
from taskgrant.cli.output import Output, printable

_CONFIG = click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@click.group("net")
def net_command() -> None:
    """Redirect, and close every other way out of, this network namespace."""


@net_command.command("apply")
@_CONFIG
@click.option("--force", is_flag=True, help="Also in a namespace that has the machine's own network devices.")
def apply(config: Path, force: bool) -> None:
    """Put the rules of CONFIG in force, replacing ours; needs CAP_NET_ADMIN."""
    from taskgrant.app import net
    from taskgrant.app.loading import load

    net.apply(load(config), force)


@net_command.command("show")
@_CONFIG
def show(config: Path) -> None:
    """Show the rules of CONFIG, as nft reads them."""
    from taskgrant.app import net
    from taskgrant.app.loading import load

    click.echo(net.rules(load(config)), nl=False)


@net_command.command("remove")
def remove() -> None:
    """Take our rules away; needs CAP_NET_ADMIN."""
    from taskgrant.app import net

    net.remove()


@net_command.command("check")
@_CONFIG
@click.pass_obj
@click.pass_context
def check(ctx: click.Context, output: Output, config: Path) -> None:
    """Try as the agent what must and what must not work here, beside a running sidecar."""
    from taskgrant.app import net
    from taskgrant.app.loading import load

    rows = net.check(load(config))
    if output.as_json:
        output.document(
            {
                "rows": [
                    {"probe": row.probe, "expected": row.expected, "seen": row.seen, "holds": row.holds}
                    for row in rows
                ]
            }
        )
    else:
        for row in rows:
            told = "" if row.holds else f" (expected: {printable(row.expected)})"
            click.echo(
                f"{'ok  ' if row.holds else 'FAIL'} {printable(row.probe)}: {printable(row.seen)}{told}"
            )
    ctx.exit(Exit.OK if all(row.holds for row in rows) else Exit.FAULTS)


# Options come before CONFIG: what follows it is the command's.
@click.command("run-agent", context_settings={"allow_interspersed_args": False})
@_CONFIG
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--network",
    "networks",
    multiple=True,
    metavar="CIDR",
    help="Addresses of the veth pair: the host has the first, the agent's namespace the second. May be repeated.",
)
@click.option(
    "--sidecar-log",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the sidecar logs to; default: standard error.",
)
@click.pass_context
def run_agent_command(
    ctx: click.Context,
    config: Path,
    command: tuple[str, ...],
    networks: tuple[str, ...],
    sidecar_log: Path | None,
) -> None:
    """Run COMMAND as the agent of CONFIG in a network namespace that only the sidecar leads out of.

    The sidecar is started there, and ended with the command. Needs root, or the capabilities to make namespaces and
    change users. Exits as the command does; 125 when it could not be started.
    """
    from taskgrant.app.agent import plan, run

    wanted = networks or (plan.NETWORK4, plan.NETWORK6)
    command = command[1:] if command[0] == "--" else command
    if not command:
        raise click.UsageError("a command is missing")
    ctx.exit(run.run_agent(config, command, wanted, sidecar_log))
