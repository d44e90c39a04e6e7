"""What becomes of a run whose job ends in any way: read in its record, placed again or not, and never twice at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.errors import MachineError
from engine.executor_options import ExecutorSection
from engine.files import write_json
from engine.jobs.executors import placed as placed_module
from engine.jobs.executors.command import PREPARATION, Outcome
from engine.jobs.executors.executor import EXIT_PAUSED
from engine.jobs.executors.placed import Ended, PlacedExecutor
from engine.jobs.plan import PLAN_FILE, Plan, write_plan
from engine.jobs.scheduler import Scheduler, queue_runs
from engine.jobs.stage import Failure, read_stage
from engine.lock import holder_of, locked
from engine.process import space
from engine.runs.record import State, read_record, write_record
from engine.runs.study_folder import StudyFolder
from engine.study import RunSpec, run_specs
from tests.simtui.studies import study_of, write_study

WELL = Outcome(0)


class FakeEngine:
    """Starts nothing: a test says how each job ends."""

    name, poll_s = "a cluster", 0.0

    def __init__(self, room: int = 100) -> None:
        self._room = room
        self.placed: list[str] = []
        self.submitted: list[str] = []
        self.ends: list[Ended] = []
        self.has_ended = self.has_withdrawn = False

    def begin(self) -> None:
        pass

    def room(self) -> int:
        return self._room - len(self.placed)

    def n_running(self) -> int:
        return len(self.placed)

    def submit(self, run_ids: Sequence[str]) -> Sequence[str]:
        assert not set(run_ids) & set(self.placed)
        self.placed += run_ids
        self.submitted += run_ids
        return run_ids

    def ended(self) -> Sequence[Ended]:
        found, self.ends = self.ends, []
        for each in found:
            self.placed.remove(each.run_id)
        return found

    def withdraw(self) -> None:
        self.has_withdrawn = True

    def end(self) -> None:
        self.has_ended = True


class Trial:
    """One study on a fake engine."""

    def __init__(self, path: Path, **settings: int) -> None:
        study = study_of(("bundled:supervised",), seeds=2, epochs=4)
        object.__setattr__(study, "executor", ExecutorSection("slurm", **settings))
        self.folder = StudyFolder(write_study(path, study, epochs_done=-1))
        self.run_ids = [spec.run_id for spec in run_specs(study)]
        self.engine = FakeEngine()
        self.executor = PlacedExecutor(self.folder, self.engine)

    def begin(self) -> None:
        self.executor.begin(queue_runs(self.folder))

    def prepare(self) -> None:
        assert self.engine.placed == [PREPARATION]
        write_plan(self.folder.path / PLAN_FILE, Plan(("cpu",), 1, 1, "float32", "m", None))
        self.ends(PREPARATION, WELL)

    def ends(self, run_id: str, outcome: Outcome | None, why: str = "", *, was_cancelled: bool = False) -> bool:
        self.engine.ends.append(Ended(run_id, outcome, why, was_cancelled))
        return self.executor.step()

    def writes(self, run_id: str, state: State, **changes: object) -> None:
        path = self.folder.run_path(run_id)
        write_record(path, read_record(path).with_(state=state, **changes))

    def record(self, run_id: str) -> tuple[State, str]:
        record = read_record(self.folder.run_path(run_id))
        return record.state, record.reason


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    monkeypatch.setattr(placed_module, "_RETRY_AFTER_S", 0.0)
    monkeypatch.setattr(placed_module, "_HELD_POLL_S", 0.0)
    made = Trial(tmp_path / "s", max_retries=2)
    made.begin()
    return made


def test_all_are_placed_once_after_the_preparation_in_their_order(trial: Trial) -> None:
    assert trial.executor.step() and trial.engine.submitted == [PREPARATION]
    trial.prepare()
    assert trial.engine.submitted == [PREPARATION, *trial.run_ids]
    for i, run_id in enumerate(trial.run_ids):
        trial.writes(run_id, State.DONE, epochs_done=4)
        assert trial.ends(run_id, WELL) == (i < len(trial.run_ids) - 1)
    assert trial.engine.submitted == [PREPARATION, *trial.run_ids]


def test_no_more_are_placed_than_the_cluster_takes(trial: Trial) -> None:
    trial.engine._room = 2
    trial.prepare()
    assert trial.engine.placed == trial.run_ids[:2]
    trial.writes(trial.run_ids[1], State.DONE)
    trial.ends(trial.run_ids[1], WELL)
    assert trial.engine.placed == [trial.run_ids[0], trial.run_ids[2]]


def test_a_run_that_was_lost_goes_on_until_it_was_lost_too_often_without_an_epoch(trial: Trial) -> None:
    trial.prepare()
    run_id = trial.run_ids[0]
    for epochs_done in (0, 0, 1, 1):  # the third loss comes with progress, and does not count the ones before
        trial.writes(run_id, State.RUNNING, epochs_done=epochs_done)
        trial.ends(run_id, None, "its node died")
        assert run_id in trial.engine.placed
    trial.ends(run_id, None, "its node died")
    assert run_id not in trial.engine.placed
    assert trial.record(run_id) == (
        State.FAILED, "its job was lost 3 times without an epoch done (its node died)"
    )  # fmt: skip


def test_a_process_that_dies_twice_fails_its_run_alone(trial: Trial) -> None:
    trial.prepare()
    run_id, other = trial.run_ids[:2]
    trial.writes(run_id, State.RUNNING)
    trial.ends(run_id, Outcome(-11, "node7", tail="a segfault"))
    assert run_id in trial.engine.placed and trial.engine.submitted[-1] == run_id
    trial.ends(run_id, Outcome(-11, "node7"))
    state, reason = trial.record(run_id)
    assert state is State.FAILED and reason.startswith("its process was killed by SIGSEGV, 2 times; see ")
    assert trial.record(other)[0] is State.QUEUED and other in trial.engine.placed


def test_what_a_command_failed_of_is_the_reason(trial: Trial) -> None:
    trial.prepare()
    failure = Failure("executor.gpus = 1", "torch sees no GPU on node3", "see doctor", 4)
    for _ in range(2):
        trial.ends(trial.run_ids[0], Outcome(4, failure=failure))
    assert trial.record(trial.run_ids[0]) == (
        State.FAILED, "executor.gpus = 1: torch sees no GPU on node3; fix: see doctor"
    )  # fmt: skip


def test_where_every_job_fails_it_is_not_the_runs(trial: Trial) -> None:
    trial.prepare()
    failure = Failure("torch", "cannot be loaded", "install it", 4)
    goes_on = True
    for _ in range(2):
        for run_id in trial.run_ids:
            goes_on = goes_on and trial.ends(run_id, Outcome(4, failure=failure))
    assert not goes_on
    stage = read_stage(trial.folder.stage_path)
    assert stage is not None and stage.failure == failure
    assert [record.state for record in trial.folder.listing().records].count(State.QUEUED) > 0


def test_a_run_that_says_it_is_worth_another_try_comes_again_later(trial: Trial) -> None:
    trial.prepare()
    run_id = trial.run_ids[0]
    trial.writes(run_id, State.QUEUED, attempts=1)
    trial.ends(run_id, WELL)
    trial.executor.step()
    assert run_id in trial.engine.placed


def test_a_full_disk_pauses_all_until_there_is_room(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.jobs.executors.executor._PAUSE_POLL_S", 0.0)
    trial.prepare()
    run_id = trial.run_ids[0]
    full = Failure("results.h5", "no space in /data (need 1.2 GB, free 3 MB)", "make room", 4)
    trial.ends(run_id, Outcome(EXIT_PAUSED, failure=full, need_bytes=10**18))
    stage = read_stage(trial.folder.stage_path)
    assert stage is not None and stage.name == f"paused: {full.problem}" and stage.need_bytes == 10**18
    assert trial.executor.step() and run_id not in trial.engine.placed
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 2 * 10**18}))
    trial.executor.step()
    assert run_id in trial.engine.placed
    stage = read_stage(trial.folder.stage_path)
    assert stage is not None and stage.name == "running"


def test_stop_takes_back_what_waits_and_nothing_that_ends_by_it_is_lost(trial: Trial) -> None:
    trial.engine._room = 1
    trial.prepare()
    trial.folder.stop_path.write_text("at the next epoch\n")
    assert trial.executor.step() and trial.engine.has_withdrawn
    trial.writes(trial.run_ids[0], State.STOPPED, reason="stopped as asked", epochs_done=1)
    assert not trial.ends(trial.run_ids[0], WELL)
    assert trial.record(trial.run_ids[0]) == (State.STOPPED, "stopped as asked")
    assert trial.engine.submitted == [PREPARATION, trial.run_ids[0]]


def test_a_job_that_somebody_cancels_is_not_placed_again(trial: Trial) -> None:
    trial.prepare()
    trial.ends(trial.run_ids[0], None, "CANCELLED", was_cancelled=True)
    assert trial.record(trial.run_ids[0]) == (State.STOPPED, "was taken out of the queue of a cluster")
    assert trial.run_ids[0] not in trial.engine.placed


def test_a_run_that_another_process_has_waits_for_it(trial: Trial) -> None:
    trial.prepare()
    run_id = trial.run_ids[0]
    with locked(trial.folder.run_lock_path(run_id)):
        trial.writes(run_id, State.RUNNING)
        assert trial.ends(run_id, WELL)  # its command found it taken
        assert run_id not in trial.engine.placed
    trial.executor.step()
    assert run_id in trial.engine.placed


def test_a_lost_node_is_silent_before_its_run_goes_on(trial: Trial) -> None:
    """The node may be cut off and still write: its lock is believed until it has been silent long."""
    trial.prepare()
    run_id = trial.run_ids[0]
    trial.writes(run_id, State.RUNNING, epochs_done=1)
    lock_path = trial.folder.run_lock_path(run_id)
    lock_path.mkdir()
    write_json(lock_path / "holder.json", {"host": "node9", "pid": 1, "started": "1", "space": space()})
    trial.ends(run_id, None, "its node died")
    assert run_id not in trial.engine.placed and holder_of(lock_path) is not None
    long_ago = (lock_path / "holder.json").stat().st_mtime - 600
    os.utime(lock_path / "holder.json", (long_ago, long_ago))
    trial.executor.step()
    assert run_id in trial.engine.placed


def test_runs_of_a_scheduler_that_died_are_waited_for_not_placed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placed_module, "_HELD_POLL_S", 0.0)
    trial = Trial(tmp_path / "s")
    run_id = trial.run_ids[0]
    with locked(trial.folder.run_lock_path(run_id)):
        trial.writes(run_id, State.RUNNING, epochs_done=2)
        trial.begin()
        trial.prepare()
        assert run_id not in trial.engine.submitted
        assert trial.record(run_id)[0] is State.RUNNING
        trial.writes(run_id, State.DONE, epochs_done=4)
    for other in trial.run_ids[1:]:
        trial.writes(other, State.DONE)
        goes_on = trial.ends(other, WELL)
    assert not goes_on and run_id not in trial.engine.submitted


def test_a_run_that_needs_another_comes_after_it_and_fails_with_it(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "s")
    first, second, *_, last = trial.run_ids
    needs = {second: first, last: "no_such_run"}

    def need_of(spec: RunSpec) -> str | None:
        return needs.get(spec.run_id)

    trial.executor = PlacedExecutor(trial.folder, trial.engine, need_of)
    trial.begin()
    trial.prepare()
    assert second not in trial.engine.submitted and last not in trial.engine.submitted
    assert trial.record(last)[0] is State.FAILED
    trial.writes(first, State.DONE)
    trial.executor.step()
    assert second not in trial.engine.placed  # the job of the first still puts things away
    trial.ends(first, WELL)
    assert second in trial.engine.placed


def test_a_run_whose_need_has_failed_fails(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "s")
    first, second, *_ = trial.run_ids
    trial.executor = PlacedExecutor(trial.folder, trial.engine, lambda spec: first if spec.run_id == second else None)
    trial.begin()
    trial.prepare()
    trial.writes(first, State.FAILED, reason="diverged")
    trial.ends(first, WELL)
    assert trial.record(second) == (State.FAILED, f"it needs the run {first}, which has failed")


@pytest.mark.parametrize("outcome", [Outcome(-9), None], ids=["dies", "is lost"])
def test_a_preparation_that_cannot_be_ends_the_study(trial: Trial, outcome: Outcome | None) -> None:
    goes_on = True
    for _ in range(3):
        if goes_on:
            goes_on = trial.ends(PREPARATION, outcome, "its node died")
    assert not goes_on
    stage = read_stage(trial.folder.stage_path)
    assert stage is not None and stage.failure is not None
    assert "the job that prepares the study" in stage.failure.problem


def test_what_the_preparation_says_ends_the_study_at_once(trial: Trial) -> None:
    failure = Failure("images", "no such folder", "give another", 2)
    assert not trial.ends(PREPARATION, Outcome(2, failure=failure))
    stage = read_stage(trial.folder.stage_path)
    assert stage is not None and stage.failure == failure
    assert Scheduler(trial.folder, trial.executor) is not None


def test_the_scheduler_ends_the_jobs_and_returns_the_exit_code(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "s")

    class Refusing(FakeEngine):
        def submit(self, run_ids: Sequence[str]) -> Sequence[str]:
            raise MachineError("sbatch", "refuses", "correct it")

    engine = Refusing()
    with pytest.raises(MachineError):
        Scheduler(trial.folder, PlacedExecutor(trial.folder, engine)).run()
    assert engine.has_ended
    trial.engine.ends = []
    scheduler = Scheduler(trial.folder, trial.executor)
    for run_id in trial.run_ids:
        trial.writes(run_id, State.DONE)
    trial.engine.ends = [Ended(PREPARATION, Outcome(2, failure=Failure("a", "b", "c", 3)))]
    assert scheduler.run() == 3 and trial.engine.has_ended
