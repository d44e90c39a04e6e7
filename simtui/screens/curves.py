"""The trajectories view: similarity and accuracy over the epochs, with the spread over the seeds."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal

from engine.analysis.layer_profile import layers_table
from engine.analysis.options import MEAN_OF_LAYERS
from engine.analysis.table import Table
from engine.analysis.trajectory import trajectory_table
from engine.errors import SimtuiError
from engine.runs.record import RunRecord
from simtui.actions import LAYERS, TRAJECTORIES
from simtui.safe_text import safe
from simtui.screens.analysis import unfiltered
from simtui.screens.view import ViewScreen, bindings_of
from simtui.selection import BANDS, OVERLAYS, after
from simtui.views import curves, layer_profile
from simtui.views.curves import CurvesView
from simtui.views.layer_profile import ProfileRow
from simtui.views.parts import WARN, Span, wrapped, wrapped_line
from simtui.widgets.curve_plot import CurvePlot
from simtui.widgets.lines import Lines

_LEGEND_LINES = 10  # at least; a third of a high terminal


class TrajectoriesScreen(ViewScreen):
    """Curves with bands, and their figures at one epoch."""

    VIEW = TRAJECTORIES
    _is_profile = False
    BINDINGS = bindings_of(TRAJECTORIES)

    def compose_data(self) -> ComposeResult:
        """What is shown, the two plots, and the legend with its figures."""
        self._shown: CurvesView | None = None
        self._cursor = 0
        self._rows: tuple[ProfileRow, ...] = ()
        yield Lines(id="control")
        yield Lines(id="profile")
        with Horizontal(id="plots"):
            yield CurvePlot("similarity", self.simtui.is_colorless)
            yield CurvePlot("accuracy", self.simtui.is_colorless)
        yield Lines(id="warning")
        yield Lines(id="legend")

    @property
    def slot(self) -> str:
        """The curves, or the layer profile."""
        return LAYERS if self._is_profile else TRAJECTORIES

    def show_data(self) -> str | None:
        """The curves or the profile that the selection asks for, or why there are none."""
        self.set_class(self._is_profile, "-profile")
        return self._show_profile() if self._is_profile else self._show_curves()

    def _show_profile(self) -> str | None:
        found = self.simtui.found(LAYERS)
        if found is None:
            return None if self._rows else self.nothing("reading …")
        if isinstance(found.value, SimtuiError):
            return self.failed(found.value)
        key = self.simtui.key
        self._rows = layer_profile.profile_rows(found.value)
        if not self._rows:
            return self.nothing("No run is done yet.", "The layer profile is made from runs that have ended.")
        self._cursor = min(self._cursor, len(self._rows) - 1)
        self.lines("control").show([curves.profile_control(key)])
        warnings = curves.warnings(found, found.data.records, key)
        self._show_warnings(warnings)
        self.lines("legend").styles.height = 2
        self.lines("legend").show(wrapped_line(layer_profile.readout(self._rows[self._cursor]), self.size.width - 1))
        self.call_after_refresh(self._draw_profile)
        return unfiltered(layer_profile.summary(found.value), self.simtui.selection)

    def _draw_profile(self) -> None:
        area, app = self.lines("profile"), self.simtui
        width, height = area.size
        area.show(layer_profile.profile_lines(self._rows, self._cursor, width, height, app.is_colorless, app.is_256))

    def _show_warnings(self, warnings: tuple[str, ...]) -> None:
        lines = [line for each in warnings for line in wrapped(f"! {safe(each)}", self.size.width - 2, 2, WARN)][:3]
        self.lines("warning").set_class(bool(lines), "-shown")
        self.lines("warning").styles.height = len(lines)
        self.lines("warning").show([(Span(f" {span.text}", WARN),) for (span,) in lines])

    def _show_curves(self) -> str | None:
        found = self.simtui.found(TRAJECTORIES)
        if found is None:
            return None if self._shown else self.nothing("reading …")
        self._shown = None
        view = curves.curves_view(found, self.simtui.key, self.simtui.selection, self.simtui.is_colorless)
        if view is None:
            if found.data.unreadable:
                return self.failed(found.data.unreadable[0].error)
            return self.nothing("No trajectories yet.", "They appear after the first epoch of the first run.")
        self._shown = view
        self.lines("control").show([view.control])
        self.query_one("#similarity", CurvePlot).show(view.similarity, view.epoch)
        self.query_one("#accuracy", CurvePlot).show(view.accuracy, view.epoch)
        room = max(_LEGEND_LINES, self.size.height // 3)
        legend = curves.legend(view, self.size.width, self.simtui.is_colorless, room)
        self.lines("legend").styles.height = len(legend)
        self.lines("legend").show(legend)
        self._show_warnings(curves.warnings(found, self._records(), self.simtui.key, self.simtui.selection.layer))
        return unfiltered(view.summary, self.simtui.selection)

    def table(self) -> Table | None:
        """The curves or the profile in sight."""
        if self._is_profile:
            layers = self.simtui.found(LAYERS)
            has_rows = layers is not None and bool(self._rows)
            return layers_table(layers.data, self.table_options()) if layers and has_rows else None
        found = self.simtui.found(TRAJECTORIES)
        if not self._shown or not found:
            return None
        run_ids = {run_id for each in self._shown.shown for run_id in each.run_ids}
        return trajectory_table(found.data.only(run_ids), self.table_options())

    def _records(self) -> tuple[RunRecord, ...]:
        """The runs behind the curves."""
        snapshot = self.simtui.snapshot
        shown = {run_id for each in self._shown.shown for run_id in each.run_ids} if self._shown else set()
        return tuple(record for record in snapshot.records if record.run_id in shown) if snapshot else ()

    def action_move(self, where: str) -> None:
        """The next or the previous layer; before the first one stands the mean of all."""
        if self._is_profile:
            self._cursor = min(max(self._cursor + (1 if where == "down" else -1), 0), max(len(self._rows) - 1, 0))
            self.show()
            return
        found = self.simtui.found(TRAJECTORIES)
        if found and found.data.layers:
            layers = [MEAN_OF_LAYERS, *found.data.layers]
            self.simtui.select(layer=after(layers, self.simtui.selection.layer, 1 if where == "down" else -1))

    def action_step_epoch(self, step: int) -> None:
        """Moves the mark to the next epoch of which anything is known."""
        if self._shown:
            epoch = self._shown.stepped(step)
            self.simtui.select(epoch=None if epoch == self._shown.n_epochs - 1 else epoch)

    def action_overlay(self) -> None:
        """Methods of one backbone, backbones with one method, or all."""
        selection = self.simtui.selection
        self.simtui.select(overlay=after(OVERLAYS, selection.overlay))

    def action_profile(self) -> None:
        """Between the curves and the layer profile."""
        self._is_profile = not self._is_profile
        self.simtui.show()

    def action_band(self) -> None:
        """One standard deviation, the interval of the mean, or the single runs behind the curves."""
        self.simtui.select(band=after(BANDS, self.simtui.selection.band))

    def action_step_group(self, step: int) -> None:
        """The next backbone whose methods are overlaid, or the next method."""
        found, selection = self.simtui.found(TRAJECTORIES), self.simtui.selection
        known = curves.groups(found.value, selection) if found else ()
        if found and known:
            field = "backbone" if selection.overlay == "methods" else "method"
            self.simtui.select(**{field: after(known, curves.fixed_group(found.value, selection), step)})

    def action_pooling(self) -> None:
        """The next pooling."""
        self._step_key("pooling")

    def action_measure(self) -> None:
        """The next measure."""
        self._step_key("measure")

    def action_probe(self) -> None:
        """The images of the other domain."""
        self._step_key("probe")

    def _step_key(self, field: str) -> None:
        found = self.simtui.found(TRAJECTORIES)
        if found and found.data.keys:
            known = list(dict.fromkeys(str(getattr(key, field)) for key in found.data.keys))
            self.simtui.select(**{field: after(known, str(getattr(self.simtui.key, field)))})
