"""Asks for one line of text over a view."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import Input

from simtui.screens.over import OverScreen
from simtui.views.parts import DIM, STRONG, Span
from simtui.widgets.lines import Lines


class AskScreen(OverScreen[str]):
    """Gives what was typed, or nothing where it was left with escape."""

    BINDINGS = [Binding("escape", "leave", "leave", show=False)]  # noqa: RUF012

    def __init__(self, question: str, hint: str) -> None:
        super().__init__()
        self._question, self._hint = question, hint

    def compose(self) -> ComposeResult:
        """The question, the line, what the keys do."""
        with Vertical(id="ask"):
            yield Lines(id="question")
            yield Input(placeholder=self._hint, select_on_focus=False)
            yield Lines(id="hint")

    def on_mount(self) -> None:
        """Fills the panel."""
        self.query_one("#question", Lines).show([(Span(self._question, STRONG),)])
        self.query_one("#hint", Lines).show([(Span("enter goes on, esc leaves", DIM),)])

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """What was typed."""
        self.dismiss(message.value.strip())

    def action_leave(self) -> None:
        """Nothing."""
        self.dismiss("")
