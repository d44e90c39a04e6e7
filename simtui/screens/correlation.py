"""The correlation view: similarity against a quality metric over all runs."""

from __future__ import annotations

from engine.analysis.options import OVER, TableOptions
from engine.analysis.table import Table
from simtui.actions import CORRELATION
from simtui.analyses import Found
from simtui.screens.scatter import ScatterScreen
from simtui.screens.view import bindings_of
from simtui.selection import after
from simtui.views import correlation


class CorrelationScreen(ScatterScreen):
    """A scatter plot with two lines, the coefficients, and the point under the cursor."""

    VIEW = CORRELATION
    BINDINGS = bindings_of(CORRELATION)

    _point: str | None = None

    def show_found(self, found: Found) -> str:
        """The correlation that the selection asks for."""
        app = self.simtui
        view = correlation.correlation_view(found, app.selection, app.shown_run_id(), self._point, app.is_colorless)
        self.fill(view)
        if view is None:
            return self.nothing("Nothing to correlate yet.", "A run is a point here when it has ended; v takes epochs.")
        return view.summary

    def table(self) -> Table | None:
        """The coefficients."""
        from engine.analysis.correlation_tables import correlation_table

        if self._view is None or self.data is None:
            return None
        return correlation_table(self.data, self.table_options())

    def action_metric(self) -> None:
        """The next quality metric."""
        from engine.analysis.correlation import metrics_of

        if self.data:
            known = list(metrics_of(self.data))
            self.simtui.select(metric=after(known, self.simtui.selection.metric or TableOptions.metric))

    def action_over(self) -> None:
        """One point a run, or one an epoch of each run."""
        self.simtui.select(over=after(OVER, self.simtui.selection.over))

    def choose(self, key: str) -> None:
        """Another point, and its run."""
        self._point = key
        self.simtui.select(run_id=correlation.run_of(key))
