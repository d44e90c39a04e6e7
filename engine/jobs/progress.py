"""How far a study is and how long it will take, from the files in its folder; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.jobs.plan import notes_of
from engine.jobs.stage import PROGRESS_FILE, Failure, RunProgress, read_run_progress, read_stage
from engine.runs.record import RunRecord, State
from engine.runs.study_folder import Listing, StudyFolder


@dataclass(frozen=True)
class StudyProgress:
    """A study at one moment.

    `time_left_s` is None until an epoch has been measured, and when nothing runs. `notes` are what there is to know of
    its images.
    """

    stage: str
    stage_done: int
    stage_total: int
    n_runs: int
    n_done: int
    n_failed: int
    epochs_done: int
    epochs_total: int
    time_left_s: float | None
    is_running: bool
    runs: Mapping[str, RunProgress]
    records: tuple[RunRecord, ...]
    failure: Failure | None
    notes: tuple[str, ...] = ()


def study_progress(folder: StudyFolder, listing: Listing | None = None) -> StudyProgress:
    """Reads the hints of every run that is going on, and the records where the caller has not read them yet."""
    records = (listing or folder.listing()).records
    stage = read_stage(folder.stage_path)
    is_running = folder.running_by() is not None
    active = [record for record in records if record.state is State.RUNNING]
    hints = {each.run_id: read_run_progress(folder.run_path(each.run_id) / PROGRESS_FILE) for each in active}
    runs = {run_id: hint for run_id, hint in hints.items() if hint is not None}
    return StudyProgress(
        stage=stage.name if stage else "",
        stage_done=stage.done if stage else 0,
        stage_total=stage.total if stage else 0,
        n_runs=len(records),
        n_done=sum(record.state is State.DONE for record in records),
        n_failed=sum(record.state is State.FAILED for record in records),
        epochs_done=sum(max(record.epochs_done, 0) for record in records),
        epochs_total=sum(record.spec.epochs for record in records),
        time_left_s=_time_left_s(records, runs, stage.n_workers if stage else 1) if is_running else None,
        is_running=is_running,
        runs=runs,
        records=records,
        failure=stage.failure if stage else None,
        notes=notes_of(folder.path),
    )


def _time_left_s(records: Sequence[RunRecord], runs: Mapping[str, RunProgress], n_workers: int) -> float | None:
    """The epochs that are left, each as long as the mean epoch of its method (else of all), over the workers."""
    measured: dict[str, list[float]] = {}
    for record in records:
        measured.setdefault(record.spec.method, []).extend(record.epoch_seconds)
    everything = [seconds for method in measured.values() for seconds in method]
    if not everything:
        return None
    overall = sum(everything) / len(everything)
    mean_s = {method: sum(times) / len(times) if times else overall for method, times in measured.items()}
    left_s = 0.0
    for record in records:
        if record.state in (State.DONE, State.FAILED):
            continue
        epochs: float = record.spec.epochs - max(record.epochs_done, 0)
        hint = runs.get(record.run_id)
        if hint and hint.steps and hint.epoch == record.epochs_done + 1:
            epochs -= hint.step / hint.steps
        left_s += max(epochs, 0.0) * mean_s[record.spec.method]
    return left_s / max(1, n_workers)
