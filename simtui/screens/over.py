"""What lies over a view for a while: opened once, left once, and hidden while the terminal is too small to read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from textual import events
from textual.await_complete import AwaitComplete
from textual.screen import ModalScreen, Screen

from simtui.screens.view import is_small

Result = TypeVar("Result")


class OverScreen(ModalScreen[Result]):
    """A panel over a view; it keeps what was typed into it while it is hidden."""

    def dismiss(self, result: Result | None = None) -> AwaitComplete:
        """Leaves once, whatever keys wait behind the first; nobody has answered what was hidden: that is no result."""
        if self.app.screen is not self:
            return AwaitComplete.nothing()
        return super().dismiss(None if self.has_class("-small") else result)

    def on_resize(self, event: events.Resize) -> None:
        """Shows itself where there is room; the view below says how much that is."""
        was_hidden = self.has_class("-small")
        self.set_class(is_small(event.size), "-small")
        if was_hidden and not self.has_class("-small"):
            self.call_after_refresh(self._take_keys)

    def _take_keys(self) -> None:
        if self.focused is None:  # what is hidden loses them
            self.focus_next()


def lay_over(below: Screen[Any], above: Screen[Result], then: Callable[[Result | None], None] | None = None) -> None:
    """Opens a screen over the one that is in front; keys come faster than screens, and a second one would lie on it.

    Args:
        then: is given the result; None where it was left without one.
    """
    if below.app.screen is below and not is_small(below.app.size):
        below.app.push_screen(above, then)
