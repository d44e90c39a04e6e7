"""The runs view: every run of the study, and all about the one under the cursor."""

from __future__ import annotations

from textual.app import ComposeResult

from engine.analysis.table import Table
from simtui.actions import RUNS
from simtui.screens.view import ViewScreen, bindings_of
from simtui.views import runs
from simtui.widgets.grid import Grid
from simtui.widgets.lines import Lines


class RunsScreen(ViewScreen):
    """The table of runs; Enter opens the map of one."""

    VIEW = RUNS
    BINDINGS = bindings_of(RUNS)

    def compose_data(self) -> ComposeResult:
        """The table and the details of one run."""
        yield Grid(id="grid")
        yield Lines(id="detail")

    def show_data(self) -> str:
        """All runs, with the cursor where it was."""
        snapshot = self.simtui.snapshot
        assert snapshot is not None
        if not snapshot.records and not snapshot.damaged:
            return self.nothing("No runs yet.", "They appear here as soon as `simtui run` has planned them.")
        self._grid.show(runs.sheet(snapshot), self.simtui.selection.run_id)
        self._show_detail()
        return runs.summary(snapshot)

    def table(self) -> Table | None:
        """The runs, whatever the width of the terminal shows of them."""
        snapshot = self.simtui.snapshot
        return runs.table(snapshot) if snapshot and snapshot.records else None

    def action_move(self, where: str) -> None:
        """Moves the cursor."""
        self._grid.move(where)

    def action_open_map(self) -> None:
        """The map of the run under the cursor."""
        if self._grid.key:
            self.simtui.select(run_id=self._grid.key)
            self.simtui.action_view("map")

    def on_grid_row_moved(self, message: Grid.RowMoved) -> None:
        """The run under the cursor is the one that all views show."""
        self.simtui.select(run_id=message.key)
        self._show_detail()

    def on_grid_row_chosen(self) -> None:
        """A second click is Enter."""
        self.action_open_map()

    def _show_detail(self) -> None:
        snapshot = self.simtui.snapshot
        assert snapshot is not None
        self.lines("detail").show(runs.detail(snapshot, self._grid.key, self.size.width - 2))

    @property
    def _grid(self) -> Grid:
        return self.query_one(Grid)
