"""Asks before something is done that cannot be taken back; says what it costs."""

from __future__ import annotations

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical

from simtui.screens.over import OverScreen
from simtui.views.parts import DIM, STRONG, Line, Span, wrapped
from simtui.widgets.lines import Lines

_WIDTH = 64


class ConfirmScreen(OverScreen[bool]):
    """Gives whether it is to be done: `y`, or the key that asked once more; any way out says no.

    Args:
        question: what is asked.
        cost: what it means, in a sentence or two.
        again: the key that asked, as Textual names it; empty where none did.
    """

    BINDINGS = [  # noqa: RUF012
        Binding("y", "answer(True)", "yes", show=False),
        Binding("n,q,escape", "answer(False)", "no", show=False),
    ]

    def __init__(self, question: str, cost: str, again: str = "") -> None:
        super().__init__()
        self._question, self._cost, self._again = question, cost, again

    def compose(self) -> ComposeResult:
        """One panel."""
        with Vertical(id="confirm"):
            yield Lines(id="confirming")

    def on_mount(self) -> None:
        """Fills the panel."""
        yes = f"y or {self._again} again" if self._again else "y"
        lines: tuple[Line, ...] = (
            *wrapped(self._question, _WIDTH, 2, STRONG),
            (),
            *wrapped(self._cost, _WIDTH, 4),
            (),
            (Span(f"{yes} does it, n or esc leaves everything as it is", DIM),),
        )
        panel = self.query_one(Lines)
        panel.styles.height = len(lines)
        panel.show(lines)

    def on_key(self, event: events.Key) -> None:
        """The key that asked, once more, is a yes too."""
        if self._again and self._again in (event.key, event.character):
            event.stop()
            self.dismiss(True)

    def action_answer(self, is_yes: bool) -> None:
        """Gives the answer."""
        self.dismiss(is_yes)
