"""What commands print: a JSON document, or text for people (tables with rich on a terminal, plain
columns elsewhere)."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from taskgrant.client import SyncTaskgrantClient


def printable(text: object) -> str:
    """Text of others, without what a terminal would obey (escape sequences, line breaks, bidirectional
    marks)."""
    shown = str(text)
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in shown)


@dataclass(frozen=True, slots=True)
class Output:
    """The global options, and printing as they say."""

    socket: str
    as_json: bool

    def client(self) -> "SyncTaskgrantClient":
        from taskgrant.client.synchronous import SyncTaskgrantClient

        return SyncTaskgrantClient(self.socket)

    def document(self, document: Any) -> None:
        click.echo(json.dumps(document, ensure_ascii=False, indent=2))

    def line(self, document: Any) -> None:
        """One document a line, for streams."""
        click.echo(json.dumps(document, ensure_ascii=False))

    def fields(self, *pairs: tuple[str, object]) -> None:
        """``name  value`` lines; what is None or empty is left out."""
        shown = [(name, printable(value)) for name, value in pairs if value not in (None, "", ())]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            click.echo(f"{name.ljust(width)}  {value}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        cells = [[printable("" if cell is None else cell) for cell in row] for row in rows]
        if sys.stdout.isatty():
            _rich_table(columns, cells)
            return
        widths = [max(len(line[at]) for line in [columns, *cells]) for at in range(len(columns))]
        for line in [list(columns), *cells]:
            click.echo(
                "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            )


def _rich_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))  # Text: brackets of others are no markup
    Console().print(table)
