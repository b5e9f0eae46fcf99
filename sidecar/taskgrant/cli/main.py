"""``taskgrant``: the entry point. Commands are imported when they are called, so that ``version`` and
help are quick."""

import importlib

import click

from taskgrant.cli.exits import Exit, reported
from taskgrant.cli.output import Output

_DEFAULT_SOCKET = "/run/taskgrant/control.sock"

#: Command → its module; each module has an attribute of the command's name, with ``_command`` after it
#: and ``_`` for ``-``.
_HOMES = {
    "run": "taskgrant.cli.processes",
    "guard": "taskgrant.cli.processes",
    "stdio": "taskgrant.cli.processes",
    "demo": "taskgrant.cli.processes",
    "run-agent": "taskgrant.cli.network",
    "net": "taskgrant.cli.network",
    "task": "taskgrant.cli.tasks",
    "grant": "taskgrant.cli.grants",
    "freeze": "taskgrant.cli.freezes",
    "unfreeze": "taskgrant.cli.freezes",
    "policy": "taskgrant.cli.files",
    "config": "taskgrant.cli.files",
    "audit": "taskgrant.cli.files",
    "version": "taskgrant.cli.processes",
}


class _Commands(click.Group):
    """Finds commands by name, and turns our errors into one sentence and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _HOMES:
            return None
        command: click.Command = getattr(
            importlib.import_module(_HOMES[cmd_name]), f"{cmd_name.replace('-', '_')}_command"
        )
        return command

    def invoke(self, ctx: click.Context) -> object:
        with reported(ctx):
            return super().invoke(ctx)


@click.command(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--socket",
    envvar="TASKGRANT_SOCKET",
    default=_DEFAULT_SOCKET,
    show_default=True,
    type=click.Path(),
    help="The control API's Unix socket (also TASKGRANT_SOCKET).",
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def cli(ctx: click.Context, socket: str, output: str) -> None:
    """Lets an AI agent's tool calls pass only under the grant of its current task."""
    ctx.obj = Output(socket, as_json=output == "json")


cli.epilog = "Exit codes: " + ", ".join(f"{code.value} {code.meaning}" for code in Exit) + "."


def main() -> None:
    cli(prog_name="taskgrant")


if __name__ == "__main__":
    main()
