"""What the scheduler and its workers do when something fails: pause, try again, or leave one run and go on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.errors import DamagedError, DeviceMemoryError, NoSpaceError, StudyError
from engine.finetune.team import Team
from engine.jobs import worker as worker_module
from engine.jobs.launch import make_study_folder, start_study
from engine.jobs.plan import PLAN_FILE, Plan, write_plan
from engine.jobs.prepare import Preparation
from engine.jobs.progress import study_progress
from engine.jobs.scheduler import queue_runs
from engine.jobs.worker import MAX_ATTEMPTS, Worker, refuse_other_settings
from engine.runs.record import Provenance, RunRecord, Session, State, read_record, write_record
from engine.runs.study_folder import StudyFolder
from engine.study import load_study, run_specs
from tests.studies import write_study

SESSION = Session(0, "here", "cpu", "float32", 1, {})


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return make_study_folder(load_study(write_study(tmp_path)), tmp_path / "out")


@pytest.fixture
def worker(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker whose runs do what a test says in place of training."""
    queue_runs(folder)
    write_plan(folder.path / PLAN_FILE, Plan(("cpu",), 1, 1, "float32", "m", None))
    monkeypatch.setattr(worker_module, "_RETRY_AFTER_S", 0.0)
    monkeypatch.setattr(Worker, "_bench", lambda self, record, team: (record, None))
    return Worker(folder, 0)


def _runs(monkeypatch: pytest.MonkeyPatch, run: Callable[[RunRecord], None]) -> list[str]:
    taken = []

    def execute(path: Path, record: RunRecord, *_: object) -> RunRecord:
        taken.append(record.spec.method)
        run(record)
        done = record.with_(state=State.DONE)
        write_record(path, done)
        return done

    monkeypatch.setattr(worker_module, "execute_run", execute)
    return taken


def test_a_failure_that_may_pass_is_tried_again_after_the_others(
    worker: Worker, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_left = {"full": 1, "linear": MAX_ATTEMPTS}

    def run(record: RunRecord) -> None:
        if n_left.get(record.spec.method, 0):
            n_left[record.spec.method] -= 1
            raise DeviceMemoryError("cuda:0", "is out of memory", "free it")

    taken = _runs(monkeypatch, run)
    worker.run()
    assert taken == ["full", "linear", "scratch", "full", "linear", "linear"]
    states = {record.spec.method: record for record in folder.listing().records}
    assert states["full"].state is State.DONE and states["full"].attempts == 1
    assert states["linear"].state is State.FAILED
    assert states["linear"].reason == "3 times: cuda:0: is out of memory; fix: free it"
    queue_runs(folder)
    assert {record.attempts for record in folder.listing().records if record.spec.method == "linear"} == {0}


def test_a_device_that_is_full_as_the_backbone_is_loaded_is_tried_again(
    worker: Worker, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_left = [2]

    def bench(self: Worker, record: RunRecord, team: Team) -> tuple[RunRecord, None]:
        if n_left[0]:
            n_left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return record, None

    monkeypatch.setattr(Worker, "_bench", bench)
    _runs(monkeypatch, lambda record: None)
    worker.run()
    assert sorted(record.attempts for record in folder.listing().records) == [0, 1, 1]
    assert {record.state for record in folder.listing().records} == {State.DONE}


def test_a_device_that_is_full_before_any_run_is_said(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("engine.jobs.prepare.load_reference_backbone", load)
    with pytest.raises(DeviceMemoryError, match="bundled:supervised: cpu is out of memory before any training"):
        Preparation(folder, reports=True).prepare()


def test_a_full_disk_leaves_the_run_queued_and_ends_the_worker(
    worker: Worker, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(record: RunRecord) -> None:
        raise NoSpaceError("results.h5", "no space in /data (need 1.2 GB, free 3 MB)", "make room", 1_200_000_000)

    _runs(monkeypatch, run)
    with pytest.raises(NoSpaceError):
        worker.run()
    first = read_record(folder.run_path(run_specs(folder.study)[0].run_id))
    assert first.state is State.QUEUED and first.reason == "paused: no space in /data (need 1.2 GB, free 3 MB)"


def test_what_nobody_expected_fails_one_run_with_its_reason(
    worker: Worker, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(record: RunRecord) -> None:
        if record.spec.method == "full":
            raise ZeroDivisionError("division by zero")

    assert _runs(monkeypatch, run) == []
    worker.run()
    reasons = {record.spec.method: record.reason for record in folder.listing().records}
    assert reasons["full"].startswith("ZeroDivisionError: division by zero; see ")
    assert [record.state for record in folder.listing().records].count(State.DONE) == 2


def test_a_damaged_record_is_left_alone_and_the_others_run(folder: StudyFolder) -> None:
    queue_runs(folder)
    run_id = run_specs(folder.study)[0].run_id
    path = folder.run_path(run_id) / "run.json"
    path.write_text(path.read_text()[:-5])
    assert start_study(folder).wait() == 0
    listing = folder.listing()
    assert {record.state for record in listing.records} == {State.DONE} and len(listing.records) == 2
    assert [each.run_id for each in listing.damaged] == [run_id]
    assert "digest does not match" in folder.log_path.read_text()


def test_a_worker_that_dies_twice_in_one_run_fails_it_and_goes_on(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMTUI_FAULT", "*_full_*/history.csv:begin")  # in each process that takes this run
    assert start_study(folder).wait() == 1
    states = {record.spec.method: record for record in folder.listing().records}
    assert {states[method].state for method in ("linear", "scratch")} == {State.DONE}
    assert states["full"].state is State.FAILED
    assert states["full"].reason.startswith("its process was killed by SIGKILL, 2 times")
    monkeypatch.delenv("SIMTUI_FAULT")
    assert start_study(folder).wait() == 0
    assert {record.state for record in folder.listing().records} == {State.DONE}


def test_a_full_disk_pauses_the_study_until_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = 150 << 20
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        request = load_study(write_study(tmp_path, methods=["full"]))
        folder = make_study_folder(request, disk / "out")
        (disk / "filler").write_bytes(bytes(size - (9 << 20)))
        process = start_study(folder)
        end_s = time.monotonic() + 120
        while not study_progress(folder).stage.startswith("paused"):
            assert time.monotonic() < end_s and process.poll() is None, folder.log_path.read_text()
            time.sleep(0.1)
        progress = study_progress(folder)
        assert progress.is_running and f"no space in {disk}" in progress.stage and "need " in progress.stage
        (disk / "filler").unlink()
        while study_progress(folder).stage.startswith("paused"):
            assert time.monotonic() < end_s and process.poll() is None, folder.log_path.read_text()
            time.sleep(0.05)
        assert process.wait(timeout=120) == 0
        assert {record.state for record in folder.listing().records} == {State.DONE}
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize(
    ("was", "session", "what"),
    [
        (Provenance(weights_sha256="ab"), SESSION, "the weights of the backbone differ"),
        (Provenance(probe_digest="ab"), SESSION, "the probe images differ"),
        (Provenance(origin_digest="ab"), SESSION, "the origin images differ"),
        (Provenance(input_size=224), SESSION, "the input size differ"),
        (Provenance(), replace(SESSION, precision="bfloat16"), "the precision of training differ"),
    ],
)
def test_results_of_other_settings_are_not_mixed_into_a_run(
    folder: StudyFolder, was: Provenance, session: Session, what: str
) -> None:
    spec = run_specs(folder.study)[0]
    record = RunRecord(spec.run_id, spec, epochs_done=2, sessions=(SESSION,), provenance=was)
    with pytest.raises(StudyError, match=what):
        refuse_other_settings(record, Provenance(), session)
    refuse_other_settings(record.with_(epochs_done=-1), Provenance(), session)


def test_a_folder_whose_record_has_other_settings_is_refused_by_name(folder: StudyFolder) -> None:
    spec = run_specs(folder.study)[0]
    other = replace(spec, finetune=replace(spec.finetune, weight_decay=0.5))
    write_record(folder.run_path(spec.run_id), RunRecord(spec.run_id, other))
    with pytest.raises(StudyError, match=r"finetune\.weight_decay: is 0\.05, but the run was started with 0\.5"):
        queue_runs(folder)


def test_a_damaged_plan_is_said(tmp_path: Path, folder: StudyFolder) -> None:
    (folder.path / PLAN_FILE).write_text("{}")
    with pytest.raises(DamagedError, match="has no digest"):
        Worker(folder, 0)
