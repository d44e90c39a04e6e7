"""The map view: the layer × layer similarity of one run, or of two, with a cursor that walks over layers and epochs."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal

from engine.analysis.heatmap import compared_heatmap_table, heatmap_table
from engine.analysis.options import TableOptions
from engine.analysis.table import Table
from engine.errors import SimtuiError
from engine.runs.record import RunRecord, State
from engine.runs.results import Results
from engine.runs.uncertainty import CellUncertainty
from simtui.actions import MAP, PINNED
from simtui.reader import Snapshot
from simtui.safe_text import safe
from simtui.screens.map_play import EpochPlayer
from simtui.screens.map_uncertainty import MapUncertainty, UncertaintyQuestion
from simtui.screens.view import ViewScreen, bindings_of
from simtui.selection import after
from simtui.views import layer_map, map_compare
from simtui.views.layer_map import LayerMap
from simtui.views.map_compare import Comparison, Run
from simtui.views.map_page import SIDE_WIDTH, Look, MapPage, map_page
from simtui.views.parts import Line
from simtui.views.run_order import run_ids_in_order
from simtui.views.uncertainty import uncertainty_lines
from simtui.widgets.lines import Lines
from simtui.widgets.similarity_map import SimilarityMap

_STEPS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
_MAPS = ("map", "second-map", "third-map")


class MapScreen(ViewScreen):
    """One run's matrix; rows are the pre-trained model, columns the run's. Beside it, that of the pinned run."""

    VIEW = MAP
    BINDINGS = bindings_of(MAP)

    def compose_data(self) -> ComposeResult:
        """The maps with their side panel, then epoch, legend and readout."""
        self._shown: LayerMap | None = None
        self._run: Run | None = None
        self._pinned: Run | None = None
        self._comparison: Comparison | None = None
        self._player = EpochPlayer(self, self._play_on)
        self._uncertainty = MapUncertainty(self, self.show)
        yield Lines(id="epochs")
        with Horizontal(id="map-and-side"):
            for name in _MAPS:
                yield SimilarityMap(name, self.simtui.is_colorless, self.simtui.is_256)
            yield Lines(id="side")
        yield Lines(id="legend")
        yield Lines(id="warning")
        yield Lines(id="likeness")
        yield Lines(id="readout")
        yield Lines(id="uncertainty")

    def show_data(self) -> str | None:
        """The map of the selected run, or why there is none; beside it that of the pinned run."""
        snapshot, run_id = self.simtui.snapshot, self.simtui.shown_run_id()
        assert snapshot is not None
        if run_id is None:
            return self.nothing("No runs yet.", "The map of a run appears here after its first epoch.")
        broken = next((each.error for each in snapshot.damaged if each.run_id == run_id), None)
        record = snapshot.record(run_id)
        if record is None:
            return self.failed(broken) if broken else self.nothing("This run is not there any more.")
        answer = self.simtui.answer(MAP)
        if answer is None or (self.simtui.selection.pinned and self.simtui.answer(PINNED) is None):
            return None if self._shown else self.nothing("reading …")
        self._shown = self._run = self._pinned = self._comparison = None
        if isinstance(answer.value, SimtuiError):
            return self.failed(answer.value)
        if isinstance(answer.value, Results):
            self._run = Run(record, answer.value)
            self._shown = layer_map.layer_map(record, answer.value, self.simtui.chosen)
        if self._shown is None or self._run is None:
            return self._no_map(record)
        problem = self._compare(snapshot, self._run)
        app, size = self.simtui, self.size
        sure = self._sure_lines(self._shown)
        look = Look(size.width, size.height - len(sure), app.is_colorless, app.is_256, self._player.is_playing)
        self._show_page(map_page(self._shown, self._run, self._comparison, problem, app.selection, look))
        self._show_block("uncertainty", sure)
        return self._comparison.summary if self._comparison else self._shown.summary

    def table(self) -> Table | None:
        """The matrix in sight; with that of the pinned run and the difference where there is one."""
        shown, run, found = self._shown, self._run, self._comparison
        if shown is None or run is None:
            return None
        if found is None or self._pinned is None or found.difference is None:
            return heatmap_table(run.record, run.results, shown.key, shown.epoch, self._sure())
        pinned = self._pinned.record, self._pinned.results
        epochs = found.run.epoch, found.pinned.epoch
        return compared_heatmap_table((run.record, run.results), pinned, shown.key, epochs)

    def table_options(self) -> TableOptions:
        """The run, the epoch and the similarity in sight."""
        assert self._shown is not None
        key, run_id = self._shown.key, self.simtui.shown_run_id()
        return TableOptions(
            run=run_id, epoch=self._shown.epoch, pooling=key.pooling, measure=key.measure, probe=key.probe,
            interval=self._comparison is None and self._sure() is not None,
            beside=self._pinned.record.run_id if self._pinned and self._comparison else None,
        )  # fmt: skip

    def action_move(self, where: str) -> None:
        """Moves the cursor by one layer of the selected run."""
        if self._shown:
            rows, columns = _STEPS[where]
            last_row, last = len(self._shown.row_layers) - 1, len(self._shown.layers) - 1
            self.simtui.select(
                row=min(max(self._shown.row + rows, 0), last_row),
                column=min(max(self._shown.column + columns, 0), last),
            )

    def action_step_epoch(self, step: int) -> None:
        """One epoch on or back; at the last one, a running study is followed."""
        self._player.stop()
        self._step_epoch(step)

    def action_play(self) -> None:
        """Plays the epochs from here on, from the start where this is the end; or stops."""
        if self._player.is_playing or not self._shown:
            self._player.stop()
        else:
            epoch, n_epochs = self._clock(self._shown)
            self._player.start()
            if epoch == n_epochs - 1:
                self.simtui.select(epoch=0)
        self.show()

    def action_step_run(self, step: int) -> None:
        """The next or the previous run."""
        self._player.stop()
        if (snapshot := self.simtui.snapshot) and (run_id := self.simtui.shown_run_id()):
            run_ids = run_ids_in_order(snapshot, self.simtui.selection) or [run_id]
            self.simtui.select(run_id=after(run_ids, run_id, step))

    def action_pin(self) -> None:
        """Holds this run's map against that of every run that is looked at from now on; or no longer."""
        if self.simtui.selection.pinned is None and self._shown is None:
            return
        self.simtui.select(pinned=None if self.simtui.selection.pinned else self.simtui.shown_run_id())

    def action_difference(self) -> None:
        """The difference in place of the selected run's own map, or back."""
        found = self._comparison
        if found is None:
            self.notify("first pin a run (c), then turn to another one (n)", markup=False)
        elif found.difference is None:
            self.notify(f"there is no difference: {found.why_none}", markup=False)
        elif map_compare.has_room_for_three(found, self.size.width):
            self.notify("the difference stands beside both maps", markup=False)
        else:
            self.simtui.select(is_difference=not self.simtui.selection.is_difference)

    def action_row_and_column(self) -> None:
        """What the two layers under the cursor are like, in place of each block against itself; or back."""
        self.simtui.select(is_row_and_column=not self.simtui.selection.is_row_and_column)

    def action_uncertainty(self) -> None:
        """The interval and the null level of every cell: computes them, then shows them; or hides them."""
        if self._shown and (asked := self._question(self._shown)):
            self._uncertainty.toggle(*asked)
            self.show()

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
        if self._shown and self._shown.is_comparison:
            self.notify("two checkpoints have no trajectory: nothing was trained between them", markup=False)
        elif self._shown and self._run:
            layer = self._run.results.layers[self._shown.column]
            self.simtui.select(layer=layer, overlay="methods", backbone=self._run.record.spec.backbone.name)
            self.simtui.action_view("trajectories")

    def on_similarity_map_cell_moved(self, message: SimilarityMap.CellMoved) -> None:
        """Reads out another cell; one of the pinned run's map stands for the selected run's at the same depth."""
        row, column = message.row, message.column
        if message.map.id == _MAPS[0] and (found := self._comparison):
            sizes = len(found.pinned.layers), len(found.run.layers)
            row, column = (map_compare.linked(at, *sizes) for at in (row, column))
        self.simtui.select(row=row, column=column)

    def on_similarity_map_cell_chosen(self) -> None:
        """A second click is Enter."""
        self.action_open_trajectory()

    def on_screen_suspend(self) -> None:
        """Nothing plays that nobody sees."""
        self._player.stop()

    def on_unmount(self) -> None:
        """Nothing is computed that nobody waits for."""
        self._uncertainty.close()

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

    def _step_epoch(self, step: int) -> bool:
        """Whether there are more epochs that way."""
        if not self._shown:
            return False
        epoch, n_epochs = self._clock(self._shown)
        last = n_epochs - 1
        epoch = min(max(epoch + step, 0), last)
        while 0 < epoch < last and self._is_gap(epoch):
            epoch += 1 if step > 0 else -1
        self.simtui.select(epoch=None if epoch == last else epoch)
        return 0 < epoch < last

    def _is_gap(self, epoch: int) -> bool:
        """Whether there is nothing of this epoch, of any run in sight."""
        runs = [run for run in (self._run, self._pinned) if run is not None]
        return all(epoch < run.results.n_epochs and layer_map.is_absent(run.record, run.results, epoch) for run in runs)

    def _play_on(self) -> bool:
        is_more = self._step_epoch(1)
        if not is_more:
            self._player.stop()
            self.show()
        return is_more

    def _clock(self, shown: LayerMap) -> tuple[int, int]:
        """The epoch in sight and how many there are; of two runs, those of the longer one."""
        found = self._comparison
        return (found.epoch, found.n_epochs) if found else (shown.epoch, shown.n_epochs)

    def _compare(self, snapshot: Snapshot, run: Run) -> str:
        """Holds the run against the pinned one; says why not where it cannot."""
        pinned = self.simtui.selection.pinned
        if pinned is None or pinned == run.record.run_id:
            return ""
        other = map_compare.pinned_run(snapshot, pinned, self.simtui.answer(PINNED))
        found = other if isinstance(other, str) else map_compare.compared(other, run, self.simtui.chosen)
        if isinstance(found, str) or isinstance(other, str):
            return str(found)
        self._pinned, self._comparison = other, found
        return ""

    def _question(self, shown: LayerMap) -> tuple[UncertaintyQuestion, RunRecord] | None:
        """How sure the cells in sight are, as it is asked."""
        snapshot = self.simtui.snapshot
        if snapshot is None or self._run is None:
            return None
        record = self._run.record
        return UncertaintyQuestion.of(snapshot.path, record, shown.epoch, shown.key), record

    def _sure(self) -> CellUncertainty | None:
        """How sure the cells in sight are, where that is shown."""
        asked = self._question(self._shown) if self._shown else None
        found = self._uncertainty.of(*asked) if asked else None
        return found if isinstance(found, CellUncertainty) else None

    def _sure_lines(self, shown: LayerMap) -> tuple[Line, ...]:
        asked = self._question(shown)
        found = self._uncertainty.of(*asked) if asked else None
        whose = "this run: " if self._comparison else ""
        return uncertainty_lines(found, shown.row, shown.column, self.size.width, whose)

    def _show_page(self, page: MapPage) -> None:
        share = (self.size.width - SIDE_WIDTH * page.has_side) // len(page.maps)
        for i, name in enumerate(_MAPS):
            widget = self.query_one(f"#{name}", SimilarityMap)
            widget.set_class(i < len(page.maps), "-shown")
            if i < len(page.maps):
                widget.styles.width = "1fr" if len(page.maps) == 1 else share
                widget.show(page.maps[i])
        for name, said in (("epochs", page.epochs), ("legend", page.legend), ("readout", page.readout)):
            self.lines(name).show([said])
        for name, block in (("warning", page.warnings), ("likeness", page.likeness)):
            self._show_block(name, block)
        self.lines("side").set_class(page.has_side, "-shown")
        if page.has_side:
            self.lines("side").show(page.side)

    def _show_block(self, name: str, block: Sequence[Line]) -> None:
        """Lines that take room only where there are any."""
        self.lines(name).set_class(bool(block), "-shown")
        self.lines(name).styles.height = len(block)
        self.lines(name).show(block)
