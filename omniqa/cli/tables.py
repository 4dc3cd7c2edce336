"""Tables that fit their width: names and numbers are never cut, and columns give way by a declared rank."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from omniqa.terminal import one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_GAP = 2  # spaces between columns
_WORD = 20  # a longer word, such as a path, may be folded
_TEXT_WIDTH = 12  # a column of words is wrapped to no less


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its header.
        kind: a name or a number stands on one line, whole; text may go over several.
        rank: 0 is always shown; of the others, the highest goes first where the table is too wide.
    """

    title: str
    kind: Literal["name", "number", "text"] = "text"
    rank: int = 0

    def widths(self, cells: Sequence[str]) -> tuple[int, int]:
        """The fewest characters that do for these cells, and the most that are of use.

        A header may go over several lines, by words.
        """
        from rich.cells import cell_len

        longest = max(map(cell_len, cells), default=0)
        least = longest
        if self.kind == "text":
            words = max((cell_len(word) for cell in cells for word in cell.split()), default=0)
            least = min(longest, max(_TEXT_WIDTH, min(words, _WORD)))
        return max(least, *map(cell_len, self.title.split()), 1), max(longest, cell_len(self.title))


def name(title: str, rank: int = 0) -> Column:
    """A column of names, such as a method's."""
    return Column(title, "name", rank)


def number(title: str, rank: int = 0) -> Column:
    """A column of numbers."""
    return Column(title, "number", rank)


def text(title: str, rank: int = 0) -> Column:
    """A column of words."""
    return Column(title, "text", rank)


def _column(column: Column | str) -> Column:
    if isinstance(column, Column):
        title = one_line(column.title)
        return Column(title, column.kind, column.rank)
    return Column(one_line(column.removeprefix(">")), "number" if column.startswith(">") else "text")


@dataclass(frozen=True)
class Table:
    """Rows of cells below columns."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    @classmethod
    def of(cls, columns: Sequence[Column | str], rows: Sequence[Sequence[str]]) -> "Table":
        """A table whose cells are made printable, each on one line.

        Args:
            columns: a title alone stands for words, one that begins with > for numbers.
        """
        return cls(list(map(_column, columns)), [[one_line(cell) for cell in row] for row in rows])

    def show(self, console: "Console", width: int | None) -> None:
        """Print it within `width` characters; None is as wide as it needs to be."""
        if width is None:
            width = console.width = sys.maxsize
        table = self._that_fits(width)
        if table is None:
            for row in self.rows:
                console.print(self._block(row, console, width), crop=False, no_wrap=True, overflow="ignore")
            return
        console.print(table._grid(width), crop=False)
        console.print()
        hidden = [column.title for column in self.columns if column not in table.columns]
        if hidden:
            console.print(f"not shown at this width: {', '.join(hidden)}\n")

    def _that_fits(self, width: int) -> "Table | None":
        """The table without the columns that must give way; None where even those of rank 0 are too wide."""
        table = self
        while table._least() > width:
            ranks = [column.rank for column in table.columns]
            if not any(ranks):
                return None
            at = len(ranks) - 1 - ranks[::-1].index(max(ranks))
            table = Table(
                [*table.columns[:at], *table.columns[at + 1 :]], [[*row[:at], *row[at + 1 :]] for row in table.rows]
            )
        return table

    def _widths(self) -> list[tuple[int, int]]:
        return [column.widths([row[index] for row in self.rows]) for index, column in enumerate(self.columns)]

    def _least(self) -> int:
        return sum(least for least, _ in self._widths()) + _GAP * (len(self.columns) - 1)

    def _grid(self, width: int) -> "RenderableType":
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as Grid

        # The box's own line between columns is the gap's first character.
        grid = Grid(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, _GAP - 1, 0, 0))
        spare = width - self._least()
        for column, (least, most) in zip(self.columns, self._widths(), strict=True):
            more = min(most - least, spare)
            spare -= more
            justify: Literal["left", "right"] = "right" if column.kind == "number" else "left"
            grid.add_column(column.title, justify=justify, width=least + more, overflow="fold")
        for row in self.rows:
            grid.add_row(*row)
        return grid

    def _block(self, row: Sequence[str], console: "Console", width: int) -> str:
        """A row as lines of its own, each with its header."""
        from rich.cells import cell_len, set_cell_size
        from rich.text import Text

        titles = max(cell_len(column.title) for column in self.columns)
        lines = []
        for column, cell in zip(self.columns, row, strict=True):
            room = max(_TEXT_WIDTH, width - titles - _GAP)
            pieces = [Text(cell)]
            if column.kind == "text":  # by terminal cells, of which a wide character takes two
                pieces = [*pieces[0].wrap(console, room, overflow="fold")] or pieces
            for index, piece in enumerate(pieces):
                title = set_cell_size(column.title if index == 0 else "", titles)
                lines.append(f"{title}{' ' * _GAP}{piece}".rstrip())
        return "\n".join([*lines, ""])
