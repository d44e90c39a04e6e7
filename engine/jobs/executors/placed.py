"""Runs a study on a cluster: one job a run, placed again where its node was lost; knows no engine by name.

Each job is one command that anybody may repeat: it claims its run, goes on from its last epoch, and does nothing where
the run is done. So what becomes of a run is read in its record, and an engine only has to start commands and to say
which of them have ended.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.errors import DamagedError, SimtuiError
from engine.jobs.executors.command import PREPARATION, Outcome
from engine.jobs.executors.executor import (
    EXIT_PAUSED,
    MAX_DEATHS_OF_A_RUN,
    MAX_DEATHS_WITHOUT_RUN,
    Queue,
    Room,
    cause_of,
)
from engine.jobs.plan import PLAN_FILE
from engine.jobs.stage import Failure, Stage, Throttled
from engine.lock import holder_of
from engine.runs.record import RunRecord, State, read_record, write_record
from engine.runs.study_folder import StudyFolder
from engine.study import RunSpec, run_specs

_RETRY_AFTER_S = 60.0
_HELD_POLL_S = 5.0
_MAX_FAILURES_IN_A_ROW = 8  # of different runs: then it is not the runs
_log = logging.getLogger("simtui.scheduler")


@dataclass(frozen=True)
class Ended:
    """A job that is no more. Without an outcome it was lost with its node, or was taken back before it began.

    Attributes:
        why: what the engine says of it.
        was_cancelled: somebody took it out of the engine's queue.
    """

    run_id: str
    outcome: Outcome | None
    why: str = ""
    was_cancelled: bool = False


class Engine(Protocol):
    """Starts commands on a cluster. A job is called by the run that it is for, or `PREPARATION`."""

    name: str
    poll_s: float

    def begin(self) -> None:
        """Connects; takes back what an earlier scheduler of this study left waiting.

        Raises:
            MachineError: its package is missing, or there is no cluster to be reached.
        """

    def room(self) -> int:
        """How many more jobs it takes now."""

    def n_running(self) -> int:
        """How many have begun, as of the last call of `ended`."""

    def submit(self, run_ids: Sequence[str]) -> Sequence[str]:
        """Starts these, in this order, when the cluster has the means; returns those that it took.

        Raises:
            MachineError: the cluster refuses what the study asks for.
        """

    def ended(self) -> Sequence[Ended]:
        """The jobs that have ended since the last call."""

    def withdraw(self) -> None:
        """Takes back the jobs that have not begun; the others end by themselves."""

    def end(self) -> None:
        """Ends every job at once, and waits until they have."""


class PlacedExecutor:
    """The runs of one study on an engine."""

    def __init__(
        self, folder: StudyFolder, engine: Engine, needs: Callable[[RunSpec], str | None] = lambda spec: None
    ) -> None:
        """`needs`: the run that must be done before this one, if any."""
        self._folder, self._engine = folder, engine
        self.poll_s = engine.poll_s
        self._needs = {spec.run_id: need for spec in run_specs(folder.study) if (need := needs(spec))}
        self._waiting: list[str] = []
        self._placed: set[str] = set()
        self._epochs: dict[str, int] = {}  # that each run had done when it was looked at last
        self._later: dict[str, float] = {}
        self._held: set[str] = set()
        self._lost: Counter[str] = Counter()
        self._deaths: Counter[str] = Counter()
        self._n_failures_in_a_row = 0
        self._room = Room(folder)
        self._is_paused = self._is_stopping = self._has_failed = False
        self._looks_at_held_s = 0.0
        self._stage = Throttled(folder.stage_path)
        self._said: Stage | None = None

    def begin(self, queue: Queue) -> None:
        """The preparation is a job of its own: what runs can use is found out where they will be."""
        self._engine.begin()
        self._waiting, self._held, self._epochs = list(queue.waiting), set(queue.held), dict(queue.waiting)
        self._say(Stage(f"waiting for {self._engine.name}"))
        self._place(PREPARATION)

    def step(self) -> bool:
        """Takes in what has ended, places what can be placed."""
        ended = self._engine.ended()
        if not self._is_stopping and self._folder.stop_path.exists():  # looked at last: what ends by it is not lost
            self._is_stopping, self._is_paused = True, False
            self._waiting.clear()
            self._later.clear()
            self._engine.withdraw()
        for each in ended:
            self._take_in(each)
        if self._has_failed:
            return False
        self._look_at_held()
        if not self._is_stopping:
            self._go_on()
        if self._is_prepared and not self._is_paused:
            self._say_running()
        return bool(self._placed or self._waiting or self._later or self._held)

    def end(self) -> None:
        """Ends every job; a run that one of them had goes on later."""
        self._engine.end()

    @property
    def _is_prepared(self) -> bool:
        return PREPARATION not in self._placed and (self._folder.path / PLAN_FILE).exists()

    def _go_on(self) -> None:
        if self._is_paused:
            if not self._room.is_there():
                return
            self._is_paused = False
        if PREPARATION in self._placed:
            return
        if not self._is_prepared:
            self._place(PREPARATION)
            return
        now_s = time.monotonic()
        due = [run_id for run_id, due_s in self._later.items() if due_s <= now_s]
        for run_id in due:
            del self._later[run_id]
        self._waiting += due
        ready = [run_id for run_id in self._waiting if run_id not in self._needs or self._has_what_it_needs(run_id)]
        chosen = ready[: max(0, self._engine.room())]
        if chosen:
            self._place(*chosen)

    def _place(self, *run_ids: str) -> None:
        self._placed.update(self._engine.submit(run_ids))
        self._waiting = [run_id for run_id in self._waiting if run_id not in self._placed]

    def _has_what_it_needs(self, run_id: str) -> bool:
        """A run whose need can never be met fails with that reason."""
        need = self._needs[run_id]
        if need in self._placed:  # its job still puts things away
            return False
        record = self._record(need)
        if record and record.state is State.DONE:
            return True
        if record is None or record.state is State.FAILED:
            self._waiting.remove(run_id)
            self._fail(run_id, f"it needs the run {need}, which {'has failed' if record else 'this study has not'}")
        return False

    def _take_in(self, ended: Ended) -> None:
        self._placed.discard(ended.run_id)
        outcome = ended.outcome
        if outcome and outcome.exit_code:
            _log.warning(
                "%s on %s %s\n%s", ended.run_id or "the preparation", outcome.host, cause_of(outcome.exit_code),
                outcome.tail,
            )  # fmt: skip
        if outcome and outcome.exit_code == EXIT_PAUSED:
            self._pause(ended.run_id, outcome)
        elif ended.run_id == PREPARATION:
            self._take_in_preparation(ended)
        else:
            self._take_in_run(ended)

    def _pause(self, run_id: str, outcome: Outcome) -> None:
        """The disk is full: what runs goes on as far as it comes, nothing is placed until there is room."""
        self._room.lacks(outcome.need_bytes)
        self._is_paused = not self._is_stopping
        if run_id != PREPARATION and not self._is_stopping:
            self._waiting.insert(0, run_id)
        problem = outcome.failure.problem if outcome.failure else "the disk is full"
        self._say(Stage(f"paused: {problem}", need_bytes=max(1, outcome.need_bytes)))

    def _take_in_preparation(self, ended: Ended) -> None:
        outcome = ended.outcome
        if self._is_stopping or (outcome and outcome.exit_code == 0):
            return
        if outcome and outcome.failure:
            self._give_up(outcome.failure)
            return
        counter, limit = (self._deaths, MAX_DEATHS_WITHOUT_RUN) if outcome else (self._lost, self._max_losses)
        counter[PREPARATION] += 1
        if ended.was_cancelled or counter[PREPARATION] >= limit:
            cause = cause_of(outcome.exit_code) if outcome else ended.why or "was lost with its node"
            self._give_up(
                Failure(
                    str(self._folder.path),
                    f"the job that prepares the study {cause}",
                    f"see {self._folder.log_path}",
                    4,
                )
            )

    def _take_in_run(self, ended: Ended) -> None:
        run_id, outcome = ended.run_id, ended.outcome
        record = self._record(run_id)
        if record is None or record.state in (State.DONE, State.FAILED):
            self._n_failures_in_a_row = 0
            return
        if record.epochs_done > self._epochs.get(run_id, -1):
            self._lost[run_id] = self._n_failures_in_a_row = 0
        self._epochs[run_id] = record.epochs_done
        if self._is_stopping:
            return
        if ended.was_cancelled:
            reason = f"was taken out of the queue of {self._engine.name}"
            self._write(record.with_(state=State.STOPPED, reason=reason))
            return
        if record.state is State.RUNNING and holder_of(self._folder.run_lock_path(run_id)) is not None:
            self._held.add(run_id)  # by another process, or by one of which only the node is known to be gone
            if outcome is None:
                self._lose(record, ended.why)
            return
        if outcome and outcome.exit_code != 0:
            self._bury(record, outcome)
            return
        if outcome and record.attempts:  # the run itself has said that it is worth another try
            self._later[run_id] = time.monotonic() + _RETRY_AFTER_S
        elif self._lose(record, ended.why):
            self._waiting.insert(0, run_id)

    def _lose(self, record: RunRecord, why: str) -> bool:
        """Counts an end without a finished epoch and without a fault of the run; False where that is once too many."""
        self._lost[record.run_id] += 1
        _log.warning("%s: its job was lost (%s)", record.run_id, why or "no reason given")
        if self._lost[record.run_id] < self._max_losses:
            return True
        self._held.discard(record.run_id)
        n = self._lost[record.run_id]
        self._fail(record.run_id, f"its job was lost {n} times without an epoch done ({why or 'no reason given'})")
        return False

    @property
    def _max_losses(self) -> int:
        return self._folder.study.executor.max_retries + 1

    def _bury(self, record: RunRecord, outcome: Outcome) -> None:
        """Its process died, or could not begin: once more, elsewhere; then the run has failed."""
        self._deaths[record.run_id] += 1
        self._n_failures_in_a_row += 1
        cause = cause_of(outcome.exit_code, record.reason)
        said = outcome.failure
        if self._n_failures_in_a_row >= _MAX_FAILURES_IN_A_ROW:
            problem = said.problem if said else f"{self._n_failures_in_a_row} jobs in a row ended: {cause}"
            where, fix = (said.where, said.fix) if said else (str(self._folder.path), f"see {self._folder.log_path}")
            self._give_up(Failure(where, problem, fix, said.exit_code if said else 4))
        elif self._deaths[record.run_id] >= MAX_DEATHS_OF_A_RUN:
            reason = f"its process {cause}, {self._deaths[record.run_id]} times; see {self._folder.log_path}"
            self._fail(record.run_id, f"{said.where}: {said.problem}; fix: {said.fix}" if said else reason)
        else:
            self._waiting.append(record.run_id)

    def _look_at_held(self) -> None:
        """Runs that another process has: until it gives them back, or has been silent so long that it is dead."""
        if not self._held or time.monotonic() < self._looks_at_held_s:
            return
        self._looks_at_held_s = time.monotonic() + _HELD_POLL_S
        for run_id in sorted(self._held):
            if holder_of(self._folder.run_lock_path(run_id)) is not None:
                continue
            self._held.discard(run_id)
            record = self._record(run_id)
            if record and record.state not in (State.DONE, State.FAILED) and not self._is_stopping:
                self._waiting.insert(0, run_id)

    def _record(self, run_id: str) -> RunRecord | None:
        try:
            return read_record(self._folder.run_path(run_id))
        except DamagedError as error:
            _log.error("%s", error)  # named by `status` and `verify`; the other runs go on
            return None

    def _fail(self, run_id: str, reason: str) -> None:
        record = self._record(run_id)
        if record:
            self._write(record.with_(state=State.FAILED, reason=reason))

    def _write(self, record: RunRecord) -> None:
        try:
            write_record(self._folder.run_path(record.run_id), record)
        except SimtuiError as error:
            _log.error("%s", error)

    def _give_up(self, failure: Failure) -> None:
        self._has_failed = True
        self._say(Stage("failed", failure=failure))

    def _say_running(self) -> None:
        n_running = self._engine.n_running()
        name = "running" if n_running or self._held else f"waiting for {self._engine.name}"
        self._say(Stage(name, n_workers=max(1, n_running + len(self._held))))

    def _say(self, stage: Stage) -> None:
        if stage != self._said:
            self._said = stage
            self._stage.write(stage, is_last=True)
