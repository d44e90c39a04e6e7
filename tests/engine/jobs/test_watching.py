"""What can be seen of a study while it runs: conditions, logs, figures by epoch, the load of devices and machine."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import pytest
import torch

from engine.jobs import machine_load as machine_module
from engine.jobs.details import JobReader
from engine.jobs.device_load import DeviceLoad, DeviceMeter
from engine.jobs.logs import log_tail, run_log
from engine.jobs.machine_load import machine_load
from engine.jobs.progress import Condition, study_progress
from engine.jobs.stage import Failure, RunProgress, Stage, Throttled, read_run_progress
from engine.lock import locked
from engine.runs.history import read_history
from engine.runs.record import State
from engine.runs.study_folder import StudyFolder
from engine.study import RunSpec, run_specs
from tests.simtui.running import go_on, running, say
from tests.simtui.studies import study_of, write_run, write_study

STUDY = study_of(("bundled:supervised",), seeds=1, epochs=8)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """Three runs that wait."""
    return StudyFolder(write_study(tmp_path / "s", STUDY, epochs_done=-1))


@pytest.fixture
def spec() -> RunSpec:
    return run_specs(STUDY)[0]


def _condition(folder: StudyFolder) -> Condition:
    return study_progress(folder).condition


class TestConditions:
    def test_of_a_study_that_runs(self, folder: StudyFolder) -> None:
        with locked(folder.lock_path):
            assert _condition(folder) is Condition.STARTING
            for stage, condition in (
                (Stage(""), Condition.STARTING),
                (Stage("decoding images", 1, 9), Condition.RUNNING),
                (Stage("paused: no space in /x", need_bytes=7), Condition.PAUSED),
                (Stage("running"), Condition.RUNNING),
            ):
                say(folder.path, stage)
                assert _condition(folder) is condition
            folder.stop_path.touch()
            assert _condition(folder) is Condition.STOPPING

    def test_of_a_study_that_does_not(self, folder: StudyFolder, spec: RunSpec) -> None:
        assert _condition(folder) is Condition.NEW
        say(folder.path, Stage("decoding images"))
        assert _condition(folder) is Condition.INTERRUPTED  # it never said that it ended
        say(folder.path, Stage("finished"))
        assert _condition(folder) is Condition.STOPPED
        write_run(folder.path, spec, epochs_done=2, state=State.RUNNING)
        assert _condition(folder) is Condition.INTERRUPTED
        say(folder.path, Stage("failed", failure=Failure("x", "y", "z", 4)))
        assert _condition(folder) is Condition.FAILED
        say(folder.path, Stage("finished"))
        for each in run_specs(STUDY):
            write_run(folder.path, each)
        assert _condition(folder) is Condition.FINISHED
        write_run(folder.path, spec, state=State.FAILED)
        assert _condition(folder) is Condition.FINISHED
        folder.stage_path.unlink()
        write_run(folder.path, spec, epochs_done=2, state=State.STOPPED)
        assert _condition(folder) is Condition.STOPPED

    def test_who_runs_it_since_when_and_what_is_left_of_each_run(self, folder: StudyFolder, spec: RunSpec) -> None:
        with running(folder.path, STUDY, epoch=3):
            progress = study_progress(folder)
            assert progress.holder is not None and progress.holder.pid == os.getpid()
            assert progress.started_s == folder.lock_path.stat().st_mtime and progress.n_workers == 2
            # Epochs of 1 s each; 3 of 10 steps of epoch 3 of 8 are done.
            assert progress.run_left_s[spec.run_id] == pytest.approx(5.7) and len(progress.run_left_s) == 2
            assert progress.time_left_s == pytest.approx((2 * 5.7 + 8) / 2)
        assert study_progress(folder).started_s is None


class TestLogs:
    def test_a_run_has_a_log_of_its_own(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        log = logging.getLogger("simtui.test")
        log.setLevel(logging.INFO)
        for _ in range(2):
            with run_log(tmp_path, "a_run"):
                log.info("%s: epoch 1 of 2", "a_run")
            log.info("nothing of this run")
        lines = log_tail(tmp_path / "log.txt", tmp_path)
        assert len(lines) == 2 and all(line.endswith(" INFO epoch 1 of 2") for line in lines)

    def test_a_log_that_cannot_be_written_stops_no_run(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        os.mkfifo(tmp_path / "log.txt")
        with run_log(tmp_path, "a_run"):
            logging.getLogger("simtui.test").warning("goes on")
        assert "a_run: has no log of its own" in caplog.text and "goes on" in caplog.text

    def test_a_full_disk_stops_no_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        with run_log(tmp_path, "a_run"):
            monkeypatch.setattr("engine.jobs.logs.os.write", full)
            logging.getLogger("simtui.test").warning("goes on")
        assert log_tail(tmp_path / "log.txt", tmp_path) == ()

    def test_only_the_end_of_a_long_log_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "log.txt"
        assert log_tail(path, tmp_path) == ()
        path.write_bytes(b"".join(b"line %07d\n" % i for i in range(100_000)) + b"not \xff text")
        lines = log_tail(path, tmp_path)
        assert lines[-2:] == ("line 0099999", "not \\xff text")
        assert sum(len(line) + 1 for line in lines) <= 16_000
        assert all(line.startswith(("line", "not")) for line in lines)

    def test_links_out_of_the_folder_and_pipes_are_refused(self, tmp_path: Path) -> None:
        folder_path = tmp_path / "s"
        folder_path.mkdir()
        (tmp_path / "secret").write_text("secret")
        (folder_path / "out").symlink_to(tmp_path / "secret")
        with pytest.raises(OSError, match="leads out of the study folder"):
            log_tail(folder_path / "out", folder_path)
        os.mkfifo(folder_path / "pipe")
        with pytest.raises(OSError, match="not a regular file"):
            log_tail(folder_path / "pipe", folder_path)
        (folder_path / "loop").symlink_to(folder_path / "loop")
        with pytest.raises(OSError, match="symbolic links"):
            log_tail(folder_path / "loop", folder_path)


class TestHistories:
    def test_it_is_what_was_written(self, folder: StudyFolder, spec: RunSpec) -> None:
        write_run(folder.path, spec, epochs_done=3)
        history = read_history(folder.run_path(spec.run_id))
        assert history is not None and len(history["test_accuracy"]) == 4
        assert history["origin_knn"][0] == pytest.approx(0.64) and history["origin_knn"][1] is None

    @pytest.mark.parametrize(
        "text", ["", "a,b\n1,2\n", "epoch,x\n0\n", "epoch,x\n0,word\n", "epoch,x\n0,\x00\n", "\xff"]
    )
    def test_what_is_no_history_is_none(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "history.csv").write_text(text, "latin-1")
        assert read_history(tmp_path) is None

    def test_before_the_first_epoch_every_figure_is_empty(self, tmp_path: Path) -> None:
        assert read_history(tmp_path) is None
        (tmp_path / "history.csv").write_text("epoch,x\n")
        assert read_history(tmp_path) == {}


class TestDetails:
    def test_they_are_equal_until_something_changes(self, folder: StudyFolder, spec: RunSpec) -> None:
        reader = JobReader(folder)
        with running(folder.path, STUDY):
            progress = study_progress(folder)
            first = reader.read("", progress)
            assert set(first.histories) == {each.run_id for each in run_specs(STUDY)[:2]}
            assert reader.read("", progress).histories == first.histories and first.load is not None
            go_on(folder.path, spec, 4, 1, 10)
            assert len(reader.read("", study_progress(folder)).histories[spec.run_id]["test_accuracy"]) == 4
        ended = reader.read("", study_progress(folder))
        assert ended.load is None and ended == reader.read("", study_progress(folder))

    def test_a_run_without_a_log_has_what_the_study_says_of_it(self, folder: StudyFolder, spec: RunSpec) -> None:
        folder.log_path.write_text(f"one\ntwo {spec.run_id}: fails\n")
        reader, progress = JobReader(folder), study_progress(folder)
        assert reader.read("", progress).log == ("one", f"two {spec.run_id}: fails")
        assert reader.read(spec.run_id, progress).log == (f"two {spec.run_id}: fails",)
        (folder.run_path(spec.run_id) / "log.txt").write_text("its own\n")
        assert reader.read(spec.run_id, progress).log == ("its own",)

    def test_a_log_that_cannot_be_read_is_a_problem_in_words(self, folder: StudyFolder) -> None:
        folder.log_path.mkdir()
        details = JobReader(folder).read("", study_progress(folder))
        assert details.log == () and str(folder.log_path) in details.log_problem


class TestLoad:
    def test_a_cpu_has_no_figures_of_a_device(self) -> None:
        assert DeviceMeter([torch.device("cpu")]).read() == DeviceLoad(None, None, None)

    def test_a_gpu_says_its_memory_and_load(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60_000_000_000, 80_000_000_000))
        monkeypatch.setattr(torch.cuda, "utilization", lambda device: 97)
        assert DeviceMeter([torch.device("cuda:1")]).read() == DeviceLoad(20_000.0, 80_000.0, 0.97)

    def test_what_a_driver_does_not_tell_is_asked_once(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        asked: list[str] = []

        def missing(device: torch.device) -> int:
            asked.append("load")
            raise ModuleNotFoundError("pynvml does not seem to be installed")

        def broken(device: torch.device) -> tuple[int, int]:
            asked.append("memory")
            raise RuntimeError("no driver")

        monkeypatch.setattr(torch.cuda, "utilization", missing)
        monkeypatch.setattr(torch.cuda, "mem_get_info", broken)
        caplog.set_level(logging.INFO, "simtui.worker")
        meter = DeviceMeter([torch.device("cuda:0")])
        assert meter.read() == meter.read() == DeviceLoad(None, None, None)
        assert sorted(asked) == ["load", "memory"]
        assert "load of cuda:0 cannot be measured: pynvml" in caplog.text and "no driver" in caplog.text

    def test_the_machine_says_what_it_can(self, monkeypatch: pytest.MonkeyPatch) -> None:
        load = machine_load()
        assert load.host == socket.gethostname() and load.n_cpus >= 1
        assert 0 < load.memory_used_mb < load.memory_total_mb
        monkeypatch.delattr(machine_module.os, "getloadavg")
        monkeypatch.delattr(machine_module.os, "sched_getaffinity")
        assert machine_load().cpu_load is None and machine_module.n_cpus() >= 1

    def test_old_hints_are_read_and_new_ones_come_back(self, tmp_path: Path) -> None:
        path = tmp_path / "progress.json"
        path.write_text('{"epoch": 1, "epochs": 2, "step": 3, "steps": 4, "images_per_s": 5.0, "loss": 6.0}')
        assert read_run_progress(path) == RunProgress(1, 2, 3, 4, 5.0, 6.0)
        whole = RunProgress(1, 2, 3, 4, 5.0, 6.0, 0.5, "cuda:0", 1.0, 2.0, 0.5)
        writer = Throttled(path)
        assert writer.is_due
        writer.write(whole)
        assert read_run_progress(path) == whole and not writer.is_due
