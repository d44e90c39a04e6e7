"""Runs on several devices, here processes of the CPU: whatever ends one of them, the run comes to the same end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import MachineError, ProcessLostError
from engine.executor_options import ExecutorKind, ExecutorSection
from engine.jobs.executors.executor import EXIT_LOST, cause_of
from engine.jobs.launch import make_study_folder, start_study, stop_study
from engine.jobs.machine_load import n_cpus
from engine.jobs.plan import Plan
from engine.jobs.prepare import make_plan
from engine.jobs.progress import study_progress
from engine.jobs.team_lead import TeamLead
from engine.jobs.worker import names_of
from engine.runs.record import RunRecord, State
from engine.runs.results import read_results
from engine.runs.study_folder import StudyFolder
from engine.study import load_study, placed, run_specs
from tests.faults.forks import assert_sound, lasting_files
from tests.studies import write_study
from tests.sweeps import IS_FULL, n_of

pytestmark = [
    pytest.mark.skipif(n_cpus() < 2, reason="two processes of a run need two processors"),
    pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are looked for in /proc"),
]
EPOCHS = n_of(3, 6)
WORKER, MATE = "engine.jobs.worker", "engine.jobs.team_mate"
full_sweep = pytest.mark.skipif(not IS_FULL, reason="a part of the full sweep (make faults)")


@pytest.fixture(scope="module")
def request_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("request"), epochs=EPOCHS, methods=["full"])


@pytest.fixture(scope="module")
def undisturbed(request_path: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    folder = _folder(request_path, tmp_path_factory.mktemp("undisturbed") / "study")
    _ends_well(folder, start_study(folder))
    return folder


@pytest.fixture
def folder(request_path: Path, tmp_path: Path) -> Iterator[StudyFolder]:
    found = _folder(request_path, tmp_path / "study")
    yield found
    for pid in _pids(found, ""):
        os.kill(pid, signal.SIGKILL)


def _folder(request_path: Path, path: Path, n: int = 2) -> StudyFolder:
    return make_study_folder(placed(load_study(request_path), devices_per_run=n), path)


def _pids(folder: StudyFolder, module: str) -> list[int]:
    """Processes that work on a study."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:
            continue
        if str(folder.path.resolve()) in words and module in " ".join(words):
            found.append(int(path.parent.name))
    return found


def _until(is_true: Callable[[], object], folder: StudyFolder, limit_s: float = 120) -> None:
    end_s = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < end_s, folder.log_path.read_text()[-3000:]
        time.sleep(0.02)


def _record(folder: StudyFolder) -> RunRecord:
    return folder.listing().records[0]


def _until_epoch(folder: StudyFolder, epoch: int) -> None:
    def is_there() -> bool:
        records = folder.listing().records
        return bool(records) and records[0].epochs_done >= epoch and records[0].state is State.RUNNING

    _until(is_there, folder)


def _ends_well(folder: StudyFolder, process: subprocess.Popen[bytes]) -> None:
    assert process.wait(300) == 0, folder.log_path.read_text()[-3000:]
    assert {record.state for record in folder.listing().records} == {State.DONE}
    assert _pids(folder, "") == []
    assert_sound(folder)


def _came_to_the_same(folder: StudyFolder, undisturbed: StudyFolder) -> None:
    found, expected = lasting_files(folder), lasting_files(undisturbed)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []


def _meeting_places() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("simtui-team-*"))


def _plan(request_path: Path, monkeypatch: pytest.MonkeyPatch, n_gpus: int, n: int, workers: int | None = None) -> Plan:
    """On a machine of so many GPUs, or of 4 processors and none."""
    devices = tuple(f"cuda:{i}" for i in range(n_gpus)) or ("cpu",)
    monkeypatch.setattr("engine.jobs.prepare.devices_of", lambda wanted: devices)
    monkeypatch.setattr("engine.jobs.prepare.n_cpus", lambda: 4)
    study = placed(load_study(request_path), devices_per_run=n)
    finetune = replace(study.finetune, precision="float32")
    study = replace(study, finetune=finetune, machine=replace(study.machine, workers=workers))
    return make_plan(study, "m", None)


@pytest.mark.parametrize(
    ("n_gpus", "n", "workers", "expected"),
    [
        (8, 2, None, [("cuda:0", "cuda:1"), ("cuda:2", "cuda:3"), ("cuda:4", "cuda:5"), ("cuda:6", "cuda:7")]),
        (4, 4, None, [("cuda:0", "cuda:1", "cuda:2", "cuda:3")]),
        (4, 2, 3, [("cuda:0", "cuda:1"), ("cuda:2", "cuda:3"), ("cuda:0", "cuda:1")]),
        (2, 1, 3, [("cuda:0",), ("cuda:1",), ("cuda:0",)]),
        (0, 2, None, [("cpu", "cpu")]),
        (0, 2, 2, [("cpu", "cpu"), ("cpu", "cpu")]),
    ],
)
def test_every_worker_has_devices_of_its_own_while_there_are_any(
    request_path: Path, monkeypatch: pytest.MonkeyPatch, n_gpus: int, n: int, workers: int | None, expected: object
) -> None:
    plan = _plan(request_path, monkeypatch, n_gpus, n, workers)
    assert [plan.devices_of_worker(slot) for slot in range(plan.n_workers)] == expected
    assert plan.threads == max(1, 4 // (n * plan.n_workers))


@pytest.mark.parametrize(
    ("n_gpus", "n", "problem", "fix"),
    [
        (1, 2, "there is 1 GPU to choose from (cuda:0)", 'set it to 1 or less, and machine.device to "auto"'),
        (2, 4, "there are 2 GPUs to choose from (cuda:0, cuda:1)", 'set it to 2 or less, and machine.device to "auto"'),
        (8, 3, "leaves 2 of 8 GPUs over", "set it to 1 or 2 or 4 or 8, or choose GPUs with CUDA_VISIBLE_DEVICES"),
        (0, 5, "there is no GPU, and 4 processors", "set it to 4 or less"),
    ],
)
def test_a_machine_that_cannot_share_itself_out_says_so(
    request_path: Path, monkeypatch: pytest.MonkeyPatch, n_gpus: int, n: int, problem: str, fix: str
) -> None:
    with pytest.raises(MachineError) as caught:
        _plan(request_path, monkeypatch, n_gpus, n)
    assert (caught.value.where, caught.value.problem) == (f"machine.devices_per_run = {n}", problem)
    assert caught.value.fix == fix


def test_a_worker_that_lost_a_process_says_which() -> None:
    assert cause_of(EXIT_LOST, "process 1 ended") == "lost another process of its run (process 1 ended)"
    assert cause_of(EXIT_LOST) == "lost another process of its run"
    assert cause_of(1, "the process that ran it has ended") == "ended with code 1"


def test_devices_have_short_names() -> None:
    assert names_of(("cuda:0", "cuda:1")) == "cuda:0+1" and names_of(("cuda:3",)) == "cuda:3"
    assert names_of(("cpu", "cpu", "cpu")) == "cpu ×3" and names_of(("cpu",)) == "cpu"


def test_a_process_that_is_killed_is_replaced_and_the_run_goes_on(
    folder: StudyFolder, undisturbed: StudyFolder
) -> None:
    process = start_study(folder)
    _until_epoch(folder, 1)
    assert [hint.device for hint in study_progress(folder).runs.values()] == ["cpu ×2"]
    (mate,) = _pids(folder, MATE)
    os.kill(mate, signal.SIGKILL)
    _ends_well(folder, process)
    record, log = _record(folder), folder.log_path.read_text()
    assert "process 1 of 2 (cpu) was killed by SIGKILL" in log
    assert f"the worker of {record.run_id} lost another process of its run" in log
    assert len(record.sessions) == 2 and record.sessions[1].first_epoch > 1
    assert {each.device.split()[:2] == ["cpu", "×2"] for each in record.sessions} == {True}
    _came_to_the_same(folder, undisturbed)


def test_a_process_whose_worker_is_gone_ends(folder: StudyFolder, tmp_path: Path) -> None:
    meeting_place = tmp_path / "team"
    meeting_place.mkdir()
    options = ["--rank=1", "--size=2", "--device=cpu", "--threads=1", f"--folder={meeting_place}"]
    run_id = run_specs(folder.study)[0].run_id
    mate = subprocess.Popen([sys.executable, "-m", MATE, str(folder.path), run_id, *options], stdin=subprocess.PIPE)
    assert mate.stdin
    mate.stdin.close()
    assert mate.wait(60) == 0
    assert not meeting_place.exists()


@full_sweep
def test_a_process_that_fails_says_why_and_leaves_nothing(folder: StudyFolder) -> None:
    places, run_id = _meeting_places(), run_specs(folder.study)[0].run_id
    with (
        pytest.raises(ProcessLostError, match=rf"process 1 of 2 \(cpu\) ended with code 1: .*{run_id}.*run\.json"),
        TeamLead(folder.path.resolve(), run_id, ("cpu", "cpu"), 1) as lead,
    ):
        lead.begin()  # there is no such run yet
    assert _pids(folder, MATE) == [] and _meeting_places() <= places


@full_sweep
def test_it_comes_to_what_one_process_does(request_path: Path, tmp_path: Path) -> None:
    """Up to what rounding in a few steps makes of it; `tests/engine/finetune/test_team.py` compares in float64."""
    request = load_study(request_path)
    alone = make_study_folder(
        replace(request, finetune=replace(request.finetune, precision="float32")), tmp_path / "alone"
    )
    shared = make_study_folder(placed(alone.study, devices_per_run=2), tmp_path / "shared")
    found = []
    for each in (alone, shared):
        _ends_well(each, start_study(each))
        found.append(read_results(each.run_path(_record(each).run_id)))
    assert _record(alone).run_id == _record(shared).run_id
    assert _record(alone).sessions[0].device.startswith("cpu ") and "×" not in _record(alone).sessions[0].device
    first, second = found
    for key, values in first.similarity.items():
        np.testing.assert_allclose(second.similarity[key], values, atol=1e-4, err_msg=str(key))
    for name, figures in first.quality.items():
        np.testing.assert_allclose(second.quality[name], figures, rtol=1e-4, err_msg=name)


@full_sweep
@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_a_worker_that_is_killed_leaves_no_process(folder: StudyFolder, undisturbed: StudyFolder, epoch: int) -> None:
    places = _meeting_places()
    process = start_study(folder)
    _until_epoch(folder, epoch)
    (worker,), mates = _pids(folder, WORKER), _pids(folder, MATE)
    assert len(mates) == 1
    os.kill(worker, signal.SIGKILL)
    _until(lambda: not set(mates) & set(_pids(folder, MATE)), folder, limit_s=10)
    _ends_well(folder, process)
    assert len(_record(folder).sessions) == 2
    _came_to_the_same(folder, undisturbed)
    assert _meeting_places() <= places


@full_sweep
def test_a_process_that_hangs_and_is_killed_does_not_hang_the_worker(
    folder: StudyFolder, undisturbed: StudyFolder
) -> None:
    process = start_study(folder)
    _until_epoch(folder, 2)
    (mate,) = _pids(folder, MATE)
    os.kill(mate, signal.SIGSTOP)
    time.sleep(3)  # the worker waits for it
    os.kill(mate, signal.SIGKILL)
    _until(lambda: "was killed by SIGKILL" in folder.log_path.read_text(), folder, limit_s=20)
    _ends_well(folder, process)
    _came_to_the_same(folder, undisturbed)


@full_sweep
def test_a_run_that_loses_processes_twice_fails_with_the_reason(folder: StudyFolder) -> None:
    process = start_study(folder)
    for epoch in (1, 3):
        _until_epoch(folder, epoch)
        _until(lambda: _pids(folder, MATE), folder)
        os.kill(_pids(folder, MATE)[0], signal.SIGKILL)
        _until(lambda: not _pids(folder, MATE), folder)
    assert process.wait(300) == 1
    record = _record(folder)
    assert record.state is State.FAILED
    assert (
        "lost another process of its run (process 1 of 2 (cpu) was killed by SIGKILL), 2 times; see " in record.reason
    )
    assert _pids(folder, "") == []


@full_sweep
@pytest.mark.parametrize("how", ["at the next epoch", "now", "SIGTERM"])
def test_what_is_stopped_goes_on(folder: StudyFolder, undisturbed: StudyFolder, how: str) -> None:
    process = start_study(folder)
    _until_epoch(folder, 1)
    if how == "SIGTERM":
        process.terminate()
    else:
        stop_study(folder, now=how == "now")
    process.wait(60)
    assert _record(folder).state is State.STOPPED and _pids(folder, "") == []
    _ends_well(folder, start_study(folder))
    _came_to_the_same(folder, undisturbed)


@full_sweep
@pytest.mark.parametrize(("kind", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_job_of_a_cluster_has_several_devices(
    request_path: Path, undisturbed: StudyFolder, tmp_path: Path, kind: ExecutorKind, package: str
) -> None:
    pytest.importorskip(package)
    study = placed(load_study(request_path), devices_per_run=2)
    executor = ExecutorSection(kind, gpus=0, cpus=n_cpus(), cluster="local", shared=False)
    study = replace(study, executor=executor, machine=replace(study.machine, device="cpu"))
    folder = make_study_folder(study, tmp_path / "study")
    _ends_well(folder, start_study(folder))
    assert "cpu ×2" in _record(folder).sessions[0].device
    _came_to_the_same(folder, undisturbed)


@full_sweep
def test_two_runs_at_once_do_not_meet(request_path: Path, undisturbed: StudyFolder, tmp_path: Path) -> None:
    folders = [_folder(request_path, tmp_path / name) for name in ("a", "b")]
    for folder, process in [(each, start_study(each)) for each in folders]:
        _ends_well(folder, process)
        _came_to_the_same(folder, undisturbed)
