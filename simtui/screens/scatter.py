"""What the views with a scatter plot share: plot and figures beside it, legend, warnings, the cursor."""

from __future__ import annotations

from typing import Protocol

from textual.app import ComposeResult
from textual.containers import Horizontal

from simtui.actions import MAP
from simtui.screens.analysis import AnalysisScreen
from simtui.views import scatter
from simtui.views.parts import Line
from simtui.views.scatter import Scatter
from simtui.widgets.lines import Lines
from simtui.widgets.scatter_plot import ScatterPlot

_LEGEND_LINES = 4


class ScatterView(Protocol):
    """What such a view is made of; `run_id` is the run under the cursor."""

    @property
    def scatter(self) -> Scatter: ...
    @property
    def control(self) -> Line: ...
    @property
    def legend(self) -> Line: ...
    @property
    def beside(self) -> tuple[Line, ...]: ...
    @property
    def readout(self) -> tuple[Line, ...]: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def run_id(self) -> str: ...


class ScatterScreen(AnalysisScreen):
    """A subclass makes the view (`fill`), and says what it means to be on another point (`choose`)."""

    _view: ScatterView | None = None

    def compose_data(self) -> ComposeResult:
        """What is held against what, the plot and its figures, legend, warnings, readout."""
        yield Lines(id="control")
        with Horizontal(id="plots"):
            yield ScatterPlot("scatter", self.simtui.is_colorless, self.simtui.is_256)
            yield Lines(id="beside")
        yield Lines(id="legend")
        yield Lines(id="warning")
        yield Lines(id="detail")

    def fill(self, view: ScatterView | None) -> None:
        """Shows the parts of a view; None where there is nothing to show."""
        self._view = view
        if view is None:
            return
        self.lines("control").show([view.control])
        self.query_one(ScatterPlot).show(view.scatter)
        self.lines("beside").show(view.beside)
        legend = scatter.legend_lines(view.legend, self.size.width)[:_LEGEND_LINES]
        self.lines("legend").styles.height = max(len(legend), 1)
        self.lines("legend").show(legend)
        self.show_warnings(view.warnings)
        self.lines("detail").styles.height = len(view.readout)
        self.lines("detail").show(view.readout)

    def choose(self, key: str) -> None:
        """Puts the cursor on a point."""
        raise NotImplementedError

    def action_move(self, where: str) -> None:
        """The next point in a direction."""
        if self._view:
            plot = self._view.scatter
            key = scatter.nearest(plot.runs, plot.cursor, where, plot.frame)
            if key:
                self.choose(key)

    def action_open_map(self) -> None:
        """The map of the run under the cursor."""
        if self._view:
            self.simtui.select(run_id=self._view.run_id)
            self.simtui.action_view(MAP)

    def on_scatter_plot_point_chosen(self, message: ScatterPlot.PointChosen) -> None:
        """A click on the point of a run puts the cursor there."""
        if self._view and any(point.key == message.key for point in self._view.scatter.runs):
            self.choose(message.key)
