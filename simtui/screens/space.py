"""The space view: every run by similarity and accuracy divergence, with thresholds that move."""

from __future__ import annotations

from textual.app import ComposeResult

from engine.analysis.prediction import Prediction
from engine.analysis.study_data import StudyData
from engine.analysis.table import Table
from engine.measures.table import MEASURES
from simtui.actions import MAP, PREDICTION, SPACE
from simtui.analyses import Found
from simtui.screens.scatter import ScatterScreen
from simtui.screens.view import bindings_of
from simtui.views import prediction, space
from simtui.widgets.grid import Grid

_ETA_STEP, _EPSILON_STEP = 0.01, 0.005


class SpaceScreen(ScatterScreen):
    """A scatter plot, the counts inside, and the run under the cursor."""

    VIEW = SPACE
    _is_forecast = False
    BINDINGS = bindings_of(SPACE)

    def compose_data(self) -> ComposeResult:
        """The plot, and the table of forecasts that takes its place."""
        yield from super().compose_data()
        yield Grid(id="grid")

    @property
    def slot(self) -> str:
        """The space, or the forecast of who will be in it."""
        return PREDICTION if self._is_forecast else SPACE

    def show_found(self, found: Found) -> str:
        """The space that the thresholds cut, or the forecast."""
        self.set_class(self._is_forecast, "-forecast")
        if self._is_forecast:
            return self._show_forecast(found.value, found.data)
        return self._show_space(found)

    def _show_forecast(self, found: Prediction, data: StudyData) -> str:
        if not found.forecasts:
            return self.nothing("No run has results yet.", "A forecast is made from the first epochs of a run.")
        self.query_one(Grid).show(prediction.sheet(found), self.simtui.selection.run_id)
        self.show_warnings(data.partial(found.found.key, found.found.layer))
        lines = prediction.errors(found)
        self.lines("detail").styles.height = len(lines)
        self.lines("detail").show(lines)
        self.lines("control").show([space.thresholds(found.found, self.simtui.selection.until)])
        return prediction.summary(found, self.simtui.selection.until)

    def _show_space(self, found: Found) -> str:
        app = self.simtui
        view = space.space_view(found, app.selection, app.shown_run_id(), app.is_colorless)
        self.fill(view)
        if view is None:
            return self.nothing("No run is done yet.", "A run has its place in the space when it has ended.")
        return view.summary

    def table(self) -> Table | None:
        """Every run with its place, or the forecasts."""
        from engine.analysis.prediction import prediction_table

        if self._is_forecast and self.data is not None:
            return prediction_table(self.data, self.table_options())
        if self._view is None or self.data is None:
            return None
        return space.table(self.data, self.table_options())

    def choose(self, key: str) -> None:
        """Another run."""
        self.simtui.select(run_id=key)

    def action_move(self, where: str) -> None:
        """The next run in a direction, or in the table."""
        if self._is_forecast:
            self.query_one(Grid).move(where)
        else:
            super().action_move(where)

    def action_step_eta(self, step: int) -> None:
        """Moves η by a hundredth."""
        low, high = MEASURES[self.simtui.key.measure].range
        eta = round(self.simtui.selection.eta + step * _ETA_STEP, 6)
        self.simtui.select(eta=min(max(eta, low), high))

    def action_step_epsilon(self, step: int) -> None:
        """Moves ε by half a hundredth."""
        epsilon = round(self.simtui.selection.epsilon + step * _EPSILON_STEP, 6)
        self.simtui.select(epsilon=min(max(epsilon, 0.0), 1.0))

    def action_forecast(self) -> None:
        """Between the space and the forecast."""
        self._is_forecast = not self._is_forecast
        self.simtui.show()

    def action_step_until(self, step: int) -> None:
        """Forecasts from one epoch fewer or more."""
        last = max((run.record.spec.epochs for run in self.data.runs), default=2) if self.data else 2
        self.simtui.select(until=min(max(self.simtui.selection.until + step, 1), max(last - 1, 1)))

    def action_open_map(self) -> None:
        """The map of the run under the cursor."""
        key = self.query_one(Grid).key if self._is_forecast else None
        if key:
            self.simtui.select(run_id=key)
            self.simtui.action_view(MAP)
        else:
            super().action_open_map()
