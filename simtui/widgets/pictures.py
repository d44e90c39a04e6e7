"""Pictures side by side in half blocks; knows nothing of what they show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip

from simtui.safe_text import fitted
from simtui.views.parts import DIM, NORMAL, STRONG, Line, Span
from simtui.widgets.drawn import Drawn

_RAMP = " .:-=+*#%@"
_GAP = 2
_TEXT_LINES = 3


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture.

    Attributes:
        pixels: `(rows, columns, 3)` uint8, an even number of rows.
        brightness: `(rows, columns)` in [0, 1]: what characters say where colour says nothing.
    """

    title: str
    note: str
    pixels: np.ndarray
    brightness: np.ndarray


def side_for(n: int, width: int, height: int) -> int:
    """How many pixels wide each of `n` pictures may be in so many cells; even, because two rows share a line."""
    side = min((width - 1 - (n - 1) * _GAP) // max(n, 1), (height - _TEXT_LINES) * 2)
    return max(side - side % 2, 2)


def height_of(side: int) -> int:
    """The lines that pictures take: their pixels, the titles, the notes and an empty line."""
    return side // 2 + _TEXT_LINES


class Pictures(Drawn):
    """Draws finished pictures, each a square of the same size: two rows of pixels a line; below them a line of text."""

    @dataclass
    class Pointed(Message):
        """A picture was clicked, at these shares of its height and width."""

        row: float
        column: float

    def __init__(self, id: str | None = None, is_colorless: bool = False) -> None:
        super().__init__(id=id)
        self._is_colorless = is_colorless
        self._pictures: tuple[Picture, ...] = ()
        self._readout: Line = ()

    def show(self, pictures: tuple[Picture, ...], readout: Line = ()) -> None:
        """Draws these pictures in place of the last ones, and takes as many lines as they need."""
        self._pictures, self._readout = pictures, readout
        self.styles.height = height_of(pictures[0].pixels.shape[0]) if pictures else 0
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """The titles, the pixels, and the notes below."""
        width = self.size.width
        if not self._pictures:
            return Strip.blank(width, self.ground)
        n_rows, side = self._pictures[0].pixels.shape[0] // 2, self._pictures[0].pixels.shape[1]
        if y == 0 or y == n_rows + 1:
            texts = [each.title if y == 0 else each.note for each in self._pictures]
            spans = [Span(f" {fitted(text, side)} ", STRONG if y == 0 else DIM) for text in texts]
            return self.strip_of(spans, width)
        if y > n_rows + 1:
            return self.strip_of(self._readout, width)
        segments: list[Segment] = []
        for picture in self._pictures:
            segments.append(Segment(" ", self.ground))
            segments += self._cells(picture, 2 * (y - 1))
            segments.append(Segment(" ", self.ground))
        return Strip(segments).adjust_cell_length(width, self.ground).simplify()

    def on_click(self, event: events.Click) -> None:
        """A click on any of the pictures points at the same place of all."""
        if not self._pictures:
            return
        side, row = self._pictures[0].pixels.shape[1], 2 * (event.y - 1) + 0.5
        column = event.x % (side + _GAP) - 1
        if 0 <= row < side and 0 <= column < side and event.x // (side + _GAP) < len(self._pictures):
            self.post_message(self.Pointed(row / side, (column + 0.5) / side))

    def _cells(self, picture: Picture, row: int) -> list[Segment]:
        if self._is_colorless:
            shares = picture.brightness[row : row + 2].mean(axis=0)
            ramp = "".join(_RAMP[min(max(int(share * len(_RAMP)), 0), len(_RAMP) - 1)] for share in shares)
            return [Segment(ramp, self.look(NORMAL))]
        pairs = zip(picture.pixels[row], picture.pixels[row + 1], strict=True)
        return [Segment("▀", Style(color=_hex(top), bgcolor=_hex(bottom))) for top, bottom in pairs]


def _hex(pixel: np.ndarray) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(int(channel) for channel in pixel))
