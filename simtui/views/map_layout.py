"""How large the cells of a map are and which of them are in sight; arithmetic only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from rich.cells import cell_len

HEADER_LINES = 2
MAX_LABEL_WIDTH = 14


@dataclass(frozen=True)
class MapLayout:
    """`cell_height` counts terminal lines; 0 means two rows of the matrix a line, as half blocks.

    `digits` is how many characters of a value fit into a cell: 4 (`0.41`), 3 (`.41`), 1 (tenths) or 0.
    """

    label_width: int
    cell_width: int
    cell_height: int
    digits: int
    first_row: int
    n_rows: int
    first_column: int
    n_columns: int
    n_all_rows: int
    n_all_columns: int

    @property
    def window(self) -> str:
        """What is in sight of a map that does not fit; empty where all of it is."""
        axes = (
            ("rows", self.first_row, self.n_rows, self.n_all_rows),
            ("columns", self.first_column, self.n_columns, self.n_all_columns),
        )
        parts = [(f"{name} {first + 1}–{first + n}", total) for name, first, n, total in axes if n < total]
        if self.n_all_rows != self.n_all_columns:
            return ", ".join(f"{part} of {total}" for part, total in parts)
        return f"{', '.join(part for part, _ in parts)} of {self.n_all_columns}" if parts else ""

    @property
    def short_window(self) -> str:
        """The same in fewer words."""
        rows, columns = (
            f"{first + 1}–{first + n}"
            for first, n in ((self.first_row, self.n_rows), (self.first_column, self.n_columns))
        )
        totals = dict.fromkeys((self.n_all_rows, self.n_all_columns))
        return f"{rows} × {columns} of {' × '.join(map(str, totals))}" if self.window else ""

    def lines_of(self, row: int) -> range:
        """The terminal lines of a row of the matrix."""
        place = row - self.first_row
        if self.cell_height == 0:
            return range(HEADER_LINES + place // 2, HEADER_LINES + place // 2 + 1)
        top = HEADER_LINES + place * self.cell_height
        return range(top, top + self.cell_height)

    def x_of(self, column: int) -> int:
        """The terminal column where a column of the matrix starts."""
        return self.label_width + 1 + (column - self.first_column) * self.cell_width

    def cell_at(self, x: int, y: int) -> tuple[int, int] | None:
        """The cell of the matrix under a point; of two in one line, the upper."""
        column = self.first_column + (x - self.label_width - 1) // self.cell_width
        place = (y - HEADER_LINES) * 2 if self.cell_height == 0 else (y - HEADER_LINES) // self.cell_height
        row = self.first_row + place
        is_inside = x > self.label_width and y >= HEADER_LINES
        is_inside = is_inside and column < self.first_column + self.n_columns and row < self.first_row + self.n_rows
        return (row, column) if is_inside else None


def lay_out(
    width: int,
    height: int,
    labels: Sequence[str],
    cursor: tuple[int, int],
    is_colorless: bool = False,
    old: MapLayout | None = None,
    is_signed: bool = False,
    row_labels: Sequence[str] = (),
) -> MapLayout:
    """The largest cells with which the whole map fits; else the smallest, and a window that holds the cursor.

    Seeing the whole map goes before reading numbers in it: the value under the cursor is always written out.

    Args:
        is_signed: a digit has a sign beside it, so that no cell without colour is narrower than both.
        row_labels: of the rows, where they are not those of the columns.
    """
    row_labels = row_labels or labels
    n, n_down = max(len(labels), 1), max(len(row_labels), 1)
    label_width = min(max((cell_len(label) for label in row_labels), default=1), MAX_LABEL_WIDTH) + 2
    room_x, room_y = max(width - label_width - 1, 1), max(height - HEADER_LINES, 1)
    cell_width, cell_height, digits = _cell_size(room_x // n, room_y // n_down, is_colorless)
    if is_colorless and is_signed:
        cell_width = max(cell_width, 2)
    n_columns = min(n, max(room_x // cell_width, 1))
    n_rows = min(n_down, max(room_y * 2 if cell_height == 0 else room_y // cell_height, 1))
    return MapLayout(
        label_width, cell_width, cell_height, digits,
        _window(cursor[0], n_rows, n_down, old.first_row if old else 0), n_rows,
        _window(cursor[1], n_columns, n, old.first_column if old else 0), n_columns, n_down, n,
    )  # fmt: skip


def short_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels without the words they share at the start: `block 1`, `block 2`, or `block.1`, … become `1`, `2`."""
    words = [re.findall(r"[^ .]*[ .]|[^ .]+$", label) for label in labels]
    n_shared = sum(1 for _ in takewhile(lambda nth: len(set(nth)) == 1, zip(*words, strict=False)))
    return tuple("".join(each[n_shared:]) or label for each, label in zip(words, labels, strict=True))


def _cell_size(fits_x: int, fits_y: int, is_colorless: bool) -> tuple[int, int, int]:
    """(width, height, digits); a terminal cell is about twice as high as it is wide."""
    if fits_y >= 1 and fits_x >= 4:
        height = min(fits_y, max(fits_x // 2, 1))
        width = min(fits_x, max(6, 3 * height))
        return width, height, 4 if width >= 5 else 3
    if is_colorless:
        return (2 if fits_x >= 2 else 1), 1, 1
    if fits_y >= 1 and fits_x >= 2:
        return min(fits_x, 3), 1, 0
    return min(max(fits_x, 1), 2), 0, 0


def _window(cursor: int, n_seen: int, n: int, first: int) -> int:
    """The first of `n_seen` places such that the cursor is among them, moved as little as can be."""
    first = min(max(first, cursor - n_seen + 1), cursor)
    return max(min(first, n - n_seen), 0)
