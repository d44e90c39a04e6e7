"""Runs a study on this machine: one worker process a device, each taking many runs, restarted where it dies."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import Counter

from engine.jobs.executors.executor import (
    EXIT_PAUSED,
    MAX_DEATHS_OF_A_RUN,
    MAX_DEATHS_WITHOUT_RUN,
    Queue,
    Room,
    cause_of,
)
from engine.jobs.plan import PLAN_FILE, read_plan
from engine.jobs.stage import Failure, Stage, Throttled, read_stage
from engine.runs.record import State, write_record
from engine.runs.study_folder import StudyFolder

_log = logging.getLogger("simtui.scheduler")


class LocalExecutor:
    """Workers, by their slots; those that found the disk full wait."""

    poll_s = 0.2

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._deaths: Counter[str] = Counter()
        self._paused: set[int] = set()
        self._room = Room(folder)
        self._n_waiting = 0
        self._is_full = False
        self._stage = Throttled(folder.stage_path)

    def begin(self, queue: Queue) -> None:
        """The first worker prepares, then takes runs itself."""
        self._n_waiting = len(queue.waiting)
        self._start(0, prepares=True)

    def step(self) -> bool:
        """Starts what can start, buries what has died."""
        self._start_others()
        self._start_paused()
        for slot, process in list(self._workers.items()):
            if process.poll() is not None:
                del self._workers[slot]
                self._bury(slot, process)
        return bool(self._workers or self._paused)

    def end(self) -> None:
        """Workers that are told to end leave their runs as stopped."""
        for process in self._workers.values():
            process.terminate()
        for process in self._workers.values():
            process.wait()

    def _start_paused(self) -> None:
        """Goes on where a worker found the disk full, as soon as there is the room that it needs."""
        if not self._paused:
            return
        if self._folder.stop_path.exists():
            self._paused.clear()
            return
        if not self._room.is_there():
            return
        for slot in sorted(self._paused):
            self._start(slot, prepares=not (self._folder.path / PLAN_FILE).exists())
        self._paused.clear()
        self._stage.write(Stage("running", n_workers=len(self._workers)), is_last=True)

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
        # The first worker takes one of the waiting runs itself.
        for slot in range(1, min(read_plan(plan_path).n_workers, self._n_waiting)):
            self._start(slot)

    def _bury(self, slot: int, process: subprocess.Popen[bytes]) -> None:
        """What a worker's end means: nothing where it ended by itself, else a run that is tried once more."""
        if process.returncode == 0:
            return
        stage = read_stage(self._folder.stage_path)
        if process.returncode == EXIT_PAUSED:
            self._room.lacks(stage.need_bytes if stage else 0)
            self._paused.add(slot)
            return
        if stage and stage.failure:
            return
        cause = cause_of(process.returncode)
        held = [record for record in self._folder.listing().records if record.state is State.INTERRUPTED]
        for record in held:
            cause = cause_of(process.returncode, record.reason)
            self._deaths[record.run_id] += 1
            if self._deaths[record.run_id] >= MAX_DEATHS_OF_A_RUN:
                reason = f"its process {cause}, {self._deaths[record.run_id]} times; see {self._folder.log_path}"
                write_record(self._folder.run_path(record.run_id), record.with_(state=State.FAILED, reason=reason))
            _log.warning("the worker of %s %s", record.run_id, cause)
        if not held:
            self._deaths[""] += 1
            if self._deaths[""] >= MAX_DEATHS_WITHOUT_RUN:
                failure = Failure(
                    str(self._folder.path), f"the worker {cause} before any run", f"see {self._folder.log_path}", 4
                )
                self._stage.write(Stage("failed", failure=failure), is_last=True)
                return
        self._start(slot, prepares=not (self._folder.path / PLAN_FILE).exists())
