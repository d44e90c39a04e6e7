"""The plain data that every view is made of: styled text, sheets of cells, wrapped sentences; knows no terminal.

A span's role names what the text is (`dim`, `strong`, `warn`, …); app.tcss decides what that looks like.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from rich.cells import cell_len

from engine.analysis.table import Cell, Spread

NO_VALUE = "–"
ROLES = NORMAL, DIM, STRONG, ACCENT, GOOD, WARN, ERROR, KEY = (
    "normal",
    "dim",
    "strong",
    "accent",
    "good",
    "warn",
    "error",
    "key",
)


@dataclass(frozen=True)
class Span:
    """A piece of a line; `color` (`#rrggbb`) wins over the role's own colour."""

    text: str
    role: str = NORMAL
    color: str = ""


Line = tuple[Span, ...]


@dataclass(frozen=True)
class Column:
    """A column of a sheet.

    `rank` says what goes first where width is short: the highest; columns of rank 0 always stay. `shrinks_to` is the
    width down to which the cells may be elided; None where they must stay whole. `mark` stands beside the title, in the
    gap where there is no room, so that it changes no width.
    """

    title: str
    align: str = "left"
    rank: int = 0
    shrinks_to: int | None = None
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """One row of a sheet; `key` stays the same while the figures change, `is_marked` shows in the margin."""

    key: str
    cells: tuple[Span, ...]
    is_marked: bool = False


@dataclass(frozen=True)
class Sheet:
    """Columns and rows, ready to be drawn.

    `least` are widths below which the columns do not go: those of all rows, where only some are in the sheet, so that
    columns stay where they are while rows come and go.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    least: tuple[int, ...] = ()

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Terminal cells of the widest cell or title of each column; measured once: thousands of rows take 10 ms."""
        return self.least or tuple(
            max(map(cell_len, {column.title, *(row.cells[i].text for row in self.rows)}))
            for i, column in enumerate(self.columns)
        )


def figure(value: Cell, digits: int = 3) -> str:
    """A figure as it is shown everywhere: three decimals, a dash where there is none."""
    if value is None or (isinstance(value, float) and value != value):
        return NO_VALUE
    return f"{value:z.{digits}f}" if isinstance(value, int | float) else value


def spread(value: Spread, with_n: bool = False) -> str:
    """`0.812 ± 0.010`; the dash in place of the sd where there is one value only."""
    if value.mean is None:
        return NO_VALUE
    text = f"{figure(value.mean)} ± {figure(value.sd)}"
    return f"{text} (n = {value.n})" if with_n else text


def line(*parts: str | Span) -> Line:
    """A line of plain strings and spans."""
    return tuple(part if isinstance(part, Span) else Span(part) for part in parts)


def line_width(spans: Iterable[Span]) -> int:
    """Terminal cells that a line takes."""
    return sum(cell_len(span.text) for span in spans)


def wrapped(text: str, width: int, max_lines: int, role: str = NORMAL) -> tuple[Line, ...]:
    """A sentence on at most `max_lines` lines; an ellipsis says that something is missing."""
    lines: list[str] = []
    current = ""
    for word in text.split():
        joined = f"{current} {word}" if current else word
        if cell_len(joined) <= width or not current:
            current = joined
        else:
            lines.append(current)
            current = word
    lines.append(current)
    if len(lines) > max_lines:
        last = lines[max_lines - 1]
        while cell_len(last) + 2 > width and " " in last:
            last = last.rpartition(" ")[0]
        lines = [*lines[: max_lines - 1], f"{last} …"]
    return tuple((Span(each, role),) for each in lines)


def wrapped_line(spans: Line, width: int) -> tuple[Line, ...]:
    """A line of spans, broken at words where it is too wide; each word keeps its look."""
    lines: list[list[Span]] = [[]]
    used = 0
    for span in spans:
        for word in re.findall(r"\s*\S+|\s+$", span.text):
            room = cell_len(word)
            if used and used + room > width:
                lines.append([])
                word, used = word.lstrip(), 0
                room = cell_len(word)
            lines[-1].append(Span(word, span.role, span.color))
            used += room
    return tuple(tuple(each) for each in lines)


def fitting(lines: Sequence[Line], width: int) -> Line:
    """The first of these lines that fits into `width`; the last where none does."""
    return next((each for each in lines if line_width(each) <= width), lines[-1])


def count(n: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def and_others(values: Iterable[Cell], value: Cell) -> str:
    """` and 2 others`, where a figure is that of more than the one that is named; nothing where it is not."""
    n = sum(figure(each) == figure(value) for each in values) - 1
    return f" and {count(n, 'other')}" if n > 0 else ""


def fit_columns(sheet: Sheet, width: int) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Which columns fit into `width`, and how wide each is.

    Returns:
        The gap between columns (2 where there is room, else 1), and (index, width) of every column that stays.
    """
    widths = sheet.widths
    kept = list(range(len(widths)))
    while kept and _needed(sheet.columns, widths, kept) > width:  # a sheet that is not filled yet has no columns
        last = max(kept, key=lambda i: (sheet.columns[i].rank, i))
        if sheet.columns[last].rank == 0:
            break
        kept.remove(last)
    if sum(widths[i] for i in kept) + 2 * (len(kept) - 1) <= width:
        return 2, tuple((i, widths[i]) for i in kept)
    spare = width - _needed(sheet.columns, widths, kept)
    fitted: list[tuple[int, int]] = []
    for i in kept:
        least = _least(sheet.columns[i], widths[i])
        more = max(0, min(spare, widths[i] - least))
        spare -= more
        fitted.append((i, least + more))
    return 1, tuple(fitted)


def _least(column: Column, natural: int) -> int:
    return natural if column.shrinks_to is None else min(natural, column.shrinks_to)


def _needed(columns: Sequence[Column], widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(_least(columns[i], widths[i]) for i in kept) + len(kept) - 1
