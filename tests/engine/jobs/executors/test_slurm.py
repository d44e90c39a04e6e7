"""Slurm through submitit: its local executor wherever submitit is installed, a real Slurm where one answers.

`one_node_slurm.sh` beside this file starts one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import MachineError
from engine.executor_options import ExecutorSection
from engine.integrity import verify
from engine.jobs.executors.command import Outcome, outcome_of
from engine.jobs.executors.slurm import Job, SlurmEngine
from engine.jobs.launch import make_study_folder, start_study, stop_study
from engine.jobs.progress import study_progress
from engine.jobs.scheduler import queue_runs
from engine.jobs.stage import Failure
from engine.runs.record import RunRecord, State, read_record
from engine.runs.study_folder import StudyFolder
from engine.study import load_study
from tests.studies import write_study

submitit = pytest.importorskip("submitit", reason="needs simtui[slurm]")
LIMIT_S = 240.0


def _has_slurm() -> bool:
    if shutil.which("sinfo") is None:
        return False
    done = subprocess.run(["sinfo", "--noheader", "--format=%P"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and "low" in done.stdout and "high" in done.stdout


needs_slurm = pytest.mark.skipif(not _has_slurm(), reason="needs the Slurm of one_node_slurm.sh")


def _folder(tmp_path: Path, *, methods: list[str], epochs: int = 2, **settings: Any) -> StudyFolder:
    study = load_study(write_study(tmp_path, methods=methods, epochs=epochs))
    executor = ExecutorSection("slurm", gpus=0, **{"time": 60, **settings})
    return make_study_folder(replace(study, executor=executor), tmp_path / "out")


def _until(folder: StudyFolder, process: subprocess.Popen[bytes], is_true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not is_true():
        assert process.poll() is None and time.monotonic() < end_s, folder.log_path.read_text()[-3000:]
        time.sleep(0.1)


def _records(folder: StudyFolder) -> list[RunRecord]:
    return list(folder.listing().records)


def _assert_done_once(folder: StudyFolder) -> None:
    assert {record.state for record in _records(folder)} == {State.DONE}
    for record in _records(folder):
        assert len(record.epoch_seconds) == record.spec.epochs
        firsts = [session.first_epoch for session in record.sessions]
        assert firsts == sorted(set(firsts))
    assert not verify(folder).findings
    assert not (folder.path / "jobs").exists()
    assert not [path for path in folder.path.rglob("*") if ".tmp-" in path.name or path.name.endswith(".lock")]


def test_submitit_runs_a_study_as_one_machine_alone_does(tmp_path: Path) -> None:
    folder = _folder(tmp_path, methods=["full", "linear"], cluster="local", array_parallelism=2)
    assert start_study(folder).wait(timeout=LIMIT_S) == 0, folder.log_path.read_text()
    _assert_done_once(folder)
    alone = make_study_folder(
        replace(folder.study, executor=ExecutorSection(), machine=replace(folder.study.machine, workers=2)),
        tmp_path / "alone",
    )
    assert start_study(alone).wait(timeout=LIMIT_S) == 0
    for record in _records(folder):
        for name in ("results.h5", "history.csv"):
            paths = [each.run_path(record.run_id) / name for each in (folder, alone)]
            assert paths[0].read_bytes() == paths[1].read_bytes(), (record.run_id, name)


def test_a_job_that_is_told_to_go_is_placed_again_and_goes_on(tmp_path: Path) -> None:
    folder = _folder(tmp_path, methods=["full"], epochs=8, cluster="local")
    process = start_study(folder)
    _until(folder, process, lambda: any(record.epochs_done >= 2 for record in _records(folder)))
    _tasks_of(folder)[0].send_signal(signal.SIGUSR2)  # as Slurm does before it takes a node away
    assert process.wait(timeout=LIMIT_S) == 0, folder.log_path.read_text()
    _assert_done_once(folder)
    (record,) = _records(folder)
    assert len(record.sessions) == 2 and record.sessions[1].first_epoch >= 3


def _tasks_of(folder: StudyFolder) -> list[Any]:
    import psutil

    found = []
    for each in psutil.process_iter(["cmdline"]):
        command = each.info["cmdline"] or []
        if "submitit.core._submit" in command and str(folder.path / "jobs") in command:
            found.append(each)
    return found


def test_stop_now_ends_the_jobs_and_the_study_goes_on_later(tmp_path: Path) -> None:
    folder = _folder(tmp_path, methods=["full"], epochs=500, cluster="local")
    process = start_study(folder)
    _until(folder, process, lambda: any(record.epochs_done >= 1 for record in _records(folder)))
    stop_study(folder, now=True)
    assert process.wait(timeout=60) == 0
    end_s = time.monotonic() + 30
    while (record := _records(folder)[0]).state is State.RUNNING:  # its process was killed with the job
        assert time.monotonic() < end_s
        time.sleep(0.2)
    assert record.state in (State.STOPPED, State.INTERRUPTED) and record.epochs_done >= 1
    assert not _tasks_of(folder)


def test_what_a_command_fails_of_is_said(tmp_path: Path) -> None:
    folder = _folder(tmp_path, methods=["full"], cluster="local")
    shutil.rmtree(tmp_path / "images")
    assert start_study(folder).wait(timeout=LIMIT_S) == 2
    failure = study_progress(folder).failure
    assert failure is not None and failure.where == str(tmp_path / "images")


def test_a_run_that_was_given_a_gpu_and_sees_none_is_said(tmp_path: Path) -> None:
    folder = _folder(tmp_path, methods=["full"], cluster="local")
    folder = make_study_folder(replace(folder.study, executor=replace(folder.study.executor, gpus=1)), folder.path)
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert start_study(folder).wait(timeout=LIMIT_S) == 4
    failure = study_progress(folder).failure
    assert failure is not None and failure.where == "executor.gpus = 1" and "sees no GPU" in failure.problem


class TestJob:
    """What submitit asks of a job before its node is taken away."""

    @pytest.fixture
    def job(self, tmp_path: Path) -> Job:
        folder = _folder(tmp_path, methods=["full"])
        queue_runs(folder)
        return Job(folder.path, _records(folder)[0].run_id)

    def test_it_is_queued_again(self, job: Job) -> None:
        again = job.checkpoint()
        assert isinstance(again, submitit.helpers.DelayedSubmission) and isinstance(again.function, Job)

    def test_a_time_that_is_too_short_for_an_epoch_fails_the_run(self, job: Job) -> None:
        assert job.checkpoint().function.checkpoint().function.checkpoint() is None
        record = read_record(job._run_path)
        assert record.state is State.FAILED
        assert record.reason == ("its job was ended 3 times before an epoch was done (executor.time = 60 minutes)")

    def test_outcomes_are_read_back(self) -> None:
        outcome = Outcome(4, "node3", Failure("a", "b", "c", 4), 7, "tail")
        assert outcome_of(outcome.as_json()) == outcome
        assert outcome_of(Outcome(0).as_json()) == Outcome(0)


class TestEngine:
    def test_without_submitit_the_command_that_installs_it_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "submitit", None)
        with pytest.raises(MachineError, match=r'pip install "simtui\[slurm\]"'):
            SlurmEngine(_folder(tmp_path, methods=["full"])).begin()

    def test_a_machine_without_slurm_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "which", lambda name: None)
        with pytest.raises(MachineError, match="there is no sbatch on this machine"):
            SlurmEngine(_folder(tmp_path, methods=["full"])).begin()

    def test_a_folder_whose_name_sbatch_would_change_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a%j").mkdir()
        with pytest.raises(MachineError, match="has a name that sbatch would read otherwise"):
            SlurmEngine(_folder(tmp_path / "a%j", methods=["full"], cluster="local")).begin()


@needs_slurm
class TestRealSlurm:
    def test_one_array_runs_a_study_and_leaves_nothing(self, tmp_path: Path) -> None:
        folder = _folder(tmp_path, methods=["full", "linear", "scratch"])
        assert start_study(folder).wait(timeout=LIMIT_S) == 0, folder.log_path.read_text()
        _assert_done_once(folder)

    def test_runs_of_a_preempted_partition_go_on_from_their_last_epoch(self, tmp_path: Path) -> None:
        folder = _folder(tmp_path, methods=["full"], epochs=25, partition="low")
        process = start_study(folder)
        _until(folder, process, lambda: any(record.epochs_done >= 3 for record in _records(folder)))
        script = ["sbatch", "--partition=high", "--exclusive", "--time=5", "--output=/dev/null", "--wrap=sleep 1"]
        subprocess.run(script, check=True, capture_output=True)
        _until(folder, process, lambda: _records(folder)[0].state is State.QUEUED)
        assert _records(folder)[0].reason == "goes on later: stopped by a signal"
        assert process.wait(timeout=400) == 0, folder.log_path.read_text()  # Slurm waits 2 minutes
        _assert_done_once(folder)
        assert len(_records(folder)[0].sessions) == 2

    def test_a_scheduler_that_died_is_followed_by_one_that_does_nothing_twice(self, tmp_path: Path) -> None:
        folder = _folder(tmp_path, methods=["full", "linear", "scratch"], epochs=12)
        process = start_study(folder)
        _until(folder, process, lambda: any(record.epochs_done >= 1 for record in _records(folder)))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert start_study(folder).wait(timeout=LIMIT_S) == 0, folder.log_path.read_text()
        _assert_done_once(folder)
        assert {len(record.sessions) for record in _records(folder)} == {1}

    def test_stop_cancels_what_waits_and_a_cancelled_job_stays_away(self, tmp_path: Path) -> None:
        folder = _folder(tmp_path, methods=["full", "scratch", "linear"], epochs=500)
        process = start_study(folder)
        _until(folder, process, lambda: any(record.epochs_done >= 1 for record in _records(folder)))
        run = next(record for record in _records(folder) if record.state is State.RUNNING)
        name = SlurmEngine(folder).job_name
        found = subprocess.run(
            ["squeue", "--noheader", "--array", "--states=RUNNING", f"--name={name}", "--format=%i"],
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        subprocess.run(["scancel", found[0]], check=True)
        _until(folder, process, lambda: any("was taken out" in record.reason for record in _records(folder)))
        stop_study(folder)
        assert process.wait(timeout=LIMIT_S) == 0
        assert State.RUNNING not in {record.state for record in _records(folder)} and run.run_id
        left = subprocess.run(["squeue", "--noheader", f"--name={name}"], capture_output=True, text=True, check=True)
        assert left.stdout == ""

    def test_what_sbatch_refuses_is_said(self, tmp_path: Path) -> None:
        folder = _folder(tmp_path, methods=["full"], partition="no-such-partition")
        assert start_study(folder).wait(timeout=LIMIT_S) == 4
        failure = study_progress(folder).failure
        assert failure is not None and failure.where == "sbatch" and "partition" in failure.problem
        assert json.loads(folder.stage_path.read_text())["name"] == "failed"
