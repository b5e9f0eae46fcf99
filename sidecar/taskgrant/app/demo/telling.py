"""How the demo tells: numbered steps, what was expected, what was seen, whether the two agree; for 100 columns."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_WIDTH = 100
_INDENT, _MARK = 3, 9


class Telling:
    def __init__(self) -> None:
        self.console = Console(
            width=min(_WIDTH, Console().width) if Console().is_terminal else _WIDTH, highlight=False
        )
        self.differences = 0
        self._step = 0

    def step(self, title: str) -> None:
        self._step += 1
        self.console.print()
        self.console.print(Text(f"{self._step}. {title}", style="bold"))

    def note(self, text: str) -> None:
        self._indented(Text(text, style="dim"), _INDENT)

    def quote(self, text: str) -> None:
        """What the model reads."""
        self._indented(Text(f"the model reads: “{text}”", style="italic"), _MARK)

    def check(self, what: str, expected: object, seen: object) -> None:
        """One line where it fits, else what was seen goes on a line of its own."""
        agreed = expected == seen
        self.differences += not agreed
        mark = Text("   ok    ", style="bold green") if agreed else Text(" DIFFERS ", style="bold red")
        first = Text(f"{what}: expected ").append(_plain(expected), style="cyan")
        second = Text("seen ").append(_plain(seen), style="cyan" if agreed else "bold red")
        if _MARK + len(first) + 2 + len(second) <= self.console.width:
            self.console.print(mark + first + "; " + second)
            return
        self.console.print(mark + first, overflow="fold")
        self._indented(second, _MARK)

    def fail(self, why: str) -> None:
        self.console.print(Text(why, style="red"))

    def table(self, title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        table = Table(
            title=title,
            title_justify="left",
            title_style="",
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
        )
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*row)
        self.console.print()
        self._indented(table, _INDENT)
        self.console.print()

    def _indented(self, what: Text | Table, by: int) -> None:
        self.console.print(Padding(what, (0, 0, 0, by), expand=False))


def _plain(value: object) -> str:
    """Values as people say them."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
