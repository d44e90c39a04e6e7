"""How far a study is and how long it will take, from the files in its folder; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from engine.jobs.plan import notes_of
from engine.jobs.stage import PROGRESS_FILE, Failure, RunProgress, Stage, read_run_progress, read_stage
from engine.lock import Holder
from engine.runs.record import RunRecord, State
from engine.runs.study_folder import Listing, StudyFolder


class Condition(StrEnum):
    """Where a study is in its life; a study is `interrupted` where its process has ended without saying so."""

    NEW = "not started"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    FINISHED = "finished"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True)
class StudyProgress:
    """A study at one moment.

    `time_left_s` is None until an epoch has been measured, and when nothing runs; `run_left_s` says the same of each
    run that goes on. `notes` are what there is to know of its images. `holder` is the process that runs it,
    `started_s` when that began (seconds since 1970, by the clock of the file system).
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
    condition: Condition = Condition.NEW
    holder: Holder | None = None
    started_s: float | None = None
    n_workers: int = 1
    run_left_s: Mapping[str, float] = field(default_factory=dict)


def study_progress(folder: StudyFolder, listing: Listing | None = None) -> StudyProgress:
    """Reads the hints of every run that is going on, and the records where the caller has not read them yet."""
    records = (listing or folder.listing()).records
    stage = read_stage(folder.stage_path)
    holder = folder.running_by()
    is_running = holder is not None
    active = [record for record in records if record.state is State.RUNNING]
    hints = {each.run_id: read_run_progress(folder.run_path(each.run_id) / PROGRESS_FILE) for each in active}
    runs = {run_id: hint for run_id, hint in hints.items() if hint is not None}
    n_workers = max(1, stage.n_workers) if stage else 1
    left_s = _left_s(records, runs)
    return StudyProgress(
        stage=stage.name if stage else "",
        stage_done=stage.done if stage else 0,
        stage_total=stage.total if stage else 0,
        n_runs=len(records),
        n_done=sum(record.state is State.DONE for record in records),
        n_failed=sum(record.state is State.FAILED for record in records),
        epochs_done=sum(record.n_epochs_done for record in records),
        epochs_total=sum(record.n_epochs_all for record in records),
        time_left_s=sum(left_s.values()) / n_workers if is_running and left_s is not None else None,
        is_running=is_running,
        runs=runs,
        records=records,
        failure=stage.failure if stage else None,
        notes=notes_of(folder.path),
        condition=_condition(folder, holder, stage, records),
        holder=holder,
        started_s=_started_s(folder) if holder else None,
        n_workers=n_workers,
        run_left_s={run_id: left_s[run_id] for run_id in runs} if left_s is not None else {},
    )


def _condition(
    folder: StudyFolder, holder: Holder | None, stage: Stage | None, records: Sequence[RunRecord]
) -> Condition:
    if holder is not None:
        if folder.stop_path.exists():
            return Condition.STOPPING
        if stage is None or not stage.name:
            return Condition.STARTING
        return Condition.PAUSED if stage.need_bytes or stage.name.startswith("paused") else Condition.RUNNING
    if stage is not None and stage.failure is not None:
        return Condition.FAILED
    states = {record.state for record in records}
    if records and states <= {State.DONE, State.FAILED}:
        return Condition.FINISHED
    has_ended_well = stage is not None and stage.name == "finished"
    if State.INTERRUPTED in states or (stage is not None and not has_ended_well):
        return Condition.INTERRUPTED
    return Condition.STOPPED if has_ended_well or State.STOPPED in states else Condition.NEW


def _started_s(folder: StudyFolder) -> float | None:
    """The lock appears with its holder inside, and nothing is put there afterwards."""
    try:
        return folder.lock_path.stat().st_mtime
    except OSError:
        return None


def _left_s(records: Sequence[RunRecord], runs: Mapping[str, RunProgress]) -> dict[str, float] | None:
    """For each run that is to go on: its epochs that are left, as long as the mean epoch of its method, else of all.

    None where no epoch has been measured.
    """
    measured: dict[str, list[float]] = {}
    for record in records:
        measured.setdefault(record.spec.method, []).extend(record.epoch_seconds)
    everything = [seconds for method in measured.values() for seconds in method]
    if not everything:
        return None
    overall = sum(everything) / len(everything)
    mean_s = {method: sum(times) / len(times) if times else overall for method, times in measured.items()}
    return {
        record.run_id: _epochs_left(record, runs.get(record.run_id)) * mean_s[record.spec.method]
        for record in records
        if record.state not in (State.DONE, State.FAILED)
    }


def _epochs_left(record: RunRecord, hint: RunProgress | None) -> float:
    epochs: float = record.n_epochs_all - record.n_epochs_done
    if hint and hint.steps and (record.is_imported or hint.epoch == record.epochs_done + 1):
        epochs -= hint.step / hint.steps
    return max(epochs, 0.0)
