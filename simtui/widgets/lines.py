"""A few lines of text; only lines that have changed are drawn again."""

from __future__ import annotations

from collections.abc import Sequence

from textual.geometry import Region
from textual.strip import Strip

from simtui.views.parts import Line
from simtui.widgets.drawn import Drawn


class Lines(Drawn):
    """Draws finished lines; knows nothing of what they say."""

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._lines: tuple[Line, ...] = ()

    def show(self, lines: Sequence[Line]) -> None:
        """Draws these lines in place of the last ones."""
        old, self._lines = self._lines, tuple(lines)
        for y in range(max(len(old), len(self._lines))):
            if old[y : y + 1] != self._lines[y : y + 1]:
                self.refresh(Region(0, y, self.size.width, 1))

    @property
    def text(self) -> str:
        """What is written, without its styles."""
        return "\n".join("".join(span.text for span in line) for line in self._lines)

    def render_line(self, y: int) -> Strip:
        """One line, cut at the right edge."""
        return self.strip_of(self._lines[y] if y < len(self._lines) else (), self.size.width)
