"""A scatter plot with thresholds, lines and a cursor; plotext draws axes and lines, each point is one cell."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip

from simtui.palette import mixed
from simtui.plotting import Frame, Plot, axis_width, plot
from simtui.views.parts import ACCENT, DIM, NORMAL, STRONG, Span
from simtui.views.scatter import Point, Scatter
from simtui.widgets.drawn import Drawn

_TITLE_LINES = 1
_AXIS_LINES = 2
_INSIDE, _INSIDE_SHARE = "#2bbf91", 0.14
# By whether the ground is dark: a faint green has no neighbour among 256 colours but black.
_INSIDE_256 = {True: "#303030", False: "#d0d0d0"}
_CURSOR = "#ffffff"


class _Canvas(NamedTuple):
    """Where the points lie in the widget: the first column, the number of rows, the cells of both lines."""

    left: int
    n_rows: int
    x_line: int | None
    y_line: int | None


class ScatterPlot(Drawn):
    """Draws finished points; knows nothing of what they stand for."""

    @dataclass
    class PointChosen(Message):
        """A point was clicked."""

        key: str

    def __init__(self, id: str | None = None, is_colorless: bool = False, is_256: bool = False) -> None:
        super().__init__(id=id)
        self._is_colorless, self._is_256 = is_colorless, is_256
        self._scatter: Scatter | None = None
        self._plot: Plot | None = None
        self._places: dict[int, dict[int, Point]] | None = None

    def show(self, scatter: Scatter) -> None:
        """Draws a scatter plot; what is the same as before is not sent again."""
        old = self._scatter
        if scatter == old:
            return
        if old is None or (old.frame, old.series) != (scatter.frame, scatter.series):
            self._plot = None
        self._scatter, self._places = scatter, None
        self.refresh()

    def on_resize(self) -> None:
        """The plot is built for one size."""
        self._plot = self._places = None
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """The title, then the plot with its points."""
        width, height = self.size
        if self._scatter is None or width < 20 or height < 6:
            return Strip.blank(width, self.ground)
        if y < _TITLE_LINES:
            return self.strip_of([Span(f" {self._scatter.title}", STRONG)], width)
        if self._places is None:
            self._places = self._placed(self._scatter)
        if self._plot is None:
            self._plot = plot(self._scatter.series, self._scatter.frame, width, height - _TITLE_LINES)
        row = y - _TITLE_LINES
        if row >= len(self._plot):
            return Strip.blank(width, self.ground)
        canvas = self._canvas()
        cells = [self._cell(x, row, cell.text, cell.curve, canvas) for x, cell in enumerate(self._plot[row])]
        runs = ("".join(text for text, _ in each) for _, each in groupby(cells, lambda cell: cell[1]))
        looks = [look for look, _ in groupby(cells, lambda cell: cell[1])]
        segments = [Segment(text, self._look(*look)) for text, look in zip(runs, looks, strict=True)]
        return Strip(segments).adjust_cell_length(width, self.ground)

    def on_click(self, event: events.Click) -> None:
        """A click chooses the point that is nearest within two cells."""
        row = event.y - _TITLE_LINES
        near = [
            (abs(x - event.x) + 2 * abs(y - row), point.key)
            for y in range(row - 1, row + 2)
            for x, point in (self._places or {}).get(y, {}).items()
            if abs(x - event.x) <= 2
        ]
        if near:
            self.post_message(self.PointChosen(min(near)[1]))

    def _placed(self, scatter: Scatter) -> dict[int, dict[int, Point]]:
        """Which cell each point takes, by row and column; the one under the cursor lies over all others."""
        places: dict[int, dict[int, Point]] = {}
        for point in sorted(scatter.points, key=lambda each: (each.key == scatter.cursor, each.is_strong)):
            x, y = self._column(point.x), self._row(point.y)
            if x is not None and y is not None:
                places.setdefault(y, {})[x] = point
        return places

    def _column(self, value: float | None) -> int | None:
        """plotext puts the ends of an axis into the first and the last cell."""
        assert self._scatter is not None
        return _place_on(value, self._scatter.frame.x_limits, self.size.width - self._left, self._left)

    def _row(self, value: float | None) -> int | None:
        assert self._scatter is not None
        n_rows = self.size.height - _TITLE_LINES - _AXIS_LINES
        place = _place_on(value, self._scatter.frame.y_limits, n_rows, 0)
        return None if place is None else n_rows - 1 - place

    @property
    def _left(self) -> int:
        return axis_width(self._scatter.frame if self._scatter else Frame((0, 1), (0, 1), (), ()))

    def _canvas(self) -> _Canvas:
        assert self._scatter is not None
        n_rows = self.size.height - _TITLE_LINES - _AXIS_LINES
        return _Canvas(self._left, n_rows, self._column(self._scatter.x_line), self._row(self._scatter.y_line))

    def _cell(
        self, x: int, row: int, text: str, curve: int | None, canvas: _Canvas
    ) -> tuple[str, tuple[str, str, str]]:
        """A cell's text and its look: role, colour, ground."""
        assert self._scatter is not None
        scatter, is_canvas = self._scatter, row < canvas.n_rows and x >= canvas.left
        x_line, y_line = canvas.x_line, canvas.y_line
        is_inside = is_canvas and x_line is not None and y_line is not None and x >= x_line and row >= y_line
        ground = "inside" if is_inside else ""
        point = (self._places or {}).get(row, {}).get(x)
        if point is not None:
            if point.key == scatter.cursor:
                return "@" if self._is_colorless else point.glyph, (STRONG, point.color, "cursor")
            return point.glyph, (STRONG if point.is_strong else NORMAL, point.color, ground)
        if is_canvas and curve is None and text.strip() == "":
            if x == x_line:
                return "│", (ACCENT, "", ground)
            if row == y_line:
                return "─", (ACCENT, "", ground)
        color = scatter.colors[curve] if curve is not None and curve < len(scatter.colors) else ""
        return text, (NORMAL if curve is not None else DIM, color, ground)

    def _look(self, role: str, color: str, ground: str) -> Style:
        if ground == "cursor":
            return self.look(role, "#000000", _CURSOR)
        if ground == "inside" and not self._is_colorless:
            base = self.background_colors[1].hex6.lower()
            inside_256 = _INSIDE_256[self.app.current_theme.dark]
            return self.look(role, color, inside_256 if self._is_256 else mixed(_INSIDE, base, _INSIDE_SHARE))
        return self.look(role, color)


def _place_on(value: float | None, limits: tuple[float, float], n_cells: int, first: int) -> int | None:
    if value is None or n_cells < 1 or not limits[0] - 1e-9 <= value <= limits[1] + 1e-9:
        return None
    return first + round((value - limits[0]) / (limits[1] - limits[0]) * (n_cells - 1))
