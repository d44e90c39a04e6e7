"""A table with a cursor: a sheet becomes lines, columns that do not fit stay away, moving sends a few cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from rich.cells import cell_len
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from simtui.safe_text import fitted
from simtui.views.parts import ACCENT, DIM, KEY, NORMAL, STRONG, Line, Sheet, Span, count, fit_columns
from simtui.widgets.drawn import Drawn

_MARGIN = 2
_MARK = "●"


class Grid(Drawn):
    """Draws a sheet and moves a cursor over its rows; the cursor stays on its row's key when the sheet changes."""

    @dataclass
    class RowMoved(Message):
        """The mouse has moved the cursor to another row."""

        key: str

    @dataclass
    class RowChosen(Message):
        """The row under the cursor was clicked once more."""

        key: str

    @dataclass
    class TitleChosen(Message):
        """The title of a column was clicked."""

        title: str

    def __init__(self, id: str | None = None, *, has_marks: bool = False) -> None:
        super().__init__(id=id)
        self._margin = _MARGIN + has_marks  # the cursor, room for marks where there are any, a space
        self._sheet = Sheet((), ())
        self._in_place_of_rows: tuple[Line, ...] = ()
        self._gap = 1
        self._columns: tuple[tuple[int, int], ...] = ((0, 0),)
        self._top = 0
        self._cursor = 0

    @property
    def key(self) -> str | None:
        """The key of the row under the cursor."""
        return self._sheet.rows[self._cursor].key if self._cursor < len(self._sheet.rows) else None

    def show(self, sheet: Sheet, key: str | None, in_place_of_rows: Sequence[Line] = ()) -> None:
        """Draws another sheet with the cursor on the row of that key, if it is there.

        Args:
            in_place_of_rows: what is written where the sheet has no rows.
        """
        old, self._sheet = self._sheet, sheet
        empty, self._in_place_of_rows = self._in_place_of_rows, tuple(in_place_of_rows)
        cursor = self._cursor
        if self.key != key:
            last = max(len(sheet.rows) - 1, 0)
            cursor = next((i for i, row in enumerate(sheet.rows) if row.key == key), min(cursor, last))
        if sheet is old and cursor == self._cursor and self._in_place_of_rows == empty:
            return
        in_sight = range(self._top, self._top + self.size.height - 1)
        changed = [y for y in in_sight if sheet.rows[y : y + 1] != old.rows[y : y + 1]]
        is_other = self._fit() or len(sheet.rows) != len(old.rows) or self._in_place_of_rows != empty
        if is_other or cursor != self._cursor or len(changed) > self.size.height // 2:
            self._cursor = cursor
            self._scroll_to_cursor()
            self.refresh()
            return
        if sheet.columns != old.columns:
            self.refresh(Region(0, 0, self.size.width, 1))
        for y in changed:
            self._refresh_row(y)

    def move(self, where: str) -> bool:
        """Moves the cursor: `up`, `down`, `page_up`, `page_down`, `first`, `last`; whether it was elsewhere.

        The caller shows what follows from that at once: by way of a message it would come a frame later.
        """
        page, last = max(self.size.height - 2, 1), len(self._sheet.rows) - 1
        steps = {"up": -1, "down": 1, "page_up": -page, "page_down": page, "first": -last, "last": last}
        step = steps.get(where, 0)  # a row has nothing to its left or right
        return self._move_to(min(max(self._cursor + step, 0), max(last, 0)))

    def render_line(self, y: int) -> Strip:
        """The titles, then the rows from the topmost that is in sight."""
        row = y - 1 + self._top
        if y == 0:
            spans = self._titles()
        elif row < len(self._sheet.rows):
            spans = self._row(row)
        elif not self._sheet.rows and y <= len(self._in_place_of_rows):
            spans = [Span(" " * self._margin), *self._in_place_of_rows[y - 1]]
        else:
            spans = []
        width = self.size.width
        if y == 0 and self._n_left_out:
            said = self._left_out(width)
            return Strip.join([self.strip_of(spans, width - len(said)), self.strip_of([Span(said, ACCENT)], len(said))])
        if len(self._sheet.rows) <= self.size.height - 1 or y == 0:
            return self.strip_of(spans, width)
        return Strip.join([self.strip_of(spans, width - 1), self.strip_of([self._thumb(y)], 1)])

    def on_resize(self) -> None:
        """Other columns may fit, and the cursor stays in sight."""
        self._fit()
        self._scroll_to_cursor()
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """A click moves the cursor; on the cursor's own row, or on a title, it chooses."""
        row = event.y - 1 + self._top
        if event.y == 0 and (title := self._title_at(event.x)):
            self.post_message(self.TitleChosen(title))
        if event.y == 0 or row >= len(self._sheet.rows):
            return
        if row == self._cursor:
            self.post_message(self.RowChosen(self._sheet.rows[row].key))
        elif self._move_to(row):
            self.post_message(self.RowMoved(self._sheet.rows[row].key))

    def on_mouse_scroll_down(self) -> None:
        """The wheel moves the cursor."""
        self._turn("down")

    def on_mouse_scroll_up(self) -> None:
        """The wheel moves the cursor."""
        self._turn("up")

    def _turn(self, where: str) -> None:
        if self.move(where) and self.key is not None:
            self.post_message(self.RowMoved(self.key))

    def _move_to(self, row: int) -> bool:
        if row == self._cursor or not self._sheet.rows:
            return False
        old, self._cursor = self._cursor, row
        if self._scroll_to_cursor():
            self.refresh()
        else:
            self._refresh_name(old)
            self._refresh_name(row)
        return True

    def _fit(self) -> bool:
        """Chooses the columns for this width; whether they are others than before."""
        old, room = (self._gap, self._columns), self.size.width - self._margin - 1
        self._gap, self._columns = fit_columns(self._sheet, room)
        if self._n_left_out:  # what says so needs its place beside the titles
            self._gap, self._columns = fit_columns(self._sheet, room - len(self._left_out(0)) + 1)
        return (self._gap, self._columns) != old

    @property
    def _used(self) -> int:
        return self._margin + sum(width for _, width in self._columns) + self._gap * (len(self._columns) - 1)

    @property
    def _n_left_out(self) -> int:
        """How many columns have no room, or only some of it."""
        ends = accumulate((width + self._gap for _, width in self._columns), initial=self._margin - self._gap)
        n_whole = sum(end <= self.size.width for end in list(ends)[1:])
        return max(len(self._sheet.columns) - n_whole, 0) if self.size.width else 0

    def _left_out(self, width: int) -> str:
        """How many columns are missing, in as many words as have room at the end of the titles."""
        said = f"  +{count(self._n_left_out, 'column')}"
        return said if self._used + len(said) <= width else f" +{self._n_left_out}"

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
        self.refresh(Region(0, row - self._top + 1, self._margin + self._columns[0][1], 1))

    def _row(self, place_of_row: int) -> list[Span]:
        row, is_cursor = self._sheet.rows[place_of_row], place_of_row == self._cursor
        margin = ("▌" if is_cursor else " ") + (_MARK if row.is_marked else "")
        # A bare margin looks like the name beside it, so that both go out in one piece.
        spans = [Span(fitted(margin, self._margin), NORMAL if margin == " " else ACCENT)]
        for place, (i, width) in enumerate(self._columns):
            cell, role = row.cells[i], row.cells[i].role
            if place == 0 and role in (NORMAL, STRONG):
                role = KEY if is_cursor else NORMAL
            elif place:
                spans.append(Span(" " * self._gap))
            spans.append(Span(fitted(cell.text, width, self._sheet.columns[i].align), role, cell.color))
        return spans

    def _titles(self) -> list[Span]:
        """The titles; the mark of the sorted column takes a cell of its own column, or else of the gap beside it."""
        spans: list[Span] = []
        gap, after = " " * self._margin, ""
        for i, width in self._columns if self._sheet.columns else ():
            column = self._sheet.columns[i]
            gap, after = after + gap[len(after) :], ""
            title, has_room = column.title, cell_len(column.title) < width
            if has_room:
                title = column.mark + title if column.align == "right" else title + column.mark
            elif column.mark and column.align == "right":
                gap = gap[:-1] + column.mark
            else:
                after = column.mark
            role = ACCENT if column.mark else DIM
            spans += [Span(gap, ACCENT), Span(fitted(title, width, column.align), role)]
            gap = " " * self._gap
        return [*spans, Span(after, ACCENT)]

    def _title_at(self, x: int) -> str | None:
        """The title of the column at a place; the gap on its left belongs to it."""
        end = self._margin - self._gap
        for i, width in self._columns if self._sheet.columns else ():
            end += self._gap + width
            if x < end:
                return self._sheet.columns[i].title
        return None

    def _thumb(self, y: int) -> Span:
        room, n = self.size.height - 1, len(self._sheet.rows)
        first = round(self._top / n * room)
        is_thumb = first <= y - 1 < first + max(round(room / n * room), 1)
        return Span("┃" if is_thumb else "│", ACCENT if is_thumb else DIM)
