"""A layer × layer map: draws a finished matrix and moves a cursor over it; knows nothing of where it came from.

Drawn line by line with a cache of strips: a step of the cursor draws the lines of two cells anew and sends only those
cells and their labels; another matrix of the same size sends only the cells that look different.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from simtui.palette import text_color
from simtui.safe_text import fitted
from simtui.views.map_cells import SIMILARITY, MapPicture
from simtui.views.map_layout import MapLayout, lay_out, short_labels
from simtui.views.parts import ACCENT, DIM, NORMAL, Line, Span, fitting
from simtui.widgets.drawn import Drawn

_CURSOR, _CURSOR_TEXT = "#ffffff", "#000000"
_NOTHING = MapPicture(np.empty((0, 0)), (), 0, 0, ((),), SIMILARITY)
Face = tuple[str, str]  # what a cell looks like: its characters and its ground


class SimilarityMap(Drawn):
    """Rows and columns have names, mostly the same; the cursor is always in sight."""

    @dataclass
    class CellMoved(Message):
        """The user has moved the cursor of this map to another cell."""

        map: SimilarityMap
        row: int
        column: int

    @dataclass
    class CellChosen(Message):
        """The cell under the cursor was clicked once more."""

    def __init__(self, id: str | None = None, is_colorless: bool = False, is_256: bool = False) -> None:
        super().__init__(id=id)
        self._is_colorless, self._is_256 = is_colorless, is_256
        self._picture = _NOTHING
        self._short: tuple[str, ...] = ()
        self.row = self.column = 0
        self._layout: MapLayout | None = None
        self._faces: list[list[Face]] = []
        self._names: list[Span] = []
        self._strips: dict[int, Strip] = {}

    @property
    def _labels(self) -> tuple[str, ...]:
        return self._picture.layers

    @property
    def _row_labels(self) -> tuple[str, ...]:
        return self._picture.row_layers

    def show(self, picture: MapPicture) -> None:
        """Draws a matrix; what is drawn already stays as it is."""
        old, self._picture = self._picture, picture
        if (old.layers, old.row_layers) != (picture.layers, picture.row_layers) or self._layout is None:
            self._short = short_labels(picture.layers)
            self.row, self.column = picture.row, picture.column
            self._draw_anew()
            return
        if old.titles != picture.titles:
            self._refresh_line(0)
        is_same = old.scale == picture.scale and np.array_equal(old.matrix, picture.matrix, equal_nan=True)
        if old.scale.is_signed != picture.scale.is_signed and self._laid_out() != self._layout:
            self._draw_anew()
        elif not is_same:
            self._refresh_faces(self._layout)
        self._put(picture.row, picture.column)

    def move_to(self, row: int, column: int) -> None:
        """Moves the cursor to a cell of the matrix, and says so."""
        last_row, last = (max(len(labels) - 1, 0) for labels in (self._row_labels, self._labels))
        if self._put(min(max(row, 0), last_row), min(max(column, 0), last)):
            self.post_message(self.CellMoved(self, self.row, self.column))

    def render_line(self, y: int) -> Strip:
        """One line, from the cache where it has not changed."""
        if y not in self._strips:
            self._strips[y] = self._line(y).adjust_cell_length(self.size.width, self.ground)
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

    def _put(self, row: int, column: int) -> bool:
        """Places the cursor; whether it was elsewhere."""
        old, layout = (self.row, self.column), self._layout
        if (row, column) == old or layout is None:
            return False
        self.row, self.column = row, column
        self._layout = self._laid_out()
        if self._layout != layout:
            self._names = self._column_names(self._layout)
            self._strips.clear()
            self.refresh()
        else:
            self._refresh_cursor(layout, old)
        return True

    def _draw_anew(self) -> None:
        if not self._labels:
            return
        self._layout = self._laid_out()
        self._faces, self._names = self._faces_of(self._layout), self._column_names(self._layout)
        self._strips.clear()
        self.refresh()

    def _laid_out(self) -> MapLayout:
        cursor, is_signed = (self.row, self.column), self._picture.scale.is_signed
        rows = self._row_labels
        return lay_out(*self.size, self._labels, cursor, self._is_colorless, self._layout, is_signed, rows)

    def _faces_of(self, layout: MapLayout) -> list[list[Face]]:
        """What every cell looks like; without colour all stand on the same ground."""
        scale, digits, width = self._picture.scale, layout.digits, layout.cell_width
        is_plain, is_256 = self._is_colorless, self._is_256
        return [
            [(scale.written(value, digits, width), "" if is_plain else scale.color(value, is_256)) for value in row]
            for row in self._picture.matrix.tolist()
        ]

    def _refresh_faces(self, layout: MapLayout) -> None:
        """Draws the rows that look different."""
        old, self._faces = self._faces, self._faces_of(layout)
        regions = []
        for row in range(layout.first_row, layout.first_row + layout.n_rows):
            if old[row] != self._faces[row]:
                lines = layout.lines_of(row)
                regions.append(Region(0, lines.start, self.size.width, len(lines)))
                for y in lines:
                    self._strips.pop(y, None)
        if regions:
            self.refresh(*regions)

    def _refresh_line(self, y: int) -> None:
        self._strips.pop(y, None)
        self.refresh(Region(0, y, self.size.width, 1))

    def _refresh_cursor(self, layout: MapLayout, old: tuple[int, int]) -> None:
        """Two cells, and of the labels that say where the cursor is those that change."""
        regions = []
        for row, column in (old, (self.row, self.column)):
            lines = layout.lines_of(row)
            for y in lines:
                self._strips.pop(y, None)
            regions.append(Region(layout.x_of(column), lines.start, layout.cell_width, len(lines)))
            if old[0] != self.row:
                regions.append(Region(0, lines.start + (len(lines) - 1) // 2, layout.label_width, 1))
        before, self._names = self._names, self._column_names(layout)
        changed = [i for i, (one, other) in enumerate(zip(before, self._names, strict=True)) if one != other]
        if changed:
            self._strips.pop(1, None)
            regions.append(Region(layout.label_width + 1 + changed[0], 1, changed[-1] - changed[0] + 1, 1))
        self.refresh(*regions)

    def _line(self, y: int) -> Strip:
        layout = self._layout
        if layout is None:
            return Strip.blank(self.size.width, self.ground)
        if y == 0:
            return self.strip_of(self._title(layout), self.size.width)
        if y == 1:
            return self.strip_of([Span(" " * (layout.label_width + 1)), *self._names], self.size.width)
        rows = [
            row for row in range(layout.first_row, layout.first_row + layout.n_rows) if y in layout.lines_of(row)
        ]  # fmt: skip
        if not rows:
            return Strip.blank(self.size.width, self.ground)
        segments = self._row_label(layout, rows, y)
        for column in range(layout.first_column, layout.first_column + layout.n_columns):
            is_half = layout.cell_height == 0
            segments += self._half_blocks(layout, rows, column) if is_half else self._cell(layout, rows[0], column, y)
        return Strip(segments).simplify()

    def _title(self, layout: MapLayout) -> Line:
        """What is shown, and which part of it is in sight where that is not all."""
        seen = [f"   in sight: {layout.window}", f"  {layout.short_window}"] if layout.window else [""]
        lines = [(*title, Span(part, DIM)) for part in seen for title in self._picture.titles]
        return fitting(lines, self.size.width)

    def _row_label(self, layout: MapLayout, rows: list[int], y: int) -> list[Segment]:
        lines = layout.lines_of(rows[0])
        is_here = self.row in rows
        shown = self.row if is_here else rows[0]
        text = self._row_labels[shown] if y == lines.start + (len(lines) - 1) // 2 or layout.cell_height == 0 else ""
        if layout.cell_height == 0 and not is_here and rows[0] % 4:
            text = ""
        # Blanks look alike wherever the cursor is: only names are drawn again when it moves.
        role = ACCENT if is_here and text else DIM
        name = Segment(fitted(text, layout.label_width - 1, "right"), self.look(role))
        return [name, Segment("  ", self.look(DIM))]

    def _column_names(self, layout: MapLayout) -> list[Span]:
        """The line of column names, one character a span; where not all have room, the cursor's and every so many."""
        width, columns = layout.cell_width, range(layout.first_column, layout.first_column + layout.n_columns)
        names = self._labels if all(cell_len(self._labels[i]) < width for i in columns) else self._short
        longest = max(map(cell_len, names))
        stride = next((step for step in (1, 2, 4, 5, 10, 20, 50, 100) if step * width > longest), 1000)
        room = max(self.size.width - layout.label_width - 1, 0)
        spans = [Span(" ", DIM)] * room
        if stride == 1:
            names = tuple(fitted(name, width, "center") for name in names)
        at = (self.column - layout.first_column) * width
        here = range(max(min(at, room - cell_len(names[self.column])), 0), at + cell_len(names[self.column]))
        for place, i in enumerate(columns):
            is_here, start, end = i == self.column, place * width, place * width + cell_len(names[i])
            is_free = stride == 1 or (i % stride == 0 and (end < here.start or start > here.stop) and end <= room)
            if is_here or is_free:
                start = here.start if is_here else start
                for x, char in zip(range(start, room), _cells_of(names[i]), strict=False):
                    spans[x] = Span(char, ACCENT if is_here else DIM)
        return spans

    def _cell(self, layout: MapLayout, row: int, column: int, y: int) -> list[Segment]:
        lines, width = layout.lines_of(row), layout.cell_width
        is_cursor = (row, column) == (self.row, self.column)
        text, ground = self._faces[row][column]
        text = text if y == lines.start + (len(lines) - 1) // 2 else ""
        if is_cursor and (self._is_colorless or width < 6):
            return [Segment(fitted(text, width, "center"), self.look(ACCENT, _CURSOR_TEXT, _CURSOR))]
        if not ground:
            return [Segment(fitted(text, width, "center"), self.look(NORMAL))]
        color = text_color(ground)
        if not is_cursor:
            look = self.look(NORMAL, color, ground) if text else Style(bgcolor=ground)
            return [Segment(fitted(text, width, "center"), look)]
        edge = self.look(NORMAL, _CURSOR, ground)
        inside = Segment(fitted(text, width - 2, "center"), self.look(ACCENT, color, ground))
        return [Segment("▌", edge), inside, Segment("▐", edge)]

    def _half_blocks(self, layout: MapLayout, rows: list[int], column: int) -> list[Segment]:
        """Two rows of the matrix in one line: the upper half of each character and the ground under it."""
        colors = [self._faces[row][column][1] for row in rows]
        if column == self.column and self.row in rows:
            colors[rows.index(self.row)] = _CURSOR
        return [Segment("▀" * layout.cell_width, self.look(NORMAL, *colors))]


def _cells_of(text: str) -> list[str]:
    """One entry a terminal cell: a wide character, then nothing in its second."""
    return [each for char in text for each in (char, "")[: cell_len(char)]]
