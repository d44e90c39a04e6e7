"""Runs a study: one worker process a device, restarted where one dies, until every run is done, failed or stopped.

`python -m engine.jobs.scheduler STUDY`. Needs no torch: what loads models dies with its worker, not with this process.
"""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from engine.errors import DamagedError, LockedError, SimtuiError
from engine.files import sweep_temporary
from engine.jobs.plan import PLAN_FILE, read_plan
from engine.jobs.stage import Failure, Stage, Throttled, read_stage
from engine.lock import locked
from engine.runs.record import RUN_FILE, RunRecord, State, read_record, write_record
from engine.runs.study_folder import StudyFolder
from engine.study import run_specs
from engine.study_changes import refuse_other_spec

EXIT_PAUSED = 75  # of a worker: no space is left on the disk
_POLL_S = 0.2
_PAUSE_POLL_S = 5.0
_MIN_ROOM_BYTES = 64 << 20
_MAX_DEATHS_OF_A_RUN = 2
_MAX_DEATHS_WITHOUT_RUN = 2
_log = logging.getLogger("simtui.scheduler")


class Scheduler:
    """The processes of one study. The caller holds the study's lock."""

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._deaths: Counter[str] = Counter()
        self._paused: set[int] = set()
        self._need_bytes = 0
        self._looks_again_s = 0.0
        self._is_full = False
        self._stage = Throttled(folder.stage_path)

    def run(self) -> int:
        """Runs the study to its end; returns the exit code."""
        queue_runs(self._folder)
        # The first word: nothing that stops a study at once can come any more.
        self._stage.write(Stage(""), is_last=True)
        (self._folder.path / PLAN_FILE).unlink(missing_ok=True)
        self._start(0, prepares=True)
        try:
            while (self._workers or self._paused) and not self._is_to_end_now():
                self._start_others()
                self._start_paused()
                time.sleep(_POLL_S)
                for slot, process in list(self._workers.items()):
                    if process.poll() is not None:
                        del self._workers[slot]
                        self._bury(slot, process)
        finally:
            for process in self._workers.values():
                process.terminate()
            for process in self._workers.values():
                process.wait()
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

    def _start_paused(self) -> None:
        """Goes on where a worker found the disk full, as soon as there is the room that it needs."""
        if not self._paused:
            return
        if self._folder.stop_path.exists():
            self._paused.clear()
            return
        if time.monotonic() < self._looks_again_s:
            return
        self._looks_again_s = time.monotonic() + _PAUSE_POLL_S
        if shutil.disk_usage(self._folder.path).free < self._need_bytes:
            return
        for slot in sorted(self._paused):
            self._start(slot, prepares=not (self._folder.path / PLAN_FILE).exists())
        self._paused.clear()
        self._stage.write(Stage("running", n_workers=len(self._workers)), is_last=True)

    def _pause(self, slot: int) -> None:
        stage = read_stage(self._folder.stage_path)
        self._need_bytes = max(stage.need_bytes if stage else 0, _MIN_ROOM_BYTES)
        self._paused.add(slot)
        self._looks_again_s = time.monotonic() + _PAUSE_POLL_S

    def _start(self, slot: int, *, prepares: bool = False) -> None:
        command = [sys.executable, "-m", "engine.jobs.worker", str(self._folder.path), "--slot", str(slot)]
        self._workers[slot] = subprocess.Popen(
            [*command, "--prepare"] if prepares else command, stdin=subprocess.DEVNULL
        )

    def _start_others(self) -> None:
        """The first worker prepares and says how many there can be; then the others start."""
        plan_path = self._folder.path / PLAN_FILE
        if self._is_full or not plan_path.exists():
            return
        self._is_full = True
        n_waiting = sum(record.state is State.QUEUED for record in self._folder.listing().records)
        # The first worker takes one of the waiting runs itself.
        for slot in range(1, min(read_plan(plan_path).n_workers, n_waiting)):
            self._start(slot)

    def _bury(self, slot: int, process: subprocess.Popen[bytes]) -> None:
        """What a worker's end means: nothing where it ended by itself, else a run that is tried once more."""
        if process.returncode == 0:
            return
        if process.returncode == EXIT_PAUSED:
            self._pause(slot)
            return
        stage = read_stage(self._folder.stage_path)
        if stage and stage.failure:
            return
        cause = _cause(process.returncode)
        held = [record for record in self._folder.listing().records if record.state is State.INTERRUPTED]
        for record in held:
            self._deaths[record.run_id] += 1
            if self._deaths[record.run_id] >= _MAX_DEATHS_OF_A_RUN:
                reason = f"its process {cause}, {self._deaths[record.run_id]} times; see {self._folder.log_path}"
                write_record(self._folder.run_path(record.run_id), record.with_(state=State.FAILED, reason=reason))
            _log.warning("the worker of %s %s", record.run_id, cause)
        if not held:
            self._deaths[""] += 1
            if self._deaths[""] >= _MAX_DEATHS_WITHOUT_RUN:
                failure = Failure(
                    str(self._folder.path), f"the worker {cause} before any run", f"see {self._folder.log_path}", 4
                )
                self._stage.write(Stage("failed", failure=failure), is_last=True)
                return
        self._start(slot, prepares=not (self._folder.path / PLAN_FILE).exists())


def queue_runs(folder: StudyFolder) -> None:
    """Every run of the study gets its folder; what was stopped, interrupted or has failed is queued again.

    Raises:
        StudyError: a run's folder holds other settings than its name says.
    """
    for spec in run_specs(folder.study):
        path = folder.run_path(spec.run_id)
        try:
            record = read_record(path) if (path / RUN_FILE).exists() else RunRecord(spec.run_id, spec)
        except DamagedError as error:
            _log.error("%s", error)  # named by `status` and `verify`; the other runs go on
            continue
        if record.state is State.DONE:
            shutil.rmtree(path / "checkpoints" / "last", ignore_errors=True)
        else:
            refuse_other_spec(record.spec, spec)
            write_record(path, record.with_(state=State.QUEUED, reason="", spec=spec, attempts=0))


def _cause(returncode: int) -> str:
    if returncode < 0:
        return f"was killed by {signal.Signals(-returncode).name}"
    return f"ended with code {returncode}"


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
            return Scheduler(folder).run()
    except SimtuiError as error:
        _log.error("%s", error)
        if not isinstance(error, LockedError):
            Throttled(folder.stage_path).write(Stage("failed", failure=Failure.of(error)), is_last=True)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
