"""A study file to scroll through, over the screen that writes it."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll

from simtui.screens.over import OverScreen
from simtui.views.parts import DIM, Line, Span
from simtui.widgets.lines import Lines


class StudyFileScreen(OverScreen[None]):
    """Shows finished lines until it is left."""

    BINDINGS = [  # noqa: RUF012
        Binding("escape,q,enter", "dismiss", show=False),
        Binding("j", "scroll(1)", show=False),
        Binding("k", "scroll(-1)", show=False),
    ]

    def __init__(self, lines: Sequence[Line]) -> None:
        super().__init__()
        self._file_lines = tuple(lines)

    def compose(self) -> ComposeResult:
        """The file, and what the keys do."""
        with Vertical(id="study-file"):
            with VerticalScroll():
                yield Lines(id="lines")
            yield Lines(id="hint")

    def on_mount(self) -> None:
        """Fills the panel."""
        lines = self.query_one("#lines", Lines)
        lines.styles.height = len(self._file_lines)
        lines.show(self._file_lines)
        self.query_one("#hint", Lines).show([(Span("↑↓ scroll, esc closes", DIM),)])
        self.query_one(VerticalScroll).focus()

    def action_scroll(self, step: int) -> None:
        """A line up or down."""
        self.query_one(VerticalScroll).scroll_relative(y=step, animate=False)
