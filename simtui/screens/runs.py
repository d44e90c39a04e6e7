"""The runs view: all runs of a study, filtered, sorted, marked or averaged, and all about the one under the cursor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from engine.analysis.table import Table
from simtui.actions import RUNS
from simtui.reader import Snapshot
from simtui.screens.view import ViewScreen, bindings_of
from simtui.selection import RUNS_BY, RunsBy, after
from simtui.views import run_groups, runs
from simtui.views.parts import DIM, WARN, Line, Sheet, wrapped
from simtui.views.run_filter import EXAMPLE, Problem, in_force, read_filter
from simtui.views.run_groups import Group
from simtui.views.run_order import filter_of
from simtui.views.runs import AllRuns
from simtui.widgets.filter_line import FilterLine
from simtui.widgets.grid import Grid
from simtui.widgets.lines import Lines

_KEYS = "enter keeps, esc clears"


class RunsScreen(ViewScreen):
    """The table of runs, or of their means; Enter opens the map of a run, or the runs of a group."""

    VIEW = RUNS
    AUTO_FOCUS = ""  # the line of the filter gets the keys only when it is opened
    # No key goes before what is typed into the filter, not even the one that quits.
    BINDINGS: ClassVar[list[BindingType]] = [
        replace(each, priority=False) if isinstance(each, Binding) else each for each in bindings_of(RUNS)
    ]

    def compose_data(self) -> ComposeResult:
        """The table, the details of one row, the line of the filter."""
        self._all: AllRuns | None = None
        self._made_of: object = None
        self._sheet, self._summary = Sheet((), ()), ""
        self._groups: dict[str, Group] = {}
        self._group: str | None = None
        self._groups_before: tuple[str, RunsBy] | None = None
        yield Grid("grid", has_marks=True)
        yield Lines(id="detail")
        yield FilterLine(EXAMPLE, id="filter")

    def show_data(self) -> str:
        """What is shown of the runs, with the cursor where it was."""
        snapshot = self.simtui.snapshot
        assert snapshot is not None
        if not snapshot.records and not snapshot.damaged:
            return self.nothing("No runs yet.", "They appear here as soon as `simtui run` has planned them.")
        if self._all is None or not self._all.is_of(snapshot):
            self._all = AllRuns.of(snapshot, self._all)
        self._make(self._all, snapshot)
        empty = runs.no_match(self.simtui.selection) if not self._sheet.rows else ()
        self._grid.show(self._sheet, self._cursor_key(), empty)
        self._follow_cursor()
        self._show_detail()
        return self._summary

    def table(self) -> Table | None:
        """The runs that the filter leaves, as they are sorted, whatever the width of the terminal shows of them."""
        snapshot = self.simtui.snapshot
        table = runs.table(snapshot, self.simtui.selection) if snapshot and snapshot.records else None
        return table if table and table.rows else None

    def export_note(self) -> str:
        """Groups are no table of their own."""
        return "the file holds the runs behind the groups, one by one" if self.simtui.selection.runs_by else ""

    def footer_words(self) -> Mapping[str, str]:
        """Enter on a group shows its runs."""
        return {"open-map": "its runs"} if self.simtui.selection.runs_by else {}

    def action_move(self, where: str) -> None:
        """Moves the cursor."""
        if self._grid.move(where) and self._grid.key:
            self._look_at(self._grid.key)

    def action_open_map(self) -> None:
        """The map of the run under the cursor, or the runs of the group under it."""
        if self.simtui.selection.runs_by:
            self._open_group()
        elif self._grid.key:
            self.simtui.select(run_id=self._grid.key)
            self.simtui.action_view("map")

    def action_filter(self) -> None:
        """Opens the line in which the filter is typed."""
        self._groups_before = None
        self._filter.open(self.simtui.selection.run_filter)
        self._say(self.simtui.selection.run_filter)

    def action_clear_filter(self) -> None:
        """Shows all runs; the groups again, where the filter came from one of them."""
        before, self._groups_before = self._groups_before, None
        if self._filter.is_open:
            self._filter.close()
        text, by = before or ("", self.simtui.selection.runs_by)
        self.simtui.select(run_filter=text, runs_by=by)

    def action_order(self, step: int) -> None:
        """Sorts by the next column."""
        titles = [column.title for column in self._sheet.columns]
        self.simtui.select(runs_order=self.simtui.selection.runs_order.stepped(titles, step))

    def action_reverse(self) -> None:
        """Sorts the other way round."""
        self.simtui.select(runs_order=self.simtui.selection.runs_order.reversed())

    def action_average(self) -> None:
        """Means over other groups, or the single runs."""
        by, run_id = after(RUNS_BY, self.simtui.selection.runs_by), self.simtui.shown_run_id()
        self._group = None
        self.simtui.select(runs_by=by)
        own = (key for key, group in self._groups.items() if any(run.run_id == run_id for run in group.runs))
        self._group = next(own, None)
        self.show()

    def action_mark(self) -> None:
        """Marks the run under the cursor, or unmarks it, and goes on; in a group, all its runs."""
        run_ids, marked = self._under_cursor(), self.simtui.selection.marked
        self.simtui.select(marked=marked - run_ids if run_ids <= marked else marked | run_ids)
        self.action_move("down")

    def action_unmark(self) -> None:
        """No run is marked."""
        self.simtui.select(marked=frozenset())

    def on_grid_row_moved(self, message: Grid.RowMoved) -> None:
        """The mouse does what the keys do."""
        self._look_at(message.key)

    def on_grid_row_chosen(self) -> None:
        """A second click is Enter."""
        self.action_open_map()

    def on_grid_title_chosen(self, message: Grid.TitleChosen) -> None:
        """A click on a title sorts."""
        self.simtui.select(runs_order=self.simtui.selection.runs_order.chosen(message.title))

    def on_filter_line_typed(self, message: FilterLine.Typed) -> None:
        """What can be read filters at once; while it cannot, the last that could stays in force."""
        if self._all:
            self.simtui.select(run_filter=in_force(message.text, self.simtui.selection.run_filter, self._all.known))
        self._say(message.text)

    def on_filter_line_kept(self, message: FilterLine.Kept) -> None:
        """The filter stays, and the keys are those of the view again; what cannot be read waits to be mended."""
        if self._all and isinstance(read_filter(message.text, self._all.known), Problem):
            self._say(message.text, is_asked=True)
            return
        self._filter.close()
        self.show()

    def _look_at(self, key: str) -> None:
        """The run under the cursor is the one that all views show."""
        if self.simtui.selection.runs_by:
            self._group = key
            self._show_detail()
        else:
            self.simtui.select(run_id=key)

    def _make(self, known: AllRuns, snapshot: Snapshot) -> None:
        """The sheet and the summary, where what they are made of has changed; not when the cursor moves."""
        selection = self.simtui.selection
        n_notes = len(snapshot.progress.notes) if snapshot.progress else 0
        made_of = (known, n_notes, self.size.width, replace(selection, run_id=None))
        if made_of == self._made_of:
            return
        self._made_of = made_of
        whole = runs.summary(snapshot, all_known=known.known)
        # The table stays where it is when the filter makes the summary shorter.
        self.lines("summary").styles.min_height = len(wrapped(whole, self.size.width - 2, 3))
        if not selection.runs_by:
            self._groups, self._sheet = {}, known.sheet(selection)
            self._summary = runs.summary(snapshot, selection, known.known)
            return
        wanted = filter_of(known.known, selection)
        shown = [run for run in known.known.runs if wanted.holds(run)]
        groups = run_groups.groups_of(shown, known.known, selection)
        self._groups = {group.key: group for group in groups}
        self._sheet = run_groups.sheet(groups, known.known, selection)
        self._summary = run_groups.summary(shown, known.known, selection, wanted.text)

    def _cursor_key(self) -> str | None:
        """The row that the cursor stays on."""
        selection = self.simtui.selection
        if selection.runs_by:
            return self._group
        is_known = self._all is not None and self._grid.key in self._all.rows
        return selection.run_id or (self._grid.key if is_known else self.simtui.shown_run_id())

    def _follow_cursor(self) -> None:
        """Where the filter has taken the selected run away, the one under the cursor is selected, once it is kept."""
        key, selected = self._grid.key, self.simtui.shown_run_id()
        if self._all and key in self._all.rows and selected in self._all.rows and not self._filter.is_open:
            self.simtui.selection = replace(self.simtui.selection, run_id=key)

    def _open_group(self) -> None:
        group = self._groups.get(self._grid.key or "")
        if group is None:
            return
        selection = self.simtui.selection
        self._groups_before = (selection.run_filter, selection.runs_by)
        text = f"{selection.run_filter} {group.words}".strip()
        self.simtui.select(run_filter=text, runs_by="", run_id=group.runs[0].run_id)

    def _under_cursor(self) -> frozenset[str]:
        """The runs that the row under the cursor stands for; none of a damaged one, which has nothing to show."""
        snapshot, key = self.simtui.snapshot, self._grid.key
        if self.simtui.selection.runs_by:
            group = self._groups.get(key or "")
            return frozenset(run.run_id for run in group.runs) if group else frozenset()
        return frozenset([key]) if key and snapshot and snapshot.record(key) else frozenset()

    def _say(self, text: str, *, is_asked: bool = False) -> None:
        """What is wrong with the filter, or else how many runs it leaves."""
        if self._all is None:
            return
        found = read_filter(text, self._all.known)
        if isinstance(found, Problem):
            self._filter.say(found.says, DIM if found.is_unfinished and not is_asked else WARN)
        else:
            n = sum(map(found.holds, self._all.known.runs))
            self._filter.say(f"{n} of {len(self._all.known.runs)} · {_KEYS}" if found.tests else _KEYS, DIM)

    def _show_detail(self) -> None:
        lines = self._detail()
        self.lines("detail").styles.height = max(len(lines), 3)
        self.lines("detail").show(lines)

    def _detail(self) -> tuple[Line, ...]:
        snapshot, by, width = self.simtui.snapshot, self.simtui.selection.runs_by, self.size.width - 2
        assert snapshot is not None and self._all is not None
        if by:
            return run_groups.detail(self._groups.get(self._grid.key or ""), self._all.known, by, width)
        return runs.detail(snapshot, self._grid.key, width)

    @property
    def _grid(self) -> Grid:
        return self.query_one(Grid)

    @property
    def _filter(self) -> FilterLine:
        return self.query_one(FilterLine)
