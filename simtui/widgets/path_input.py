"""A line for a path, with completion; knows nothing of what the path is for."""

from __future__ import annotations

from dataclasses import dataclass

from textual import work
from textual.binding import Binding
from textual.message import Message
from textual.widgets import Input

from simtui.completion import Candidates, candidates
from simtui.safe_text import safe


class PathInput(Input):
    """Tab completes; where nothing can be, it goes on to the next widget.

    Args:
        suffixes: of the files that may stand here; folders may always.
    """

    BINDINGS = [Binding("tab", "complete", show=False)]  # noqa: RUF012

    @dataclass
    class Listed(Message):
        """What may stand here."""

        input: PathInput
        candidates: Candidates

    def __init__(self, id: str, placeholder: str = "", suffixes: tuple[str, ...] = ()) -> None:
        super().__init__(id=id, placeholder=placeholder, compact=True, select_on_focus=False)
        self._suffixes = suffixes
        self._listed: Candidates | None = None
        self._is_completing = False

    @property
    def names(self) -> tuple[str, ...]:
        """What may stand where the cursor is, as far as it is known."""
        return self._listed.names if self._listed and self._listed.text == self.value else ()

    def on_input_changed(self, message: Input.Changed) -> None:
        """Another text has other candidates; pasted characters that a terminal would obey become escapes."""
        if not message.value.isprintable():
            self.value = safe(message.value)
            return
        self._list(message.value)

    def action_complete(self) -> None:
        """Puts in what all candidates share."""
        if self._listed is None or self._listed.text != self.value:
            self._is_completing = True
            self._list(self.value)
        elif self._listed.completed != self.value:
            self.value = self._listed.completed
            self.cursor_position = len(self.value)
        elif not self.value or not self._listed.names:
            self.screen.focus_next()

    @work(thread=True, exclusive=True, group="candidates")
    def _list(self, text: str) -> None:
        """On a thread: a network's disk may let one wait."""
        found = candidates(text, self._suffixes)
        if self.is_attached:
            self.app.call_from_thread(self._take, found)

    def _take(self, found: Candidates) -> None:
        if found.text != self.value:
            return
        self._listed = found
        self.post_message(self.Listed(self, found))
        if self._is_completing:
            self._is_completing = False
            self.action_complete()
