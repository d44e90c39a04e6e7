"""Pictures side by side in half blocks; knows nothing of what they show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from simtui.safe_text import fitted
from simtui.views.parts import DIM, STRONG, Span
from simtui.widgets.drawn import Drawn

_RAMP = " .:-=+*#%@"
_GAP = 2


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture.

    Attributes:
        pixels: `(rows, columns, 3)` uint8.
        brightness: `(rows, columns)` in [0, 1]: what characters say where colour says nothing.
        mark: (first row, first column, rows, columns) of the patch that is set off, in pixels; None for none.
    """

    title: str
    note: str
    pixels: np.ndarray
    brightness: np.ndarray
    mark: tuple[int, int, int, int] | None = None


class Pictures(Drawn):
    """Draws finished pictures, each a square of the same size: two rows of pixels a line."""

    def __init__(self, id: str | None = None, is_colorless: bool = False) -> None:
        super().__init__(id=id)
        self._is_colorless = is_colorless
        self._pictures: tuple[Picture, ...] = ()

    def side_for(self, n: int) -> int:
        """How many pixels wide each of `n` pictures may be; even, because two rows share a line."""
        width, height = self.size
        side = min((width - 1 - (n - 1) * _GAP) // max(n, 1), (height - 2) * 2)
        return max(side - side % 2, 2)

    def show(self, pictures: tuple[Picture, ...]) -> None:
        """Draws these pictures in place of the last ones."""
        self._pictures = pictures
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """The titles, the pixels, and the notes below."""
        width = self.size.width
        if not self._pictures:
            return Strip.blank(width, self.rich_style)
        n_rows, side = (self._pictures[0].pixels.shape[0] + 1) // 2, self._pictures[0].pixels.shape[1]
        if y == 0 or y == n_rows + 1:
            texts = [each.title if y == 0 else each.note for each in self._pictures]
            spans = [Span(f" {fitted(text, side)} ", STRONG if y == 0 else DIM) for text in texts]
            return self.strip_of(spans, width)
        if y > n_rows + 1:
            return Strip.blank(width, self.rich_style)
        segments: list[Segment] = []
        for picture in self._pictures:
            segments.append(Segment(" ", self.rich_style))
            segments += self._cells(picture, 2 * (y - 1))
            segments.append(Segment(" ", self.rich_style))
        return Strip(segments).adjust_cell_length(width, self.rich_style).simplify()

    def _cells(self, picture: Picture, row: int) -> list[Segment]:
        rows, columns, _ = picture.pixels.shape
        cells = []
        for x in range(columns):
            if self._is_colorless:
                share = picture.brightness[row : row + 2, x].mean()
                text = _RAMP[min(max(int(share * len(_RAMP)), 0), len(_RAMP) - 1)]
                cells.append(Segment(self._marked(picture, row, x) or text, self.look(DIM)))
                continue
            top = _hex(picture.pixels[row, x])
            bottom = _hex(picture.pixels[row + 1, x]) if row + 1 < rows else top
            mark = self._marked(picture, row, x)
            style = Style(color="#ffffff" if mark else top, bgcolor=bottom)
            cells.append(Segment(mark or "▀", style))
        return cells

    @staticmethod
    def _marked(picture: Picture, row: int, x: int) -> str:
        """The cross in the middle of the patch that is set off."""
        if picture.mark is None:
            return ""
        top, left, height, width = picture.mark
        is_middle = (top + height // 2) // 2 == row // 2 and left + width // 2 == x
        return "+" if is_middle else ""


def _hex(pixel: np.ndarray) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(int(channel) for channel in pixel))
