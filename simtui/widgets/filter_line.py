"""One line at the foot of a view in which a filter is typed; says beside it what whoever reads it has to say."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input

from simtui.safe_text import fitted
from simtui.views.parts import ACCENT, Span
from simtui.widgets.lines import Lines

_MIN_INPUT_WIDTH = 16
_PROMPT = " / "


class FilterLine(Horizontal):
    """Out of sight until it is opened; knows nothing of the language of filters."""

    DEFAULT_CSS = """
    FilterLine { height: 1; display: none; background: $surface; }
    FilterLine.-open { display: block; }
    FilterLine Input { width: 1fr; background: $surface; }
    FilterLine Input:focus { background-tint: $surface 0%; }
    """

    @dataclass
    class Typed(Message):
        """The text is another one."""

        text: str

    @dataclass
    class Kept(Message):
        """Enter was pressed, or somebody went elsewhere."""

        text: str

    def __init__(self, example: str, id: str | None = None) -> None:
        super().__init__(id=id)
        self._example = example

    def compose(self) -> ComposeResult:
        """The prompt, the text, what is said of it."""
        yield Lines(id="prompt")
        yield Input(placeholder=self._example, select_on_focus=False, compact=True)
        yield Lines(id="says")

    @property
    def is_open(self) -> bool:
        """Whether somebody types."""
        return self.has_class("-open")

    @property
    def text(self) -> str:
        """What is written."""
        return self._input.value

    def open(self, text: str) -> None:
        """Comes into sight with a text that can be changed."""
        self.add_class("-open")
        prompt = self.query_one("#prompt", Lines)
        prompt.styles.width = cell_len(_PROMPT)
        prompt.show([(Span(_PROMPT, ACCENT),)])
        self._input.value = text
        self._input.cursor_position = len(text)
        self._input.focus()

    def close(self) -> None:
        """Goes out of sight, and gives the keys back."""
        self.remove_class("-open")
        self.screen.set_focus(None)

    def say(self, text: str, role: str) -> None:
        """Says something at the right end, in what the shortest text leaves."""
        room = max(self.screen.size.width - _MIN_INPUT_WIDTH - 4, 0)
        shown = text if cell_len(text) <= room else fitted(text, room)
        says = self.query_one("#says", Lines)
        says.styles.width = cell_len(shown) + 1
        says.show([(Span(shown, role),)])

    def on_input_changed(self, message: Input.Changed) -> None:
        """Each key filters."""
        message.stop()
        if self.is_open:
            self.post_message(self.Typed(message.value))

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Enter keeps what is written."""
        message.stop()
        self.post_message(self.Kept(message.value))

    @property
    def _input(self) -> Input:
        return self.query_one(Input)
