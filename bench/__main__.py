"""``python -m bench [--json FILE] [--rounds N] [--calls N] [--profile FILE]``; exit code 0 when it could measure.

Whether the targets are met is printed, and is no part of the exit code: on a busy machine it says little.
"""

import asyncio
import json
import signal
import sys
from pathlib import Path

import click
import uvloop
from rich.console import Console

from bench.load import LoadFault
from bench.measuring import Plan, measure
from bench.report import WIDTH, show
from bench.stack import Cores, stack
from taskgrant.errors import TaskgrantError

_STARTS = 3
_SECONDS = 20.0


@click.command()
@click.option(
    "--json", "out", type=click.Path(path_type=Path), default=Path("build/bench.json"), show_default=True
)
@click.option("--rounds", type=click.IntRange(1, 20), default=3, show_default=True)
@click.option(
    "--calls", type=click.IntRange(100, 20_000), default=1500, show_default=True,
    help="Calls of one load at one connection; twice as many at 8, three times as many at 32.",
)  # fmt: skip
@click.option(
    "--profile",
    type=click.Path(path_type=Path),
    help="Run the sidecar under cProfile and leave its figures here; times are of no use then.",
)
def main(out: Path, rounds: int, calls: int, profile: Path | None) -> None:
    """Measure tool calls direct and through the sidecar."""
    # Asked to end, it ends what it has started too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(width=WIDTH)
    cores = Cores.choose()
    runner = () if profile is None else ("-m", "cProfile", "-o", str(profile.resolve()))

    def tell(what: str) -> None:
        console.print(f"bench: {what}", style="dim", highlight=False)

    try:
        starts = []
        for number in range(1, _STARTS):
            tell(f"starting the sidecar, {number} of {_STARTS}")
            with stack(cores) as running:
                starts.append(running.start_seconds)
        tell(f"starting the sidecar, {_STARTS} of {_STARTS}")
        with stack(cores, runner) as running:
            starts.append(running.start_seconds)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
                results = loop.run(measure(running, cores, Plan(rounds, calls, _SECONDS), starts, tell))
    except (TaskgrantError, LoadFault, OSError) as fault:
        console.print(f"bench: {fault}", highlight=False)
        sys.exit(1)
    show(results, cores, console)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results.document(), indent=2) + "\n")
    console.print(f"bench: all figures are in {out}", highlight=False)


main()
