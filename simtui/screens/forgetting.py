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
        self._titles: list[str] = []
        yield Grid(id="grid")
        yield Lines(id="notes")
        yield Lines(id="detail")

    def show_found(self, answer: Found) -> str:
        """The table over the runs that are done."""
        snapshot, found = self.simtui.snapshot, answer.value
        assert snapshot is not None and isinstance(found, Table)
        order = self.simtui.selection.forgetting_order
        found = forgetting.in_sight(found, order)
        self._table = found if found.rows else None
        if not found.rows:
            return self.nothing("No run is done yet.", "Forgetting is measured when a run has ended.")
        grid = self.query_one(Grid)
        sheet = forgetting.sheet(found, order)
        self._titles = [column.title for column in sheet.columns]
        grid.show(sheet, self._key or grid.key)
        notes = forgetting.notes(found, snapshot, self.size.width - 2)
        detail = forgetting.detail(found, grid.key, self.size.width - 2)
        self.lines("detail").styles.height = len(detail)
        grid.styles.height = min(len(found.rows) + 2, self.size.height - len(notes) - len(detail) - 5)
        self.lines("notes").show(notes)
        self.lines("detail").show(detail)
        return forgetting.summary(found, snapshot)

    def table(self) -> Table | None:
        """All rows and columns, in the order in sight."""
        return self._table

    def action_move(self, where: str) -> None:
        """Moves the cursor."""
        grid = self.query_one(Grid)
        if grid.move(where) and grid.key is not None:
            self._look_at(grid.key)

    def action_order(self, step: int) -> None:
        """Sorts by the next column."""
        self.simtui.select(forgetting_order=self.simtui.selection.forgetting_order.stepped(self._titles, step))

    def action_reverse(self) -> None:
        """Sorts the other way round."""
        self.simtui.select(forgetting_order=self.simtui.selection.forgetting_order.reversed())

    def on_grid_title_chosen(self, message: Grid.TitleChosen) -> None:
        """A click on a title sorts."""
        self.simtui.select(forgetting_order=self.simtui.selection.forgetting_order.chosen(message.title))

    def on_grid_row_moved(self, message: Grid.RowMoved) -> None:
        """The mouse does what the keys do."""
        self._look_at(message.key)

    def _look_at(self, key: str) -> None:
        """Reads out another row."""
        self._key = key
        if self._table:
            self.lines("detail").show(forgetting.detail(self._table, key, self.size.width - 2))
