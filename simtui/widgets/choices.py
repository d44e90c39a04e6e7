"""A few things to choose with the keyboard, in a column or in a row; knows nothing of what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual import events
from textual.binding import Binding
from textual.message import Message
from textual.strip import Strip

from simtui.views.parts import ACCENT, STRONG, Line, Span, line_width
from simtui.widgets.drawn import Drawn

_BETWEEN = 2


@dataclass(frozen=True)
class Choice:
    """One thing; `is_on` is None where it is done rather than chosen."""

    key: str
    line: Line
    is_on: bool | None = None

    @property
    def mark(self) -> str:
        """What says whether it is chosen, without colour."""
        return "" if self.is_on is None else "[x] " if self.is_on else "[ ] "


class Choices(Drawn, can_focus=True):
    """Draws the choices with a cursor while it has the keys; at its ends, the cursor goes on to what is beside it.

    Args:
        is_row: beside each other, not below.
    """

    BINDINGS = [  # noqa: RUF012
        Binding("up,k", "step('up')", show=False),
        Binding("down,j", "step('down')", show=False),
        Binding("left,h", "step('left')", show=False),
        Binding("right,l", "step('right')", show=False),
        Binding("space,enter", "choose", show=False),
    ]

    @dataclass
    class Chosen(Message):
        """Space, Enter or a click on one of them."""

        choices: Choices
        key: str

        @property
        def control(self) -> Choices:
            """Where it happened."""
            return self.choices

    @dataclass
    class Moved(Message):
        """The cursor is on another."""

        choices: Choices

    def __init__(self, id: str, is_row: bool = False) -> None:
        super().__init__(id=id)
        self._is_row = is_row
        self._choices: tuple[Choice, ...] = ()
        self._cursor = 0

    @property
    def key(self) -> str:
        """What the cursor is on."""
        return self._choices[self._cursor].key if self._choices else ""

    def show(self, choices: Sequence[Choice]) -> None:
        """Draws other choices; the cursor stays on its key."""
        if tuple(choices) == self._choices:
            return
        key = self.key
        self._choices = tuple(choices)
        keys = [each.key for each in choices]
        self._cursor = keys.index(key) if key in keys else min(self._cursor, max(len(keys) - 1, 0))
        self.refresh()

    def action_step(self, where: str) -> None:
        """One on, or out of the widget."""
        along = ("left", "right") if self._is_row else ("up", "down")
        step = -1 if where in ("up", "left") else 1
        if where in along and 0 <= self._cursor + step < len(self._choices):
            self._cursor += step
            self.refresh()
            self.post_message(self.Moved(self))
        elif where in ("up", "down"):
            _ = self.screen.focus_previous() if step < 0 else self.screen.focus_next()

    def action_choose(self) -> None:
        """Takes what the cursor is on."""
        if self._choices:
            self.post_message(self.Chosen(self, self.key))

    def on_focus(self) -> None:
        """The cursor comes."""
        self.refresh()

    def on_blur(self) -> None:
        """The cursor goes."""
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """A click takes what it is on."""
        place = event.y + self._top
        if self._is_row:
            place, end = self._first, self._before_first
            while place < len(self._choices) and event.x >= (end := end + line_width(self._one(place))):
                place += 1
        if place < len(self._choices):
            self._cursor = place
            self.refresh()
            self.action_choose()

    def render_line(self, y: int) -> Strip:
        """One choice; or all of them in a row."""
        spans: list[Span] = []
        if self._is_row:
            first = self._first
            spans += [Span("… ", "dim")] if first else []
            for i in range(first, len(self._choices) if y == 0 else first):
                spans += self._one(i)
            if line_width(spans) > self.size.width + _BETWEEN:
                shown = self.strip_of(spans, self.size.width - 1)
                return Strip.join([shown, self.strip_of([Span("…", "dim")], 1)])
        elif y + self._top < len(self._choices):
            spans += self._one(y + self._top)
        return self.strip_of(spans, self.size.width)

    @property
    def _top(self) -> int:
        """The first that is in sight."""
        return 0 if self._is_row else max(0, self._cursor - self.size.height + 1)

    @property
    def _first(self) -> int:
        """The first of a row that is drawn, so that the one under the cursor is in sight."""
        widths = [line_width(self._one(i)) for i in range(len(self._choices))]
        if sum(widths) <= self.size.width + _BETWEEN:
            return 0
        room, first = self.size.width - 2 * _BETWEEN, self._cursor
        while first > 0 and sum(widths[first - 1 : self._cursor + 1]) <= room:
            first -= 1
        return first

    @property
    def _before_first(self) -> int:
        return _BETWEEN if self._first else 0

    def _one(self, i: int) -> Line:
        choice, is_cursor = self._choices[i], i == self._cursor and self.has_focus
        mark = Span(("›" if is_cursor else " ") + choice.mark, ACCENT if is_cursor or choice.is_on else "dim")
        spans = tuple(Span(each.text, STRONG) for each in choice.line) if is_cursor else choice.line
        return (mark, *spans, Span(" " * _BETWEEN if self._is_row else ""))
