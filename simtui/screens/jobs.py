"""The jobs view: what a study does now, run by run; stops it and makes it go on."""

from __future__ import annotations

import time
from datetime import datetime
from functools import partial
from pathlib import Path

from textual.app import ComposeResult

from engine.analysis.runs import runs_table
from engine.analysis.table import Table
from engine.jobs.details import JobDetails
from engine.jobs.launch import detach_study, stop_study
from engine.jobs.progress import Condition, StudyProgress, study_progress
from engine.runs.study_folder import StudyFolder
from simtui.actions import JOBS
from simtui.reader import Snapshot
from simtui.safe_text import safe
from simtui.screens.confirm import ConfirmScreen
from simtui.screens.over import lay_over
from simtui.screens.view import ViewScreen, bindings_of
from simtui.views import job_detail, job_summary, jobs
from simtui.widgets.grid import Grid
from simtui.widgets.lines import Lines

_TALL = 30
_ROWS_A_SECOND = 5  # about 300 bytes each, over a connection that may be slow


class JobsScreen(ViewScreen):
    """Bars, the table of runs with those that go on first, and the log of the one under the cursor."""

    VIEW = JOBS
    BINDINGS = bindings_of(JOBS)
    _details: JobDetails | None = None
    _path: Path | None = None
    _drawn_s = 0.0

    def compose_data(self) -> ComposeResult:
        """The head, the table, the log."""
        yield Lines(id="head")
        yield Grid(id="grid")
        yield Lines(id="log")

    def show_data(self) -> str:
        """Everything; the last details stay until the next ones are read."""
        snapshot = self.simtui.snapshot
        assert snapshot is not None and snapshot.progress is not None
        is_due = self._take_details(snapshot)
        width, height = self.size
        is_plain = self.simtui.is_colorless
        now, n_lines = datetime.now(), 3 if height < _TALL else 6
        head = job_detail.head(snapshot, self._details, now.timestamp(), width, n_lines, is_plain)
        self.lines("head").styles.height = len(head)
        self.lines("head").show(head)
        job = self.simtui.selection.job
        if is_due or self._grid.key != job:
            self._grid.show(jobs.sheet(snapshot, self._details, width - 3, is_plain), job)
        log_height = min(max(height // 3, 7), 14)
        self.lines("log").styles.height = log_height
        key = self._grid.key or jobs.STUDY
        self.lines("log").show(job_detail.detail(snapshot, self._details, key, width - 2, log_height, is_plain))
        if key != job:  # its run has gone: what is read is that of the row under the cursor
            self.call_later(self.simtui.select, job=key)
        return job_summary.summary(snapshot, now, job_summary.Keys(self._key("go_on"), self._key("stop_now")))

    def _take_details(self, snapshot: Snapshot) -> bool:
        """Takes what the reader has found; says whether the table is due, which is less often where many runs move."""
        is_first = snapshot.path != self._path or self._details is None
        if is_first:
            self._path, self._details = snapshot.path, None
        answer = self.simtui.answer(JOBS)
        if answer is not None and isinstance(answer.value, JobDetails):
            self._details = answer.value
        n_moving = len(snapshot.progress.runs) if snapshot.progress and snapshot.progress.is_running else 0
        is_due = is_first or time.monotonic() - self._drawn_s >= n_moving / _ROWS_A_SECOND
        if is_due:
            self._drawn_s = time.monotonic()
        return is_due

    def table(self) -> Table | None:
        """All runs and where they stand."""
        snapshot = self.simtui.snapshot
        return runs_table(snapshot.records) if snapshot and snapshot.records else None

    def action_move(self, where: str) -> None:
        """Moves the cursor."""
        if self._grid.move(where) and self._grid.key is not None:
            self._look_at(self._grid.key)

    def action_open_map(self) -> None:
        """The map of the run under the cursor."""
        if self._grid.key:
            self.simtui.select(run_id=self._grid.key)
            self.simtui.action_view("map")
        else:
            self.simtui.notify("choose a run: this row is the whole study", markup=False)

    def on_grid_row_moved(self, message: Grid.RowMoved) -> None:
        """The mouse does what the keys do."""
        self._look_at(message.key)

    def _look_at(self, key: str) -> None:
        """The log follows the cursor; a run under it is the one that all views show."""
        changes = {"run_id": key} if key else {}
        self.simtui.select(job=key, **changes)

    def on_grid_row_chosen(self) -> None:
        """A second click is Enter."""
        self.action_open_map()

    def action_stop(self) -> None:
        """Asks, then stops the study at the next epoch of each run."""
        cost = "Each run finishes the epoch that it is in; nothing is lost, and the study can go on later."
        self._ask("Stop at the next epoch?", cost, now=False)

    def action_stop_now(self) -> None:
        """Asks, then stops the study at once."""
        progress = self._progress
        if progress is not None:
            self._ask("Stop at once?", job_detail.lost_by_stopping(progress), now=True)

    def action_go_on(self) -> None:
        """Starts or continues the study, away from this terminal."""
        snapshot, progress = self.simtui.snapshot, self._progress
        if snapshot is None or progress is None:
            return
        if progress.condition is Condition.STOPPING:
            self._tell("it is stopping: continue it when it has stopped")
        elif progress.is_running:
            self._tell(f"it is running already: {safe(progress.holder)}")
        elif progress.condition is Condition.FINISHED and not progress.n_failed:
            self._tell("every run is done: nothing is left to do")
        else:
            self._tell("starting …")
            self.simtui.in_background(partial(_start, snapshot.path))

    def _ask(self, question: str, cost: str, *, now: bool) -> None:
        snapshot, progress = self.simtui.snapshot, self._progress
        if snapshot is None or progress is None:
            return
        if not progress.is_running:
            self._tell("it is not running")
            return
        if progress.condition is Condition.STOPPING and not now:
            self._tell(f"it is stopping at the next epoch already; {self._key('stop_now')} stops it at once")
            return
        path, where = snapshot.path, f"It runs as {safe(progress.holder)}. "

        def answered(is_yes: bool | None) -> None:
            if is_yes:
                self.simtui.in_background(partial(_stop, path, now))

        key = self._key("stop_now" if now else "stop")
        lay_over(self, ConfirmScreen(question, where + cost, key), answered)

    def _tell(self, words: str) -> None:
        self.simtui.notify(words, markup=False)

    def _key(self, name: str) -> str:
        """How the key of one of this view's actions is written."""
        return next(action.shown for action in self.simtui.actions if action.name == name)

    @property
    def _progress(self) -> StudyProgress | None:
        return self.simtui.snapshot.progress if self.simtui.snapshot else None

    @property
    def _grid(self) -> Grid:
        return self.query_one(Grid)


def _start(path: Path) -> str:
    """Waits until the study has said something.

    Raises:
        SimtuiError: it cannot be started, or has failed at once.
    """
    detach_study(StudyFolder(path))
    if failure := study_progress(StudyFolder(path)).failure:
        raise failure.as_error()
    return "it has started, and goes on when simtui is left"


def _stop(path: Path, now: bool) -> str:
    when = "at once" if now else "at the next epoch of each run"
    return f"it stops {when}" if stop_study(StudyFolder(path), now=now).was_running else "it was not running any more"
