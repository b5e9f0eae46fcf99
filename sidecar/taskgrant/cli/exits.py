"""How commands exit: one code for each sort of outcome, and one sentence on standard error."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import click

from taskgrant.cli.output import printable
from taskgrant.errors import ConfigurationError, Refused, TaskgrantError


class Exit(IntEnum):
    """``docs/cli.md`` explains each; they are part of the command's interface."""

    OK = 0
    REFUSED = 1
    USAGE = 2  # click's own
    CONFIGURATION = 3
    UNREACHABLE = 4
    FAULTS = 5
    INTERRUPTED = 130  # as shells have it: 128 + SIGINT

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Exit.OK: "done",
    Exit.REFUSED: "refused or failed",
    Exit.USAGE: "wrong usage",
    Exit.CONFIGURATION: "configuration cannot be used",
    Exit.UNREACHABLE: "control API unreachable",
    Exit.FAULTS: "a check found faults",
    Exit.INTERRUPTED: "interrupted",
}


@contextmanager
def reported(ctx: click.Context) -> Iterator[None]:
    """Ours become a sentence and a code; what nobody foresaw keeps its traceback."""
    try:
        yield
    except Refused as refused:
        unreachable = bool(refused.details.get("unreachable"))
        _say(refused.reason if unreachable else f"refused ({refused.code}): {refused.reason}")
        for fault in refused.details.get("errors") or ():
            _say(f"  {fault.get('pointer') or '(body)'}: {fault.get('detail')}", prefix="")
        ctx.exit(Exit.UNREACHABLE if unreachable else Exit.REFUSED)
    except ConfigurationError as wrong:
        for sentence in wrong.faults:
            _say(sentence)
        ctx.exit(Exit.CONFIGURATION)
    except TaskgrantError as failed:
        _say(str(failed))
        ctx.exit(Exit.REFUSED)
    except KeyboardInterrupt:
        ctx.exit(Exit.INTERRUPTED)


def _say(sentence: str, prefix: str = "taskgrant: ") -> None:
    click.echo(prefix + printable(sentence), err=True)
