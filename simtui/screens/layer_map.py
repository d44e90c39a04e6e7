"""The map view: the layer × layer similarity of one run, with a cursor that steps through layers and epochs."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal

from engine.analysis.heatmap import heatmap_table
from engine.analysis.options import TableOptions
from engine.analysis.table import Table
from engine.errors import SimtuiError
from engine.runs.record import RunRecord, State
from engine.runs.results import Results
from simtui.actions import MAP
from simtui.palette import scale_color
from simtui.safe_text import safe
from simtui.screens.view import ViewScreen, bindings_of
from simtui.selection import after
from simtui.views import layer_map
from simtui.views.layer_map import LayerMap
from simtui.views.map_layout import MAX_LABEL_WIDTH
from simtui.views.parts import ACCENT, DIM, WARN, Line, Span, wrapped
from simtui.widgets.lines import Lines
from simtui.widgets.similarity_map import SimilarityMap

_SIDE_WIDTH = 34
_STEPS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


class MapScreen(ViewScreen):
    """One run's matrix; rows are the pre-trained model, columns the run's."""

    VIEW = MAP
    BINDINGS = bindings_of(MAP)

    def compose_data(self) -> ComposeResult:
        """The map with its side panel, then epoch, legend and readout."""
        self._shown: LayerMap | None = None
        self._results: Results | None = None
        yield Lines(id="epochs")
        with Horizontal(id="map-and-side"):
            yield SimilarityMap("map", self.simtui.is_colorless, self.simtui.is_256)
            yield Lines(id="side")
        yield Lines(id="legend")
        yield Lines(id="warning")
        yield Lines(id="readout")

    def show_data(self) -> str | None:
        """The map of the selected run, or why there is none."""
        snapshot, run_id = self.simtui.snapshot, self.simtui.shown_run_id()
        assert snapshot is not None
        if run_id is None:
            return self.nothing("No runs yet.", "The map of a run appears here after its first epoch.")
        broken = next((each.error for each in snapshot.damaged if each.run_id == run_id), None)
        record = snapshot.record(run_id)
        if record is None:
            return self.failed(broken) if broken else self.nothing("This run is not there any more.")
        answer = self.simtui.answer(MAP)
        if answer is None:
            return None if self._shown else self.nothing("reading …")
        self._shown = self._results = None
        if isinstance(answer.value, SimtuiError):
            return self.failed(answer.value)
        if isinstance(answer.value, Results):
            self._results = answer.value
            self._shown = layer_map.layer_map(record, answer.value, self.simtui.selection)
        if self._shown is None or self._results is None:
            return self._no_map(record)
        self._show_map(self._shown, self._results)
        return self._shown.summary

    def table(self) -> Table | None:
        """The matrix in sight."""
        shown, snapshot = self._shown, self.simtui.snapshot
        record = snapshot.record(self.simtui.shown_run_id()) if snapshot else None
        return (
            heatmap_table(record, self._results, shown.key, shown.epoch) if shown and self._results and record else None
        )

    def table_options(self) -> TableOptions:
        """The run, the epoch and the similarity in sight."""
        assert self._shown is not None
        key, run_id = self._shown.key, self.simtui.shown_run_id()
        return TableOptions(
            run=run_id, epoch=self._shown.epoch, pooling=key.pooling, measure=key.measure, probe=key.probe
        )

    def action_move(self, where: str) -> None:
        """Moves the cursor by one layer."""
        rows, columns = _STEPS[where]
        grid = self.query_one(SimilarityMap)
        grid.move_to(grid.row + rows, grid.column + columns)

    def action_step_epoch(self, step: int) -> None:
        """One epoch on or back; at the last one, a running study is followed."""
        if self._shown:
            last = self._shown.n_epochs - 1
            epoch = min(max(self._shown.epoch + step, 0), last)
            self.simtui.select(epoch=None if epoch == last else epoch)

    def action_step_run(self, step: int) -> None:
        """The next or the previous run."""
        if (snapshot := self.simtui.snapshot) and (run_id := self.simtui.shown_run_id()):
            self.simtui.select(run_id=after([record.run_id for record in snapshot.records] or [run_id], run_id, step))

    def action_pooling(self) -> None:
        """The next pooling that this run has."""
        self._step_key("pooling")

    def action_measure(self) -> None:
        """The next measure that this run has."""
        self._step_key("measure")

    def action_probe(self) -> None:
        """The images of the other domain, where this run compares them."""
        self._step_key("probe")

    def action_open_trajectory(self) -> None:
        """The trajectory of the column's block: similarity over the epochs is of a block to its own origin."""
        record = self.simtui.snapshot.record(self.simtui.shown_run_id()) if self.simtui.snapshot else None
        if self._shown and record and self._results:
            layer = self._results.layers[self._shown.column]
            self.simtui.select(layer=layer, overlay="methods", backbone=record.spec.backbone.name)
            self.simtui.action_view("trajectories")

    def on_similarity_map_cell_moved(self, message: SimilarityMap.CellMoved) -> None:
        """Reads out another cell."""
        self.simtui.select(row=message.row, column=message.column)

    def on_similarity_map_cell_chosen(self) -> None:
        """A second click is Enter."""
        self.action_open_trajectory()

    def _no_map(self, record: RunRecord) -> str:
        name = f"{safe(record.spec.backbone.name)}, {record.spec.method}, seed {record.spec.seed}"
        if record.state is State.FAILED:
            return self.nothing(f"{name}: failed before its first epoch.", safe(record.reason))
        return self.nothing(f"{name}: no results yet; this run is {record.state}.", "Its map appears after epoch 0.")

    def _step_key(self, field: str) -> None:
        if self._shown:
            known = list(dict.fromkeys(str(getattr(key, field)) for key in self._shown.keys))
            current = str(getattr(self._shown.key, field))
            self.simtui.select(**{field: after(known, current)})

    def _show_map(self, shown: LayerMap, results: Results) -> None:
        width, n = self.size.width, len(shown.layers)
        label_width = min(max(map(len, shown.layers)), MAX_LABEL_WIDTH) + 3
        # The side panel takes what the map does not need to write numbers into its cells.
        has_side = (width >= 120 and n <= 24) or width - _SIDE_WIDTH >= label_width + 5 * n
        self.lines("side").set_class(has_side, "-shown")
        self.query_one(SimilarityMap).show(
            shown.matrix, shown.layers, shown.row, shown.column, f"{shown.model}, epoch {shown.epoch}"
        )
        self.lines("epochs").show([layer_map.epoch_line(shown)])
        self.lines("legend").show([self._legend(shown)])
        warning = wrapped(f"! {shown.warning}", width - 2, 2, WARN) if shown.warning else ()
        self.lines("warning").set_class(bool(warning), "-shown")
        self.lines("warning").styles.height = len(warning)
        self.lines("warning").show([(Span(" ", WARN), *each) for each in warning])
        self.lines("readout").show([layer_map.readout(shown, width, self.simtui.is_256)])
        if has_side:
            height = self.size.height - 8 - len(warning)
            self.lines("side").show(layer_map.side_panel(shown, results, _SIDE_WIDTH - 4, height, self.simtui.is_256))

    def _legend(self, shown: LayerMap) -> Line:
        name = Span(f"  {layer_map.measure_name(shown.key)}", ACCENT)
        if self.simtui.is_colorless:
            return Span(" one digit means tenths (7 is 0.70 to 0.79)", DIM), name
        is_256 = self.simtui.is_256
        ramp = [Span("█", color=scale_color(i / 24, is_256)) for i in range(25)]
        return Span(" 0 ", DIM), *ramp, Span(" 1", DIM), name, Span("  – undefined", DIM)
