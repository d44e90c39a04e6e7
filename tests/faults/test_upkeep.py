"""`verify` names each damaged file and what makes it again, and that command does; `clean` frees only what it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.cleaning import TRAINING, free, groups_of
from engine.errors import LockedError
from engine.integrity import verify
from engine.lock import locked
from engine.runs.record import State, read_record, write_record
from engine.runs.study_folder import StudyFolder
from tests.faults.conftest import Undisturbed
from tests.faults.forks import lasting_files, new_folder, work
from tests.faults.test_bit_flips import flip


@pytest.fixture(scope="module")
def finished(undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    folder = new_folder(undisturbed.request_path, tmp_path_factory.mktemp("finished") / "study")
    assert work(folder) == 0
    return folder


@pytest.fixture
def folder(finished: StudyFolder, tmp_path: Path) -> StudyFolder:
    return StudyFolder(Path(shutil.copytree(finished.path, tmp_path / "study")))


KINDS = ("run.json", "results.h5", "history.csv", "attention.h5", "checkpoints/epoch-006.safetensors")


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_of_a_run_is_named_and_its_command_makes_it_again(
    folder: StudyFolder, undisturbed: Undisturbed, name: str
) -> None:
    run_path = folder.run_path(folder.listing().records[0].run_id)
    flip(run_path / name, 4_000)
    report = verify(folder)
    assert [finding.path for finding in report.findings if finding.path.name != "history.csv"] == (
        [] if name == "history.csv" else [run_path / name]
    )
    (finding,) = report.findings
    assert finding.command == f"rm -r {run_path} && simtui run {folder.path}"
    shutil.rmtree(run_path)
    assert work(folder) == 0
    assert lasting_files(folder) == undisturbed.files
    assert verify(folder).findings == ()


def test_a_missing_file_of_a_run_is_named(folder: StudyFolder) -> None:
    run_path = folder.run_path(folder.listing().records[0].run_id)
    (run_path / "results.h5").unlink()
    assert [(each.path.name, each.problem) for each in verify(folder).findings] == [("results.h5", "is missing")]


def test_another_runs_results_are_not_taken_for_its_own(folder: StudyFolder) -> None:
    ours, theirs = (folder.run_path(record.run_id) for record in folder.listing().records[:2])
    shutil.copy(theirs / "results.h5", ours / "results.h5")
    shutil.copy(theirs / "history.csv", ours / "history.csv")
    assert {each.problem for each in verify(folder).findings} == {"is another file than the run ended with"}


def test_damaged_activations_and_images_are_named_and_made_again(folder: StudyFolder, undisturbed: Undisturbed) -> None:
    record = folder.listing().records[0]
    roles = {role: folder.activations_path / f"{key}.h5" for key, role in record.activations.items()}
    pixels_path = next(folder.probes_path.rglob("*.npy"))
    for path in (roles["reference"], roles["epoch 6"], pixels_path):
        flip(path, 30_000)
    commands = {finding.path: finding.command for finding in verify(folder).findings}
    assert commands == {
        roles["reference"]: f"rm {roles['reference']} && simtui run {folder.path}",
        roles["epoch 6"]: f"rm -r {folder.run_path(record.run_id)} && simtui run {folder.path}",
        pixels_path: f"rm {pixels_path.with_suffix('.json')} && simtui run {folder.path}",
    }
    roles["reference"].unlink()
    pixels_path.with_suffix(".json").unlink()
    shutil.rmtree(folder.run_path(record.run_id))
    assert work(folder) == 0
    assert verify(folder).findings == ()
    assert lasting_files(folder) == undisturbed.files


def test_clean_frees_what_nobody_needs_and_nothing_else(folder: StudyFolder, undisturbed: Undisturbed) -> None:
    (folder.path / "runs" / "x.h5.tmp-77").write_bytes(b"1" * 5000)
    (folder.activations_path / f"{'0' * 64}.h5").write_bytes(b"1" * 5000)
    old = folder.probes_path / ("0" * 16)
    old.mkdir()
    (old / "1.npy").write_bytes(b"1" * 5000)
    last = folder.run_path(folder.listing().records[0].run_id) / "checkpoints" / "last"
    last.mkdir()
    groups = {group.name: group for group in groups_of(folder)}
    assert [name for name, group in groups.items() if group.is_free] == [
        "leftovers", "resume points", "unused activations", "unused images",
    ]  # fmt: skip
    assert groups["leftovers"].n_bytes >= 5000
    assert free(folder, [name for name, group in groups.items() if group.is_free]) >= 15_000
    assert not [group for group in groups_of(folder) if group.is_free] and not old.exists() and not last.exists()
    assert lasting_files(folder) == undisturbed.files
    assert verify(folder).findings == ()


def test_clean_frees_more_if_asked_and_the_records_know(folder: StudyFolder) -> None:
    asked = ["checkpoints", "activations", "images", "reference activations", "attention maps"]
    assert {group.name for group in groups_of(folder)} == set(asked)
    free(folder, asked)
    assert groups_of(folder) == ()
    assert verify(folder).findings == ()
    assert {len(record.files) for record in folder.listing().records} == {2}
    assert work(folder) == 0 and verify(folder).findings == ()


def test_clean_frees_the_maps_of_trained_runs_and_their_records_forget_them(folder: StudyFolder) -> None:
    group = {group.name: group for group in groups_of(folder)}["attention maps"]
    runs = {record.run_id: record for record in folder.listing().records}
    trained = {run_id for run_id, record in runs.items() if record.spec.method != "linear"}
    assert {path.parent.name for path in group.paths} == trained and len(trained) == 2
    assert {run_id for run_id, record in runs.items() if "attention.h5" in record.files} == trained
    assert group.cost == TRAINING and free(folder, ["attention maps"]) == group.n_bytes > 0
    assert not any(path.exists() for path in group.paths)
    assert not any("attention.h5" in record.files for record in folder.listing().records)
    assert "attention maps" not in {group.name for group in groups_of(folder)}
    assert work(folder) == 0 and verify(folder).findings == ()
    assert not any(path.exists() for path in group.paths)  # runs that are done are not run again for them


def test_maps_of_the_pre_trained_model_are_made_again_and_then_needed(folder: StudyFolder) -> None:
    record = folder.listing().records[0]
    path = folder.activations_path / f"{record.provenance.attention_reference}.h5"
    whole = path.read_bytes()
    free(folder, ["reference activations"])
    assert not path.exists() and verify(folder).findings == ()
    assert work(folder) == 0
    assert path.read_bytes() == whole
    groups = {group.name: group for group in groups_of(folder)}
    assert path in groups["reference activations"].paths
    assert path not in groups["unused activations"].paths


def test_a_damaged_record_keeps_what_it_may_need(folder: StudyFolder) -> None:
    record = folder.listing().records[0]
    (folder.run_path(record.run_id) / "run.json").write_text("{")
    assert "unused activations" not in {group.name for group in groups_of(folder)}


def test_a_running_study_is_not_cleaned(folder: StudyFolder) -> None:
    with locked(folder.lock_path), pytest.raises(LockedError):
        free(folder, ["checkpoints"])
    assert "checkpoints" in {group.name for group in groups_of(folder)}


def test_an_unfinished_run_has_a_history_one_epoch_behind_at_most(folder: StudyFolder) -> None:
    record = folder.listing().records[0]
    path = folder.run_path(record.run_id)
    lines = (path / "history.csv").read_text().splitlines(keepends=True)
    write_record(path, read_record(path).with_(state=State.STOPPED))
    (path / "history.csv").write_text("".join(lines[:-1]))
    assert verify(folder).findings == ()
    (path / "history.csv").write_text("".join(lines[:-2]))
    assert [finding.path.name for finding in verify(folder).findings] == ["history.csv"]


def test_what_lies_behind_a_link_is_not_freed(folder: StudyFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "checkpoints").mkdir(parents=True)
    for name in ("1.npy", "checkpoints/epoch-001.safetensors"):
        (outside / name).write_text("mine")
    record = folder.listing().records[0]
    for path, target in (
        (folder.probes_path / record.provenance.manifest_digest[:16], outside),
        (folder.run_path(record.run_id) / "checkpoints", outside / "checkpoints"),
    ):
        shutil.rmtree(path)
        path.symlink_to(target)
    free(folder, [group.name for group in groups_of(folder)])
    assert (outside / "1.npy").exists() and (outside / "checkpoints" / "epoch-001.safetensors").exists()
