"""The correlation view: similarity against a quality metric over all runs."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal

from engine.analysis.options import OVER, TableOptions
from engine.analysis.table import Table
from simtui.actions import CORRELATION, MAP
from simtui.analyses import Found
from simtui.screens.analysis import AnalysisScreen
from simtui.screens.view import bindings_of
from simtui.selection import after
from simtui.views import correlation, scatter
from simtui.views.correlation import CorrelationView
from simtui.widgets.lines import Lines
from simtui.widgets.scatter_plot import ScatterPlot


class CorrelationScreen(AnalysisScreen):
    """A scatter plot with two lines, the coefficients, and the point under the cursor."""

    VIEW = CORRELATION
    BINDINGS = bindings_of(CORRELATION)

    def compose_data(self) -> ComposeResult:
        """What is held against what, plot and figures, legend, warnings, readout."""
        self._shown: CorrelationView | None = None
        self._point: str | None = None
        yield Lines(id="control")
        with Horizontal(id="plots"):
            yield ScatterPlot("scatter", self.simtui.is_colorless)
            yield Lines(id="counts")
        yield Lines(id="legend")
        yield Lines(id="warning")
        yield Lines(id="detail")

    def show_found(self, found: Found) -> str:
        """The correlation that the selection asks for."""
        app = self.simtui
        view = correlation.correlation_view(found, app.selection, app.shown_run_id(), self._point, app.is_colorless)
        self._shown = view
        if view is None:
            return self.nothing("Nothing to correlate yet.", "A run is a point here when it has ended; v takes epochs.")
        self.lines("control").show([view.control])
        self.query_one(ScatterPlot).show(view.scatter)
        self.lines("counts").show(view.figures)
        self.lines("legend").show([view.legend])
        self.show_warnings(view.warnings)
        self.lines("detail").styles.height = len(view.readout)
        self.lines("detail").show(view.readout)
        return view.summary

    def table(self) -> Table | None:
        """The coefficients."""
        from engine.analysis.correlation_tables import correlation_table

        if self._shown is None or self.data is None:
            return None
        return correlation_table(self.data, self.simtui.selection.options(self.simtui.key))

    def export_name(self) -> str:
        """The metric and the layer."""
        selection = self.simtui.selection
        return f"{selection.metric or TableOptions.metric}-{selection.layer}"

    def action_move(self, where: str) -> None:
        """The next point in a direction."""
        if self._shown:
            plot = self._shown.scatter
            points = [point for point in plot.points if not point.is_strong]
            self._choose(scatter.nearest(points, plot.cursor, where, plot.frame))

    def action_metric(self) -> None:
        """The next quality metric."""
        from engine.analysis.correlation import metrics_of

        if self.data:
            known = list(metrics_of(self.data))
            self.simtui.select(metric=after(known, self.simtui.selection.metric or TableOptions.metric))

    def action_over(self) -> None:
        """One point a run, or one an epoch of each run."""
        self.simtui.select(over=after(OVER, self.simtui.selection.over))

    def action_open_map(self) -> None:
        """The map of the run under the cursor."""
        if self._shown:
            self.simtui.select(run_id=self._shown.run_id)
            self.simtui.action_view(MAP)

    def on_scatter_plot_point_chosen(self, message: ScatterPlot.PointChosen) -> None:
        """A click on a point puts the cursor there."""
        if self._shown and any(
            point.key == message.key and not point.is_strong for point in self._shown.scatter.points
        ):
            self._choose(message.key)

    def _choose(self, key: str | None) -> None:
        if key:
            self._point = key
            self.simtui.select(run_id=key.split("\n")[0])
