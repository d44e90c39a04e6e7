"""Asks for the uncertainty of maps, one after the other on a thread of their own; shows nothing itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from textual.screen import Screen

from engine.errors import SimtuiError
from engine.jobs.uncertainty import cell_uncertainty, known_uncertainty
from engine.runs.record import RunRecord
from engine.runs.results import SimilarityKey
from engine.runs.study_folder import StudyFolder
from engine.runs.uncertainty import CellUncertainty
from simtui.views.uncertainty import COMPUTING, UNKNOWN

Found = CellUncertainty | SimtuiError


@dataclass(frozen=True)
class UncertaintyQuestion:
    """How sure the cells of a run's map at an epoch are; `files` are the activation files that the run names."""

    study_path: Path
    run_id: str
    epoch: int
    key: SimilarityKey
    files: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, study_path: Path, record: RunRecord, epoch: int, key: SimilarityKey) -> UncertaintyQuestion:
        """The question of a map in sight."""
        return cls(study_path, record.run_id, epoch, key, tuple(sorted(record.activations.items())))


class MapUncertainty:
    """What is known of the maps that were looked at. All of it runs on the app's thread but `_compute` and `_look`.

    Args:
        screen: whose workers and thread it uses.
        on_found: called when something new is known.
    """

    def __init__(self, screen: Screen[None], on_found: Callable[[], object]) -> None:
        self._screen, self._on_found = screen, on_found
        self._found: dict[UncertaintyQuestion, Found] = {}
        self._looked_for: set[UncertaintyQuestion] = set()
        self._waiting: list[tuple[UncertaintyQuestion, RunRecord]] = []  # the first of them is being computed
        self._stop = threading.Event()
        self.is_shown = False

    def toggle(self, question: UncertaintyQuestion, record: RunRecord) -> None:
        """Shows it from now on, and computes it for the map in sight; hides what is there. A failure is tried again."""
        if self.is_shown and (question in self._found or self._is_waiting(question)):
            self.is_shown = False
            return
        self.is_shown = True
        if isinstance(self._found.get(question), SimtuiError):
            del self._found[question]
        if question not in self._found and not self._is_waiting(question):
            self._waiting.append((question, record))
            if len(self._waiting) == 1:
                self._start()

    def of(self, question: UncertaintyQuestion, record: RunRecord) -> Found | str | None:
        """What there is to show of a map: the answer, the error in its place, or words while there is neither."""
        if not self.is_shown:
            return None
        if question in self._found:
            return self._found[question]
        if self._is_waiting(question):
            return COMPUTING
        if question not in self._looked_for:
            self._looked_for.add(question)
            self._screen.run_worker(partial(self._look, question, record), thread=True)
        return UNKNOWN

    def close(self) -> None:
        """Nobody waits any more: ends the child process."""
        self._stop.set()

    def _is_waiting(self, question: UncertaintyQuestion) -> bool:
        return any(each == question for each, _ in self._waiting)

    def _start(self) -> None:
        self._screen.run_worker(partial(self._compute, *self._waiting[0]), thread=True)

    def _compute(self, question: UncertaintyQuestion, record: RunRecord) -> None:
        """In a child process, which loads torch: it takes seconds to minutes."""
        found: Found
        try:
            folder = StudyFolder(question.study_path)
            found = cell_uncertainty(folder, record, question.key, question.epoch, stop=self._stop)
        except SimtuiError as error:
            found = error
        if not self._stop.is_set():
            self._screen.app.call_from_thread(self._take_computed, question, found)

    def _look(self, question: UncertaintyQuestion, record: RunRecord) -> None:
        """In the user's cache."""
        try:
            found = known_uncertainty(StudyFolder(question.study_path), record, question.key, question.epoch)
        except SimtuiError:
            return  # whoever asks for it is told
        if found is not None and not self._stop.is_set():
            self._screen.app.call_from_thread(self._take, question, found)

    def _take_computed(self, question: UncertaintyQuestion, found: Found) -> None:
        del self._waiting[0]
        if self._waiting:
            self._start()
        self._take(question, found)

    def _take(self, question: UncertaintyQuestion, found: Found) -> None:
        self._found[question] = found
        self._on_found()
