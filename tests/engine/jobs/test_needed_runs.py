"""A run that is made from another: it waits for it, is taken as soon as it is done, and fails where that has failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.errors import DeviceMemoryError, TrainingError
from engine.jobs import worker as worker_module
from engine.jobs.launch import make_study_folder, start_study
from engine.jobs.plan import PLAN_FILE, Plan, write_plan
from engine.jobs.scheduler import queue_runs
from engine.jobs.worker import Worker
from engine.lock import locked
from engine.runs.record import RUN_FILE, RunRecord, State, read_record, write_record
from engine.runs.results import read_results
from engine.runs.study_folder import StudyFolder
from engine.study import load_study, needs_run, run_specs
from tests.studies import write_study


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """Mixtures stand before what they are made from, so that the order of the file does not help."""
    path = write_study(tmp_path, methods=["wise_ft", "wise_ft:0.25", "full", "linear"], seeds=2)
    return make_study_folder(load_study(path), tmp_path / "out")


@dataclass
class Queue:
    """The runs of a folder, and who does what a test says in place of training."""

    folder: StudyFolder
    does: Callable[[RunRecord], None] = lambda record: None
    taken: list[tuple[str, int]] = field(default_factory=list)

    def work(self) -> None:
        Worker(self.folder, 0).run()

    def execute(self, path: Path, record: RunRecord, *_: object) -> RunRecord:
        needed = needs_run(record.spec)
        assert needed is None or read_record(self.folder.run_path(needed)).state is State.DONE
        self.taken.append((record.spec.method, record.spec.seed))
        self.does(record)
        done = record.with_(state=State.DONE)
        write_record(path, done)
        return done

    def record(self, method: str, seed: int = 0) -> RunRecord:
        return next(
            each for each in self.folder.listing().records if (each.spec.method, each.spec.seed) == (method, seed)
        )

    def path(self, method: str, seed: int = 0) -> Path:
        return self.folder.run_path(self.record(method, seed).run_id)


@pytest.fixture
def queue(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue_runs(folder)
    write_plan(folder.path / PLAN_FILE, Plan(("cpu",), 1, 1, "float32", "m", None))
    monkeypatch.setattr(worker_module, "_RETRY_AFTER_S", 0.0)
    monkeypatch.setattr(Worker, "_bench", lambda self, record, team: (record, None))
    found = Queue(folder)
    monkeypatch.setattr(worker_module, "execute_run", found.execute)
    return found


def test_it_is_taken_once_what_it_is_made_from_is_done(queue: Queue) -> None:
    queue.work()
    assert queue.taken[:2] == [("full", 0), ("linear", 0)]
    assert sorted(queue.taken) == sorted((spec.method, spec.seed) for spec in run_specs(queue.folder.study))
    assert {record.state for record in queue.folder.listing().records} == {State.DONE}


def test_where_that_has_failed_it_fails_with_the_reason(queue: Queue) -> None:
    def fail(record: RunRecord) -> None:
        if (record.spec.method, record.spec.seed) == ("full", 1):
            raise TrainingError("epoch 2", "the loss is nan", "lower the rate")

    queue.does = fail
    queue.work()
    for method in ("wise_ft", "wise_ft:0.25"):
        failed = queue.record(method, 1)
        assert failed.state is State.FAILED
        assert failed.reason == f"it is made from {queue.record('full', 1).run_id}, which has failed or cannot be read"
        assert queue.record(method, 0).state is State.DONE
    queue_runs(queue.folder)  # asked for again: both are tried again
    queue.does = lambda record: None
    queue.work()
    assert {record.state for record in queue.folder.listing().records} == {State.DONE}


def test_where_that_is_damaged_it_fails_and_the_others_go_on(queue: Queue) -> None:
    (queue.path("full", 0) / RUN_FILE).write_text("{")
    queue.work()
    assert queue.record("wise_ft").state is State.FAILED and queue.record("wise_ft", 1).state is State.DONE


def test_one_that_another_worker_makes_possible_is_left_to_that_worker(queue: Queue) -> None:
    """No worker waits; the one that has what others wait for comes back to them."""
    full, other = queue.path("full", 0), queue.path("full", 1)
    with locked(full / "run.lock"), locked(other / "run.lock"):
        queue.work()
        assert {method for method, _ in queue.taken} == {"linear"}
        assert queue.record("wise_ft").state is State.QUEUED
    queue.work()
    assert {record.state for record in queue.folder.listing().records} == {State.DONE}


def test_one_that_another_worker_has_is_not_waited_for(queue: Queue) -> None:
    with locked(queue.path("wise_ft") / "run.lock"):
        queue.work()
    assert queue.record("wise_ft").state is State.QUEUED  # it ended, and did not go round and round


def test_it_comes_after_another_try_of_what_it_is_made_from(queue: Queue) -> None:
    left = [2]

    def run(record: RunRecord) -> None:
        if record.spec.method == "full" and left[0]:
            left[0] -= 1
            raise DeviceMemoryError("cuda:0", "is out of memory", "free it")

    queue.does = run
    queue.work()
    assert {record.state for record in queue.folder.listing().records} == {State.DONE}


def test_nothing_begins_after_a_stop(queue: Queue) -> None:
    def stop(record: RunRecord) -> None:
        queue.folder.stop_path.write_text("at the next epoch\n")

    queue.does = stop
    queue.work()
    assert len(queue.taken) == 1 and queue.record("wise_ft").state is State.QUEUED


def test_a_study_with_mixtures_runs_to_its_end_on_two_workers(tmp_path: Path) -> None:
    path = write_study(tmp_path, methods=["wise_ft", "full", "wise_ft:0.75"], seeds=2, epochs=1)
    path.write_text(path.read_text().replace('keep = "all"', 'keep = "ends"').replace("workers = 1", "workers = 2"))
    folder = make_study_folder(load_study(path), tmp_path / "out")
    assert start_study(folder).wait() == 0, folder.log_path.read_text()
    records = {(each.spec.method, each.spec.seed): each for each in folder.listing().records}
    assert {each.state for each in records.values()} == {State.DONE} and len(records) == 6
    for seed in (0, 1):
        found = {name: read_results(folder.run_path(records[name, seed].run_id)) for name in ("wise_ft", "full")}
        key = next(iter(found["full"].similarity))
        assert (found["wise_ft"].similarity[key][0] == found["full"].similarity[key][0]).all()
        assert (found["wise_ft"].similarity[key][1] != found["full"].similarity[key][1]).any()
