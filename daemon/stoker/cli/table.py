"""Tables and colours for a terminal, in a hundred lines: rich is only worth its start-up for the live view.

Colours only on a terminal, and not where NO_COLOR is set or the terminal is dumb.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

Style = str
"""A name out of `_CODES`, or "" for plain."""

_CODES = {
    "bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35",
    "cyan": "36",
}  # fmt: skip


class Cell(NamedTuple):
    """Text with one style."""

    text: str
    style: Style = ""


class Column(NamedTuple):
    """A heading; `right` for numbers; `shrink` gives up width first when the terminal is narrow."""

    title: str
    right: bool = False
    shrink: bool = False


class Table(NamedTuple):
    """Columns and rows. Columns that are empty in every row are left out."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def used(self) -> list[int]:
        """Indexes of the columns in which anything stands."""
        return [i for i in range(len(self.columns)) if any(row[i].text for row in self.rows)]


def coloured() -> bool:
    """Whether stdout wants colours."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout.isatty()


def width() -> int | None:
    """Columns of the terminal, None where there is none (nothing is shortened then)."""
    if not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size((100, 24)).columns


def paint(text: str, style: Style, *, colour: bool) -> str:
    """The text in that style."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if colour and style and text else text


def render(table: Table, *, columns: int | None, colour: bool) -> list[str]:
    """The table as lines. Pure."""
    used = table.used()
    sizes = {i: max(len(table.columns[i].title), *(len(row[i].text) for row in table.rows)) for i in used}
    if columns is not None:
        _shrink(sizes, table, columns)
    heading = [Cell(column.title, "dim") for column in table.columns]
    return [_line(table, row, sizes, colour) for row in (tuple(heading), *table.rows)] if used else []


def shorten(text: str, size: int) -> str:
    """The text in at most `size` columns. Pure."""
    return text if len(text) <= size else text[: max(0, size - 1)] + "…"


def show(table: Table) -> None:
    """Print the table for this stdout."""
    for line in render(table, columns=width(), colour=coloured()):
        say(line)


def say(text: str = "", style: Style = "") -> None:
    """Print a line for this stdout."""
    sys.stdout.write(paint(text, style, colour=coloured()) + "\n")


def cells(values: Sequence[str | Cell]) -> tuple[Cell, ...]:
    """A row from plain texts and cells."""
    return tuple(value if isinstance(value, Cell) else Cell(value) for value in values)


def _shrink(sizes: dict[int, int], table: Table, columns: int) -> None:
    over = sum(sizes.values()) + 2 * (len(sizes) - 1) - columns
    for i in sorted((i for i in sizes if table.columns[i].shrink), key=lambda i: -sizes[i]):
        if over <= 0:
            return
        room = max(len(table.columns[i].title), 12)
        cut = min(over, max(0, sizes[i] - room))
        sizes[i] -= cut
        over -= cut


def _line(table: Table, row: Sequence[Cell], sizes: dict[int, int], colour: bool) -> str:
    parts = []
    last = max(sizes)
    for i, size in sizes.items():
        text = shorten(row[i].text, size)
        padding = " " * (size - len(text))
        painted = paint(text, row[i].style, colour=colour)
        if table.columns[i].right:
            parts.append(padding + painted)
        else:
            parts.append(painted + ("" if i == last else padding))
    return "  ".join(parts).rstrip()
