"""A plot of curves with bands: built anew for new data or another size only, and marked at one epoch for free."""

from __future__ import annotations

from itertools import groupby

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from simtui.palette import curve_color, mixed
from simtui.plotting import Plot, PlotCell, axis_width, plot
from simtui.views.curves import Panel
from simtui.views.parts import DIM, NORMAL, STRONG, Span
from simtui.widgets.drawn import Drawn

_BAND_SHARE = 0.3
_RUNS_SHARE = 0.5
_MARKS, _MARK_SHARE = {True: "#ffffff", False: "#000000"}, 0.16  # by whether the ground is dark
_MARK_GROUND = "#808080"
_TITLE_LINES = 1


class CurvePlot(Drawn):
    """Draws a panel; knows nothing of runs."""

    def __init__(self, id: str | None = None, is_colorless: bool = False) -> None:
        super().__init__(id=id)
        self._is_colorless = is_colorless
        self._panel: Panel | None = None
        self._epoch = 0
        self._plot: Plot | None = None

    def show(self, panel: Panel, epoch: int) -> None:
        """Draws a panel with a mark at an epoch."""
        if panel != self._panel:
            self._panel, self._plot = panel, None
            self.refresh()
        elif epoch != self._epoch:
            self.refresh()
        self._epoch = epoch

    def on_resize(self) -> None:
        """The plot is built for one size."""
        self._plot = None

    def render_line(self, y: int) -> Strip:
        """The title, then the plot."""
        width, height = self.size
        if self._panel is None or width < 16 or height < 6:
            return Strip.blank(width, self.ground)
        if y < _TITLE_LINES:
            return self.strip_of([Span(f" {self._panel.title}", STRONG)], width)
        if self._plot is None:
            self._plot = plot(self._panel.series, self._panel.frame, width, height - _TITLE_LINES)
        row = self._plot[y - _TITLE_LINES] if y - _TITLE_LINES < len(self._plot) else ()
        is_canvas = y < height - 2
        mark = self._mark_column(width) if is_canvas else -1
        runs = groupby(enumerate(row), lambda each: (each[1].curve, each[1].band, each[0] == mark))
        segments = [Segment("".join(self._text(cell) for _, cell in cells), self._look(*look)) for look, cells in runs]
        return Strip(segments).adjust_cell_length(width, self.ground)

    def _text(self, cell: PlotCell) -> str:
        """Without colour a band is a light shade, so that it is no curve."""
        return "░" if self._is_colorless and cell.band is not None and cell.curve is None else cell.text

    @property
    def _shows_runs(self) -> bool:
        """Whether single runs lie behind the curves, which fill no cell."""
        return self._panel is not None and any(each.behind for each in self._panel.series)

    def _mark_column(self, width: int) -> int:
        """The column of the epoch: plotext puts the first and the last x into the first and the last column."""
        assert self._panel is not None
        first, last = self._panel.frame.x_limits
        left = axis_width(self._panel.frame)
        canvas = width - left
        return left + round((self._epoch - first) / (last - first) * (canvas - 1))

    def _look(self, curve: int | None, band: int | None, is_marked: bool) -> Style:
        """A curve in its colour on the ground of the band it crosses; a band in a shade of its colour."""
        if self._is_colorless:
            return self.look(DIM if curve is None else NORMAL, ground=_MARK_GROUND if is_marked else "")
        ground = self.background_colors[1].hex6.lower()
        under = mixed(_MARKS[self.app.current_theme.dark], ground, _MARK_SHARE) if is_marked else ""
        if curve is not None:
            is_filled = band is not None and not self._shows_runs
            on_band = mixed(curve_color(band or 0), ground, _BAND_SHARE) if is_filled else ""
            return self.look(NORMAL, curve_color(curve), under or on_band)
        if band is not None:
            share = _RUNS_SHARE if self._shows_runs else _BAND_SHARE
            return self.look(NORMAL, mixed(curve_color(band), ground, share), under)
        return self.look(DIM, ground=under)
