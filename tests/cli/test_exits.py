import click
import pytest
from click.testing import CliRunner

from taskgrant.cli.exits import Exit, reported
from taskgrant.errors import ConfigurationError, Refused, TaskgrantError

CASES = [
    (Refused("frozen", "it is frozen"), Exit.REFUSED, "taskgrant: refused (frozen): it is frozen\n"),
    (
        Refused(
            "invalid", "no", errors=[{"pointer": "", "detail": "a\nb"}, {"pointer": "/x", "detail": "c"}]
        ),
        Exit.REFUSED,
        "taskgrant: refused (invalid): no\n  (body): a\\u000ab\n  /x: c\n",
    ),
    (Refused("authority_unavailable", "nobody", unreachable=True), Exit.UNREACHABLE, "taskgrant: nobody\n"),
    (ConfigurationError(["one", "two"]), Exit.CONFIGURATION, "taskgrant: one\ntaskgrant: two\n"),
    (TaskgrantError("it broke"), Exit.REFUSED, "taskgrant: it broke\n"),
    (KeyboardInterrupt(), Exit.INTERRUPTED, ""),
]


@pytest.mark.parametrize("error, code, said", CASES, ids=lambda case: type(case).__name__)
def test_an_error_is_a_sentence_and_a_code(error: BaseException, code: Exit, said: str) -> None:
    @click.command()
    @click.pass_context
    def command(ctx: click.Context) -> None:
        with reported(ctx):
            raise error

    result = CliRunner().invoke(command)
    assert (result.exit_code, result.stderr) == (code, said)


def test_what_nobody_foresaw_keeps_its_traceback() -> None:
    @click.command()
    @click.pass_context
    def command(ctx: click.Context) -> None:
        with reported(ctx):
            raise ZeroDivisionError

    assert isinstance(CliRunner().invoke(command).exception, ZeroDivisionError)
