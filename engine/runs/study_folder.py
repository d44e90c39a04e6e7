"""Owns the layout of a study folder: where each file lies, which runs there are and in what state; computes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engine.errors import StudyError
from engine.lock import Holder, holder_of
from engine.runs.catalog import Catalog, DamagedRun, wrong_folder
from engine.runs.record import RUN_FILE, RunRecord, State, read_record
from engine.runs.results import Results, read_results
from engine.study import Study, load_study


@dataclass(frozen=True)
class Listing:
    """The runs of a study as they stood at one moment, and the folders that could not be read."""

    records: tuple[RunRecord, ...]
    damaged: tuple[DamagedRun, ...]


class StudyFolder:
    """One study on disk, for reading; nothing here writes but the catalog.

    Raises:
        StudyError: the folder is not a study.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._catalog = Catalog(path)
        self._listed: tuple[object, Listing] | None = None
        if not self.study_file_path.is_file():
            raise StudyError(
                str(path), "not a study folder (no study.toml in it)", "give the folder that `simtui run` made"
            )

    @property
    def study_file_path(self) -> Path:
        """The frozen request."""
        return self.path / "study.toml"

    @property
    def runs_path(self) -> Path:
        """One folder a run."""
        return self.path / "runs"

    @property
    def activations_path(self) -> Path:
        """One immutable file for each (weights, probe)."""
        return self.path / "activations"

    @property
    def probes_path(self) -> Path:
        """Manifests and decoded pixels."""
        return self.path / "probes"

    @property
    def log_path(self) -> Path:
        """What the worker says: unexpected failures with their traceback."""
        return self.path / "log.txt"

    @property
    def lock_path(self) -> Path:
        """Held by the one process that runs the study."""
        return self.path / "study.lock"

    @property
    def stop_path(self) -> Path:
        """Its presence asks the running study to stop: at the next epoch, or at once where it says "now"."""
        return self.path / "stop"

    @property
    def stage_path(self) -> Path:
        """What the study does before and between runs, for progress bars."""
        return self.path / "stage.json"

    @cached_property
    def study(self) -> Study:
        """The frozen request."""
        return load_study(self.study_file_path)

    def run_path(self, run_id: str) -> Path:
        """The folder of a run."""
        return self.runs_path / run_id

    def run_lock_path(self, run_id: str) -> Path:
        """Held by the process that works on a run."""
        return self.run_path(run_id) / "run.lock"

    def running_by(self) -> Holder | None:
        """The process that runs the study now, if any."""
        return holder_of(self.lock_path)

    def listing(self) -> Listing:
        """All runs, in the order of their folder names; a run that nobody runs any more shows as interrupted.

        What has not changed since the last call, or since the catalog was written, is not read again.
        """
        entries = self._catalog.entries()
        if self._listed is not None and self._listed[0] is entries:
            return self._listed[1]
        found = [entry for _, entry in entries.values()]
        listing = Listing(
            tuple(self._seen(each) for each in found if isinstance(each, RunRecord)),
            tuple(each for each in found if isinstance(each, DamagedRun)),
        )
        # Whoever works on a run may die without a change of its record.
        is_lasting = not any(isinstance(each, RunRecord) and each.state is State.RUNNING for each in found)
        self._listed = (entries, listing) if is_lasting else None
        return listing

    def record(self, run_id: str) -> RunRecord:
        """One run's record as it stands.

        Raises:
            StudyError: there is no such run.
            DamagedError: its record is damaged.
        """
        path = self.run_path(run_id)
        if not (path / RUN_FILE).exists():
            raise StudyError(run_id, "no such run in this study", "see the names with `simtui export STUDY runs`")
        record = read_record(path)
        if record.run_id != run_id:
            raise wrong_folder(path, record)
        return self._seen(record)

    def results(self, run_id: str) -> Results:
        """One run's results.

        Raises:
            DamagedError: missing or damaged.
        """
        return read_results(self.run_path(run_id))

    def _seen(self, record: RunRecord) -> RunRecord:
        if record.state is State.RUNNING and holder_of(self.run_lock_path(record.run_id)) is None:
            return record.with_(state=State.INTERRUPTED, reason=record.reason or "the process that ran it has ended")
        return record
