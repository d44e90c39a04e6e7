"""The distributions view: final similarity and score over the seeds, and the differences between the groups."""

from __future__ import annotations

from textual.app import ComposeResult

from engine.analysis.table import Table
from simtui.actions import DISTRIBUTIONS
from simtui.analyses import Found
from simtui.screens.analysis import AnalysisScreen
from simtui.screens.view import bindings_of
from simtui.views import distributions
from simtui.views.distributions import DistributionsView
from simtui.widgets.grid import Grid
from simtui.widgets.lines import Lines


class DistributionsScreen(AnalysisScreen):
    """Dots and densities, or the table of differences."""

    VIEW = DISTRIBUTIONS
    BINDINGS = bindings_of(DISTRIBUTIONS)

    def compose_data(self) -> ComposeResult:
        """What is shown, the groups or the table, warnings, and the figures of one group."""
        self._shown: DistributionsView | None = None
        self._cursor = 0
        self._compares = False
        yield Lines(id="control")
        yield Lines(id="groups")
        yield Grid(id="grid")
        yield Lines(id="warning")
        yield Lines(id="detail")

    def show_found(self, found: Found) -> str:
        """The groups that are asked for."""
        view = distributions.distributions_view(found, self.simtui.selection, self.simtui.key, self._cursor)
        self._shown = view
        if view is None:
            return self.nothing("No run is done yet.", "A run counts when it has come to its last epoch.")
        self._cursor = view.cursor
        self.lines("control").show([view.control])
        self.show_warnings(view.warnings)
        self.lines("detail").styles.height = len(view.readout)
        self.lines("detail").show(view.readout)
        self.set_class(self._compares, "-compares")
        if self._compares:
            comparison = self._comparison(found)
            self.query_one(Grid).show(distributions.comparison_sheet(comparison), None)
        else:
            self.call_after_refresh(self._show_groups)
        return view.summary

    def table(self) -> Table | None:
        """The groups, or their differences, whichever is in sight."""
        from engine.analysis.distribution import distribution_table

        found = self.simtui.found(DISTRIBUTIONS)
        if self._shown is None or found is None:
            return None
        if self._compares:
            return self._comparison(found)
        return distribution_table(found.data, self.table_options())

    def action_move(self, where: str) -> None:
        """The next group."""
        if self._compares:
            self.query_one(Grid).move(where)
        elif self._shown:
            self._cursor = min(max(self._cursor + (1 if where == "down" else -1), 0), len(self._shown.groups) - 1)
            self.show()

    def action_comparison(self) -> None:
        """Between dots and differences."""
        self._compares = not self._compares
        self.show()

    def on_resize(self, event: object) -> None:
        """Dots are placed for a width."""
        self.call_after_refresh(self.show)

    def _show_groups(self) -> None:
        if self._shown:
            area = self.lines("groups")
            area.show(distributions.rows(self._shown, area.size.width, area.size.height, self.simtui.is_colorless))

    def _comparison(self, found: Found) -> Table:
        from engine.analysis.comparison import comparison_table

        return comparison_table(found.data, self.table_options())
