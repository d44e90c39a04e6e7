"""A layer × layer map: draws a finished matrix and moves a cursor over it; knows nothing of where it came from.

Drawn line by line with a cache of strips: a step of the cursor draws the lines of two cells anew and sends only those
cells and their labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from rich.segment import Segment
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from simtui.palette import digit, scale_color, text_color
from simtui.safe_text import fitted
from simtui.views.map_layout import MapLayout, lay_out, short_labels
from simtui.views.parts import ACCENT, DIM, NORMAL, Span
from simtui.widgets.drawn import Drawn

_CURSOR, _CURSOR_TEXT = "#ffffff", "#000000"


class SimilarityMap(Drawn):
    """Rows and columns are named alike; the cursor is always in sight."""

    @dataclass
    class CellMoved(Message):
        """The cursor is on another cell."""

        row: int
        column: int

    @dataclass
    class CellChosen(Message):
        """The cell under the cursor was clicked once more."""

    def __init__(self, id: str | None = None, is_colorless: bool = False, is_256: bool = False) -> None:
        super().__init__(id=id)
        self._is_colorless, self._is_256 = is_colorless, is_256
        self._matrix = np.empty((0, 0))
        self._labels: tuple[str, ...] = ()
        self._short: tuple[str, ...] = ()
        self._title = ""
        self.row = self.column = 0
        self._layout: MapLayout | None = None
        self._strips: dict[int, Strip] = {}

    def show(self, matrix: np.ndarray, labels: tuple[str, ...], row: int, column: int, title: str) -> None:
        """Draws a matrix `(n, n)`; what is drawn already stays as it is."""
        is_same = (labels, title) == (self._labels, self._title)
        is_same = is_same and np.array_equal(matrix, self._matrix, equal_nan=True)
        if is_same and (row, column) == (self.row, self.column):
            return
        if is_same and self._layout:
            self.move_to(row, column)
            return
        self._matrix, self._labels, self._short, self._title = matrix, labels, short_labels(labels), title
        self.row, self.column = row, column
        self._draw_anew()

    def move_to(self, row: int, column: int) -> None:
        """Moves the cursor to a cell of the matrix."""
        last = len(self._labels) - 1
        row, column = min(max(row, 0), max(last, 0)), min(max(column, 0), max(last, 0))
        old, layout = (self.row, self.column), self._layout
        if (row, column) == old or layout is None:
            return
        self.row, self.column = row, column
        self._layout = self._laid_out()
        if self._layout != layout:
            self._strips.clear()
            self.refresh()
        else:
            for each in (old, (row, column)):
                self._refresh_cell(layout, *each)
        self.post_message(self.CellMoved(row, column))

    def render_line(self, y: int) -> Strip:
        """One line, from the cache where it has not changed."""
        if y not in self._strips:
            self._strips[y] = self._line(y).adjust_cell_length(self.size.width, self.rich_style)
        return self._strips[y]

    def on_resize(self) -> None:
        """Cells of another size may fit."""
        self._draw_anew()

    def on_click(self, event: events.Click) -> None:
        """A click moves the cursor; on the cursor's own cell it chooses."""
        cell = self._layout.cell_at(event.x, event.y) if self._layout else None
        if cell == (self.row, self.column):
            self.post_message(self.CellChosen())
        elif cell:
            self.move_to(*cell)

    def notify_style_update(self) -> None:
        """A new theme: nothing that was drawn can stay."""
        self._strips.clear()
        super().notify_style_update()

    def _draw_anew(self) -> None:
        self._layout = self._laid_out()
        self._strips.clear()
        self.refresh()

    def _laid_out(self) -> MapLayout:
        cursor = (self.row, self.column)
        return lay_out(*self.size, self._labels, cursor, self._is_colorless, self._layout)

    def _refresh_cell(self, layout: MapLayout, row: int, column: int) -> None:
        """A cell, and the labels that say where the cursor is."""
        lines, x = layout.lines_of(row), layout.x_of(column)
        for y in (1, *lines):
            self._strips.pop(y, None)
        self.refresh(
            Region(x, lines.start, layout.cell_width, len(lines)),
            Region(0, lines.start + (len(lines) - 1) // 2, layout.label_width, 1),
        )
        if layout.cell_width >= 2:
            self.refresh(Region(x, 1, layout.cell_width, 1))
        else:
            self.refresh(Region(layout.label_width, 1, layout.n_columns + 8, 1))

    def _line(self, y: int) -> Strip:
        layout = self._layout
        if layout is None or not self._labels:
            return Strip.blank(self.size.width, self.rich_style)
        if y == 0:
            seen = [Span(f"   in sight: {layout.window}", DIM)] if layout.window else []
            return self.strip_of([Span(" ↓ pre-trained   → ", DIM), Span(self._title), *seen], self.size.width)
        if y == 1:
            return self._column_labels(layout)
        rows = [
            row for row in range(layout.first_row, layout.first_row + layout.n_rows) if y in layout.lines_of(row)
        ]  # fmt: skip
        if not rows:
            return Strip.blank(self.size.width, self.rich_style)
        segments = self._row_label(layout, rows, y)
        for column in range(layout.first_column, layout.first_column + layout.n_columns):
            is_half = layout.cell_height == 0
            segments += self._half_blocks(rows, column) if is_half else self._cell(rows[0], column, y)
        return Strip(segments)

    def _row_label(self, layout: MapLayout, rows: list[int], y: int) -> list[Segment]:
        lines = layout.lines_of(rows[0])
        is_here = self.row in rows
        shown = self.row if is_here else rows[0]
        text = self._labels[shown] if y == lines.start + (len(lines) - 1) // 2 or layout.cell_height == 0 else ""
        if layout.cell_height == 0 and not is_here and rows[0] % 4:
            text = ""
        role = ACCENT if is_here else DIM
        return [Segment(fitted(text, layout.label_width - 1, "right") + "  ", self.look(role))]

    def _column_labels(self, layout: MapLayout) -> Strip:
        width, columns = layout.cell_width, range(layout.first_column, layout.first_column + layout.n_columns)
        full = all(len(self._labels[i]) < width for i in columns)
        names = self._labels if full else self._short
        spans = [Span(" " * (layout.label_width + 1))]
        stride = next(step for step in (1, 2, 4, 5, 10, 20, 50, 100, 1000) if step * width > max(map(len, names)))
        if stride == 1:
            for i in columns:
                spans.append(Span(fitted(names[i], width, "center"), ACCENT if i == self.column else DIM))
            return self.strip_of(spans, self.size.width)
        text = [" "] * (len(columns) * width + 8)
        for place, i in enumerate(columns):
            if i % stride == 0 and abs(i - self.column) * width > len(names[i]):
                text[place * width : place * width + len(names[i])] = names[i]
        start = (self.column - layout.first_column) * width
        end = start + len(names[self.column])
        here = Span("".join(names[self.column]), ACCENT)
        spans += [Span("".join(text[:start]), DIM), here, Span("".join(text[end:]), DIM)]
        return self.strip_of(spans, self.size.width)

    def _cell(self, row: int, column: int, y: int) -> list[Segment]:
        layout, value = self._layout, float(self._matrix[row, column])
        assert layout is not None
        lines, width = layout.lines_of(row), layout.cell_width
        is_cursor = (row, column) == (self.row, self.column)
        text = _written(value, layout.digits) if y == lines.start + (len(lines) - 1) // 2 else ""
        if self._is_colorless:
            look = self.look(ACCENT, _CURSOR_TEXT, _CURSOR) if is_cursor else self.look(NORMAL)
            return [Segment(fitted(text, width, "center"), look)]
        ground = scale_color(value, self._is_256)
        if is_cursor and width < 6:
            return [Segment(fitted(text, width, "center"), self.look(ACCENT, _CURSOR_TEXT, _CURSOR))]
        color = text_color(ground)
        if not is_cursor:
            return [Segment(fitted(text, width, "center"), self.look(NORMAL, color, ground))]
        edge = self.look(NORMAL, _CURSOR, ground)
        inside = Segment(fitted(text, width - 2, "center"), self.look(ACCENT, color, ground))
        return [Segment("▌", edge), inside, Segment("▐", edge)]

    def _half_blocks(self, rows: list[int], column: int) -> list[Segment]:
        """Two rows of the matrix in one line: the upper half of each character and the ground under it."""
        assert self._layout is not None
        colors = [scale_color(float(self._matrix[row, column]), self._is_256) for row in rows]
        if column == self.column and self.row in rows:
            colors[rows.index(self.row)] = _CURSOR
        return [Segment("▀" * self._layout.cell_width, self.look(NORMAL, *colors))]


def _written(value: float, digits: int) -> str:
    """As much of a value as fits into so many characters: `0.41`, `.41`, its tenths; `-.41`, `-.4` below zero."""
    if digits <= 1 or math.isnan(value):
        return digit(value) if digits else ""
    text = f"{value:z.{1 if value < 0 and digits == 3 else 2}f}"
    if digits == 3 or text.startswith("-"):
        text = text.replace("0.", ".", 1)
    return text[:digits].rstrip(".")
