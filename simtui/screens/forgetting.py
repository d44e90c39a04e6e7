"""The forgetting view: how much of the origin domain is lost, by backbone and method, over the seeds."""

from __future__ import annotations

from textual.app import ComposeResult

from engine.analysis.table import Table
from simtui.actions import FORGETTING
from simtui.analyses import Found
from simtui.screens.analysis import AnalysisScreen
from simtui.screens.view import bindings_of
from simtui.views import forgetting
from simtui.widgets.grid import Grid
from simtui.widgets.lines import Lines


class ForgettingScreen(AnalysisScreen):
    """The table of forgetting, with the notes without which it could mislead."""

    VIEW = FORGETTING
    BINDINGS = bindings_of(FORGETTING)

    def compose_data(self) -> ComposeResult:
        """The table, its notes, and all figures of one row."""
        self._key: str | None = None
        self._table: Table | None = None
        yield Grid(id="grid")
        yield Lines(id="notes")
        yield Lines(id="detail")

    def show_found(self, answer: Found) -> str:
        """The table over the runs that are done."""
        snapshot, found = self.simtui.snapshot, answer.value
        assert snapshot is not None and isinstance(found, Table)
        self._table = found if found.rows else None
        if not found.rows:
            return self.nothing("No run is done yet.", "Forgetting is measured when a run has ended.")
        grid = self.query_one(Grid)
        grid.show(forgetting.sheet(found), self._key)
        notes = forgetting.notes(found, snapshot, self.size.width - 2)
        detail = forgetting.detail(found, grid.key, self.size.width - 2)
        self.lines("detail").styles.height = len(detail)
        grid.styles.height = min(len(found.rows) + 2, self.size.height - len(notes) - len(detail) - 5)
        self.lines("notes").show(notes)
        self.lines("detail").show(detail)
        return forgetting.summary(found, snapshot)

    def table(self) -> Table | None:
        """All rows and columns."""
        return self._table

    def action_move(self, where: str) -> None:
        """Moves the cursor."""
        self.query_one(Grid).move(where)

    def on_grid_row_moved(self, message: Grid.RowMoved) -> None:
        """Reads out another row."""
        self._key = message.key
        if self._table:
            self.lines("detail").show(forgetting.detail(self._table, message.key, self.size.width - 2))
