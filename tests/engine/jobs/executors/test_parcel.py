"""What travels to a node that does not see the study folder and back: whole, in order, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import DamagedError
from engine.files import sha256_file
from engine.jobs.executors.parcel import (
    Receiver,
    Sender,
    Update,
    as_bytes,
    common_files,
    files_of_needed,
    files_of_run,
    key_of,
    unpack_run,
)
from engine.jobs.launch import make_study_folder
from engine.jobs.plan import PLAN_FILE, Plan, write_plan
from engine.jobs.scheduler import queue_runs
from engine.jobs.stage import PROGRESS_FILE
from engine.runs.record import RunRecord, State, read_record, write_record
from engine.runs.results import HISTORY_FILE, RESULTS_FILE, write_results
from engine.runs.study_folder import StudyFolder
from engine.study import load_study, run_specs
from tests.simtui.studies import made_results
from tests.studies import write_study

KEY = "ab" * 32


class Trip:
    """One run at home and on a node."""

    def __init__(self, tmp_path: Path) -> None:
        self.home = make_study_folder(load_study(write_study(tmp_path, methods=["full"])), tmp_path / "home")
        queue_runs(self.home)
        write_plan(self.home.path / PLAN_FILE, Plan(("cpu",), 1, 1, "float32", "m", None))
        self.spec = run_specs(self.home.study)[0]
        self.home_path = self.home.run_path(self.spec.run_id)
        self.scratch = tmp_path / "scratch"
        files = {name: as_bytes(path) for name, path in files_of_run(self.home_path).items()}
        self.node_path = unpack_run(self.home.study, self.scratch, self.spec.run_id, files)
        self.sender = Sender(self.scratch, self.node_path)
        self.receiver = Receiver(self.home, self.spec.run_id)

    def epoch(self, epoch: int, state: State = State.RUNNING) -> RunRecord:
        """What a run writes in an epoch, in its order."""
        write_results(self.node_path, made_results(self.spec, 2, epoch + 1))
        last = self.node_path / "checkpoints" / "last"
        last.mkdir(parents=True, exist_ok=True)
        (last / f"epoch-{epoch:03d}.safetensors").write_bytes(bytes([epoch]) * 9)
        (last / f"epoch-{epoch - 2:03d}.safetensors").unlink(missing_ok=True)
        (self.scratch / "activations").mkdir(exist_ok=True)
        (self.scratch / "activations" / f"{KEY}.h5").write_bytes(b"activations")
        files = {name: sha256_file(self.node_path / name) for name in (RESULTS_FILE, HISTORY_FILE)}
        record = read_record(self.node_path).with_(
            state=state, epochs_done=epoch, activations={KEY: "epoch 1"}, files=files if state is State.DONE else {}
        )
        write_record(self.node_path, record)
        return record

    def send(self, *, is_last: bool = False) -> Update:
        update = self.sender.changes(is_last=is_last)
        assert update is not None
        return update


@pytest.fixture
def trip(tmp_path: Path) -> Trip:
    return Trip(tmp_path)


def test_a_node_works_with_its_own_copy_of_local_weights(trip: Trip, tmp_path: Path) -> None:
    files = common_files(trip.home)
    assert files["weights/0.safetensors"] == tmp_path / "w.safetensors" and PLAN_FILE in files
    assert StudyFolder(trip.scratch).study.backbone[0].weights == str(trip.scratch / "weights/0.safetensors")
    there = read_record(trip.node_path)
    assert there.run_id == trip.spec.run_id == there.spec.run_id
    key = key_of(files)
    (tmp_path / "w.safetensors").write_bytes(b"other")
    assert key_of(files) != key


def test_what_other_runs_have_made_stays_at_home(trip: Trip) -> None:
    trip.home.activations_path.mkdir()
    for name in (KEY, "cd" * 32):
        (trip.home.activations_path / f"{name}.h5").write_bytes(b"x")
    record = read_record(trip.home_path).with_(activations={KEY: "epoch 2", "cd" * 32: "reference"})
    write_record(trip.home_path, record)
    assert [name for name in common_files(trip.home) if name.startswith("activations")] == [
        f"activations/{'cd' * 32}.h5"
    ]


def test_a_run_that_is_made_from_another_takes_its_last_weights_along(tmp_path: Path) -> None:
    request = load_study(write_study(tmp_path, methods=["full", "wise_ft"]))
    home = make_study_folder(request, tmp_path / "home")
    queue_runs(home)
    full, mixed = (spec.run_id for spec in run_specs(home.study)[:2])
    for name in ("epoch-002.safetensors", "last/epoch-002.safetensors"):
        path = home.run_path(full) / "checkpoints" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert sorted(files_of_needed(home, mixed)) == [
        f"runs/{full}/checkpoints/epoch-002.safetensors", f"runs/{full}/run.json"
    ]  # fmt: skip
    assert files_of_needed(home, full) == {}


def test_an_epoch_comes_home_as_it_is_on_the_node(trip: Trip) -> None:
    trip.epoch(1)
    first = trip.send()
    assert next(iter(first.files)) == "run.json", "read against the order of writing"
    trip.receiver.take(first)
    for name in (RESULTS_FILE, HISTORY_FILE, "checkpoints/last/epoch-001.safetensors"):
        assert (trip.home_path / name).read_bytes() == (trip.node_path / name).read_bytes()
    assert (trip.home.activations_path / f"{KEY}.h5").read_bytes() == b"activations"
    found = read_record(trip.home_path)
    assert found.epochs_done == 1 and found.state is State.RUNNING
    assert found.spec == trip.spec and str(trip.home.study_file_path) in found.provenance.command
    assert trip.sender.changes() is None

    for epoch in (2, 3):
        trip.epoch(epoch)
    second = trip.send()
    assert second.activations == {} and "checkpoints/last/epoch-001.safetensors" not in second.names
    trip.receiver.take(second)
    assert sorted(path.name for path in (trip.home_path / "checkpoints/last").iterdir()) == [
        "epoch-002.safetensors", "epoch-003.safetensors",
    ]  # fmt: skip


def test_progress_comes_between_epochs_and_goes_at_the_end(trip: Trip) -> None:
    trip.epoch(1)
    trip.receiver.take(trip.send())
    (trip.node_path / PROGRESS_FILE).write_text("{}")
    update = trip.send()
    assert update == Update(progress="{}")
    trip.receiver.take(update)
    assert (trip.home_path / PROGRESS_FILE).read_text() == "{}"
    trip.receiver.close()
    assert not (trip.home_path / PROGRESS_FILE).exists()


def test_a_run_that_is_done_has_what_its_digests_say(trip: Trip) -> None:
    trip.epoch(2, State.DONE)
    update = trip.send(is_last=True)
    trip.receiver.take(update)
    assert read_record(trip.home_path).state is State.DONE and not (trip.home_path / "checkpoints" / "last").exists()


def test_a_run_whose_files_are_not_what_its_record_says_is_not_done(trip: Trip) -> None:
    trip.epoch(2, State.DONE)
    update = trip.send(is_last=True)
    damaged = {**update.files, RESULTS_FILE: update.files[RESULTS_FILE][:-1]}
    with pytest.raises(DamagedError, match=r"results\.h5 is not what the run ended with"):
        trip.receiver.take(replace(update, files=damaged))
    assert read_record(trip.home_path).state is State.QUEUED


@pytest.mark.parametrize(
    "name", ["../../study.toml", "/etc/passwd", "checkpoints/last/../../run.json", ".hidden", "x.py"]
)
def test_a_file_that_no_run_has_is_refused(trip: Trip, name: str) -> None:
    trip.epoch(1)
    update = trip.send()
    odd = replace(update, files={**update.files, name: np.zeros(3, np.uint8)})
    with pytest.raises(DamagedError, match="which is no file of a run"):
        trip.receiver.take(odd)
    odd = replace(update, activations={name: np.zeros(3, np.uint8)})
    with pytest.raises(DamagedError, match="which is no file of a run"):
        trip.receiver.take(odd)
    assert read_record(trip.home_path).epochs_done == -1


def test_the_record_of_another_run_is_refused(trip: Trip) -> None:
    other = replace(trip.spec, seed=7)
    trip.epoch(1)
    write_record(trip.node_path, replace(read_record(trip.node_path), run_id=other.run_id, spec=other))
    with pytest.raises(DamagedError, match="is the run"):
        trip.receiver.take(trip.send())
