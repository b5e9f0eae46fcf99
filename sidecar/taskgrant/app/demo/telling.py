"""How the demo tells: numbered steps, what was expected, what was seen, whether the two agree; for 100 columns."""

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_WIDTH = 100


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
        self.console.print(Padding(Text(text, style="dim"), (0, 0, 0, 3)))

    def quote(self, text: str) -> None:
        """What the model reads."""
        self.console.print(Padding(Text(f"“{text}”", style="italic"), (0, 0, 0, 6)))

    def check(self, what: str, expected: object, seen: object) -> None:
        agreed = expected == seen
        self.differences += not agreed
        mark = Text(" ok ", style="bold green") if agreed else Text(" DIFFERS ", style="bold red")
        line = Text("   ") + mark + Text(f" {what}: ") + Text(str(seen), style="cyan")
        self.console.print(line)
        if not agreed:
            self.console.print(Text(f"        expected: {expected}", style="red"))

    def table(self, title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        table = Table(title=title, title_justify="left", title_style="", pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*row)
        self.console.print(Padding(table, (0, 0, 0, 3)))
