"""Ray for real, where it is installed: a cluster of two nodes that loses one, parts of a GPU, no shared folder."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import MachineError
from engine.executor_options import ExecutorSection
from engine.integrity import verify
from engine.jobs.executors.ray import RayEngine
from engine.jobs.launch import make_study_folder, start_study, stop_study
from engine.jobs.progress import study_progress
from engine.runs.record import RunRecord, State
from engine.runs.study_folder import StudyFolder
from engine.study import load_study
from tests.studies import write_study

os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"})  # nice tasks starve beside other tests
ray = pytest.importorskip("ray", reason="needs simtui[ray]")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
N_RUNS, N_EPOCHS = 4, 6


class TwoNodes:
    """A head without processors, and two nodes on which each GPU is one in name only."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes: list[Any] = [self.add(), self.add()]

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=2, num_gpus=1)

    def remove_one(self) -> None:
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[TwoNodes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = TwoNodes()
    yield made
    made.cluster.shutdown()


def _study(tmp_path: Path, address: str, *, epochs: int = N_EPOCHS, shared: bool = False) -> StudyFolder:
    """Half a GPU a run: two runs on each node. They compute on the CPU: the machine of a test has no GPU."""
    study = load_study(write_study(tmp_path, methods=["full"], seeds=N_RUNS, epochs=epochs))
    executor = ExecutorSection("ray", gpus=0.5, address=address, shared=shared)
    return make_study_folder(
        replace(study, executor=executor, machine=replace(study.machine, device="cpu")), tmp_path / "out"
    )


def _nodes(two_nodes: TwoNodes) -> list[Any]:
    ray.init(address=two_nodes.cluster.address, log_to_driver=False)
    try:
        return list(ray.nodes())
    finally:
        ray.shutdown()


def _until(folder: StudyFolder, process: Any, is_true: Callable[[], bool], limit_s: float = 400) -> None:
    end_s = time.monotonic() + limit_s
    while not is_true():
        assert process.poll() is None and time.monotonic() < end_s, folder.log_path.read_text()[-3000:]
        time.sleep(0.2)


def _running(folder: StudyFolder) -> list[RunRecord]:
    return [record for record in folder.listing().records if record.state is State.RUNNING]


def _assert_each_epoch_was_done_once(folder: StudyFolder) -> None:
    for record in folder.listing().records:
        text = (folder.run_path(record.run_id) / "log.txt").read_text()
        done = [int(each) for each in re.findall(r"epoch (\d+) of", text)]
        assert done == sorted(set(done)), (record.run_id, done)
        assert record.epochs_done == record.spec.epochs and len(record.epoch_seconds) == record.spec.epochs


@pytest.mark.parametrize("shared", [False, True], ids=["object store", "shared folder"])
def test_a_node_that_goes_in_the_middle_loses_nothing(two_nodes: TwoNodes, tmp_path: Path, shared: bool) -> None:
    folder = _study(tmp_path, two_nodes.cluster.address, shared=shared)
    process = start_study(folder)
    # Four at once on two GPUs, with word of where each is; every run has been begun on some node.
    _until(folder, process, lambda: len(study_progress(folder).runs) == N_RUNS)
    assert study_progress(folder).n_workers == N_RUNS
    _until(folder, process, lambda: all(record.epochs_done >= 1 for record in _running(folder)))
    before = {record.run_id: record.epochs_done for record in folder.listing().records}
    two_nodes.remove_one()
    two_nodes.nodes.append(two_nodes.add())
    assert process.wait(timeout=600) == 0, folder.log_path.read_text()[-3000:]
    assert "its job was lost (NodeDiedError" in folder.log_path.read_text()

    records = folder.listing().records
    assert {record.state for record in records} == {State.DONE} and len(records) == N_RUNS
    continued = [record for record in records if len(record.sessions) > 1]
    assert len(continued) == 2  # those that were on the node
    assert all(record.sessions[1].first_epoch > before[record.run_id] >= 1 for record in continued)
    _assert_each_epoch_was_done_once(folder)
    assert not verify(folder).findings
    assert not [path for path in folder.path.rglob("*") if ".tmp-" in path.name or path.name.endswith(".lock")]
    assert {record.spec.backbone.weights for record in records} == {str(tmp_path / "w.safetensors")}
    assert {record.provenance.weights_source for record in records} == {f"file:{tmp_path / 'w.safetensors'}"}
    assert all(str(folder.study_file_path) in record.provenance.command for record in records)
    alive = [node["NodeID"][:12] for node in _nodes(two_nodes) if node["Alive"]]
    assert not [path for node_id in alive for path in Path(tempfile.gettempdir()).glob(f"simtui-*/*-{node_id}")]
    if shared:
        return

    # Byte for byte what one machine alone makes of it.
    alone = make_study_folder(
        replace(folder.study, executor=ExecutorSection(), machine=replace(folder.study.machine, workers=2)),
        tmp_path / "alone",
    )
    assert start_study(alone).wait(timeout=600) == 0
    for record in records:
        for name in ("results.h5", "history.csv", f"checkpoints/epoch-{N_EPOCHS:03d}.safetensors"):
            paths = [each.run_path(record.run_id) / name for each in (folder, alone)]
            assert paths[0].read_bytes() == paths[1].read_bytes(), (record.run_id, name)
    names = [sorted(path.name for path in each.activations_path.iterdir()) for each in (folder, alone)]
    assert names[0] == names[1]


def test_stop_reaches_the_nodes_and_the_study_goes_on(two_nodes: TwoNodes, tmp_path: Path) -> None:
    folder = _study(tmp_path, two_nodes.cluster.address, epochs=60)
    process = start_study(folder)
    _until(folder, process, lambda: sum(record.epochs_done >= 1 for record in _running(folder)) >= 2)
    assert stop_study(folder).was_running
    assert process.wait(timeout=300) == 0
    records = folder.listing().records
    assert State.STOPPED in {record.state for record in records} <= {State.STOPPED, State.QUEUED, State.DONE}
    reached = {record.run_id: record.epochs_done for record in records}

    process = start_study(folder)
    _until(folder, process, lambda: any(record.epochs_done > reached[record.run_id] for record in _running(folder)))
    stop_study(folder, now=True)
    assert process.wait(timeout=300) == 0
    assert State.RUNNING not in {record.state for record in folder.listing().records}
    assert not list(folder.path.rglob("*.lock")) and not verify(folder).findings
    end_s = time.monotonic() + 30
    while any("engine.jobs.worker" in command for command in _commands()):
        assert time.monotonic() < end_s
        time.sleep(0.2)


def _commands() -> list[str]:
    """The commands of every process that works in a scratch folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if f"simtui-{os.getuid()}/" in text:
            found.append(text)
    return found


def test_an_address_at_which_nothing_answers_is_said(tmp_path: Path) -> None:
    folder = _study(tmp_path, "127.0.0.1:1")
    assert start_study(folder).wait(timeout=120) == 4
    failure = study_progress(folder).failure
    assert failure is not None and failure.where == 'executor.address = "127.0.0.1:1"'
    assert "no cluster answers there" in failure.problem


def test_a_folder_that_the_nodes_do_not_see_is_said(two_nodes: TwoNodes, tmp_path: Path) -> None:
    from engine.jobs.executors.ray_task import Ticket, _work_in_study

    folder = _study(tmp_path, two_nodes.cluster.address)
    ticket = Ticket(str(folder.path), "another", "", None)
    with pytest.raises(MachineError, match=r"is not there, or another, on .*"):
        _work_in_study(ticket)


def test_without_ray_the_command_that_installs_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    folder = _study(tmp_path, "")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MachineError, match=r'pip install "simtui\[ray\]"'):
        RayEngine(folder).begin()
    assert json.loads((folder.path / "stage.json").read_text() if folder.stage_path.exists() else "{}") == {}
