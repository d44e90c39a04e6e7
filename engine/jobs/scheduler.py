"""Runs a study to its end: queues its runs, has an executor place them, and says how it ended.

`python -m engine.jobs.scheduler STUDY`. Needs no torch: what loads models dies with its worker, not with this process.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from engine.errors import LockedError, SimtuiError
from engine.files import sweep_temporary
from engine.jobs.executors.executor import Executor, Queue
from engine.jobs.executors.table import executor_of
from engine.jobs.plan import PLAN_FILE
from engine.jobs.stage import Failure, Stage, Throttled, read_stage
from engine.lock import locked
from engine.runs.record import RunRecord, State, write_record
from engine.runs.study_folder import StudyFolder
from engine.study import run_specs
from engine.study_changes import refuse_other_spec

_N_WRITERS = 16
_log = logging.getLogger("simtui.scheduler")


class Scheduler:
    """One study from start to end. The caller holds the study's lock."""

    def __init__(self, folder: StudyFolder, executor: Executor) -> None:
        self._folder, self._executor = folder, executor
        self._stage = Throttled(folder.stage_path)

    def run(self) -> int:
        """Runs the study to its end; returns the exit code."""
        queue = queue_runs(self._folder)
        # The first word: nothing that stops a study at once can come any more.
        self._stage.write(Stage(""), is_last=True)
        (self._folder.path / PLAN_FILE).unlink(missing_ok=True)
        try:
            self._executor.begin(queue)
            while not self._is_to_end_now() and self._executor.step():
                time.sleep(self._executor.poll_s)
        finally:
            self._executor.end()
            sweep_temporary(self._folder.path)  # of jobs that were killed
        stage = read_stage(self._folder.stage_path)
        if stage and stage.failure:
            return stage.failure.exit_code
        self._stage.write(Stage("finished"), is_last=True)
        return int(any(record.state is State.FAILED for record in self._folder.listing().records))

    def _is_to_end_now(self) -> bool:
        try:
            return self._folder.stop_path.read_text().startswith("now")
        except OSError:
            return False


def queue_runs(folder: StudyFolder) -> Queue:
    """Every run of the study gets its folder; what was stopped, interrupted or has failed is queued again.

    Raises:
        StudyError: a run's folder holds other settings than its name says.
    """
    listing = folder.listing()
    records = {record.run_id: record for record in listing.records}
    damaged = {each.run_id: each for each in listing.damaged}
    waiting: dict[str, int] = {}
    held: list[str] = []
    changed: list[RunRecord] = []
    for spec in run_specs(folder.study):
        if spec.run_id in damaged:
            _log.error("%s", damaged[spec.run_id].error)  # named by `status` and `verify`; the other runs go on
            continue
        record = records.get(spec.run_id)
        if record and record.state is State.DONE and set(map(str, spec.checkpoints)) <= set(record.checkpoints):
            _tidy(folder, spec.run_id)
            continue
        if record:
            refuse_other_spec(record.spec, spec)
        if record and record.state is State.RUNNING:
            held.append(spec.run_id)  # by a process of a scheduler that has died, here or on another machine
            continue
        queued = (record or RunRecord(spec.run_id, spec)).with_(state=State.QUEUED, reason="", spec=spec, attempts=0)
        if queued != record:
            changed.append(queued)
        waiting[spec.run_id] = queued.epochs_done
    with ThreadPoolExecutor(_N_WRITERS) as pool:  # each waits for the disk: together they do so a tenth of the time
        for _ in pool.map(lambda each: write_record(folder.run_path(each.run_id), each), changed):
            pass
    return Queue(waiting, held)


def _tidy(folder: StudyFolder, run_id: str) -> None:
    """What a process that died in the moment after its run was done has left."""
    shutil.rmtree(folder.run_path(run_id) / "checkpoints" / "last", ignore_errors=True)
    lock_path = folder.run_lock_path(run_id)
    if lock_path.exists():
        with contextlib.suppress(LockedError), locked(lock_path):
            pass


def main(arguments: list[str]) -> int:
    """Runs the study whose folder is given; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    folder = StudyFolder(Path(arguments[0]))

    def terminate(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with locked(folder.lock_path):
            sweep_temporary(folder.path)
            return Scheduler(folder, executor_of(folder)).run()
    except SimtuiError as error:
        _log.error("%s", error)
        if not isinstance(error, LockedError):
            Throttled(folder.stage_path).write(Stage("failed", failure=Failure.of(error)), is_last=True)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
