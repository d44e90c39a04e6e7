"""A table with a cursor: a sheet becomes lines, columns that do not fit stay away, moving sends a few cells."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from simtui.safe_text import fitted
from simtui.views.parts import ACCENT, DIM, KEY, NORMAL, STRONG, Sheet, Span, fit_columns
from simtui.widgets.drawn import Drawn

_MARGIN = 2


class Grid(Drawn):
    """Draws a sheet and moves a cursor over its rows; the cursor stays on its row's key when the sheet changes."""

    @dataclass
    class RowMoved(Message):
        """The cursor is on another row."""

        key: str

    @dataclass
    class RowChosen(Message):
        """The row under the cursor was clicked once more."""

        key: str

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._sheet = Sheet((), ())
        self._gap = 1
        self._columns: tuple[tuple[int, int], ...] = ((0, 0),)
        self._top = 0
        self._cursor = 0

    @property
    def key(self) -> str | None:
        """The key of the row under the cursor."""
        return self._sheet.rows[self._cursor].key if self._sheet.rows else None

    def show(self, sheet: Sheet, key: str | None) -> None:
        """Draws another sheet with the cursor on the row of that key, if it is there."""
        changed = [
            y for y in range(max(len(sheet.rows), len(self._sheet.rows)))
            if sheet.rows[y : y + 1] != self._sheet.rows[y : y + 1]
        ]  # fmt: skip
        self._sheet = sheet
        cursor = next((i for i, row in enumerate(sheet.rows) if row.key == key), min(self._cursor, len(sheet.rows) - 1))
        if self._fit() or cursor != self._cursor or len(changed) > self.size.height // 2:
            self._cursor = max(cursor, 0)
            self._scroll_to_cursor()
            self.refresh()
        for y in changed:
            self._refresh_row(y)

    def move(self, where: str) -> None:
        """Moves the cursor: `up`, `down`, `page_up`, `page_down`, `first`, `last`."""
        page, last = max(self.size.height - 2, 1), len(self._sheet.rows) - 1
        step = {"up": -1, "down": 1, "page_up": -page, "page_down": page, "first": -last, "last": last}[where]
        self._move_to(min(max(self._cursor + step, 0), max(last, 0)))

    def render_line(self, y: int) -> Strip:
        """The titles, then the rows from the topmost that is in sight."""
        row = y - 1 + self._top
        if y == 0:
            spans = self._line([Span(column.title, DIM) for column in self._sheet.columns], is_cursor=False)
        elif row < len(self._sheet.rows):
            spans = self._line(list(self._sheet.rows[row].cells), row == self._cursor)
        else:
            spans = []
        width = self.size.width
        if len(self._sheet.rows) <= self.size.height - 1 or y == 0:
            return self.strip_of(spans, width)
        return Strip.join([self.strip_of(spans, width - 1), self.strip_of([self._thumb(y)], 1)])

    def on_resize(self) -> None:
        """Other columns may fit, and the cursor stays in sight."""
        self._fit()
        self._scroll_to_cursor()
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """A click moves the cursor; on the cursor's own row it chooses."""
        row = event.y - 1 + self._top
        if event.y == 0 or row >= len(self._sheet.rows):
            return
        if row == self._cursor:
            self.post_message(self.RowChosen(self._sheet.rows[row].key))
        self._move_to(row)

    def on_mouse_scroll_down(self) -> None:
        """The wheel moves the cursor."""
        self.move("down")

    def on_mouse_scroll_up(self) -> None:
        """The wheel moves the cursor."""
        self.move("up")

    def _move_to(self, row: int) -> None:
        if row == self._cursor or not self._sheet.rows:
            return
        old, self._cursor = self._cursor, row
        if self._scroll_to_cursor():
            self.refresh()
        else:
            self._refresh_name(old)
            self._refresh_name(row)
        self.post_message(self.RowMoved(self._sheet.rows[row].key))

    def _fit(self) -> bool:
        """Chooses the columns for this width; whether they are others than before."""
        old = (self._gap, self._columns)
        self._gap, self._columns = fit_columns(self._sheet, self.size.width - _MARGIN - 1)
        return (self._gap, self._columns) != old

    def _scroll_to_cursor(self) -> bool:
        room, old = max(self.size.height - 1, 1), self._top
        self._top = min(max(self._top, self._cursor - room + 1), self._cursor)
        self._top = max(min(self._top, len(self._sheet.rows) - room), 0)
        return self._top != old

    def _refresh_row(self, row: int) -> None:
        if self._top <= row < self._top + self.size.height - 1:
            self.refresh(Region(0, row - self._top + 1, self.size.width, 1))

    def _refresh_name(self, row: int) -> None:
        """Only what shows the cursor: the mark and the first cell."""
        self.refresh(Region(0, row - self._top + 1, _MARGIN + self._columns[0][1], 1))

    def _line(self, cells: list[Span], is_cursor: bool) -> list[Span]:
        spans = [Span("▌ " if is_cursor else "  ", ACCENT)]
        for place, (i, width) in enumerate(self._columns):
            if i >= len(cells):
                break
            cell, role = cells[i], cells[i].role
            if place == 0 and role in (NORMAL, STRONG):
                role = KEY if is_cursor else NORMAL
            elif place:
                spans.append(Span(" " * self._gap))
            spans.append(Span(fitted(cell.text, width, self._sheet.columns[i].align), role, cell.color))
        return spans

    def _thumb(self, y: int) -> Span:
        room, n = self.size.height - 1, len(self._sheet.rows)
        first = round(self._top / n * room)
        is_thumb = first <= y - 1 < first + max(round(room / n * room), 1)
        return Span("┃" if is_thumb else "│", ACCENT if is_thumb else DIM)
