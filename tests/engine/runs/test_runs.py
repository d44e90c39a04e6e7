"""Records, results and the study folder: what is written reads back, what is damaged is named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.errors import DamagedError, StudyError
from engine.hdf5 import NamedArray, write_arrays
from engine.lock import locked
from engine.runs.record import Provenance, RunRecord, Session, State, read_record, write_record
from engine.runs.results import Results, SimilarityKey, read_results, write_results
from engine.runs.study_folder import StudyFolder
from engine.sealed import write_sealed_json
from engine.study import freeze_study, load_study, run_specs

KEY = SimilarityKey("target", "cls", "linear_cka")


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    (tmp_path / "study.toml").write_text('[study]\nname="s"\n[data]\npath="d"\n[[backbone]]\nname="bundled:supervised"')
    study = load_study(tmp_path / "study.toml")
    (tmp_path / "study.toml").write_text(freeze_study(study))
    return StudyFolder(tmp_path)


def _record(folder: StudyFolder) -> RunRecord:
    spec = run_specs(folder.study)[0]
    return RunRecord(spec.run_id, spec, State.DONE, first={"a": 0.5}, last={"a": None}, epoch_seconds=(1.5, 2.0))


def _results(n_epochs: int) -> Results:
    results = Results(("blocks.0", "blocks.1"))
    for epoch in range(n_epochs):
        results = results.with_epoch(
            {KEY: np.full((2, 2), epoch / 10)}, {"test_accuracy": 0.1 * epoch, "origin_knn": None}
        )
    return results


def test_a_record_reads_back_equal(folder: StudyFolder) -> None:
    record = replace(_record(folder), provenance=Provenance(paradigm="supervised"))
    write_record(folder.run_path(record.run_id), record)
    assert read_record(folder.run_path(record.run_id)) == record
    assert folder.record(record.run_id) == record
    assert folder.listing().records == (record,)


def test_a_record_of_the_first_schema_is_read(folder: StudyFolder) -> None:
    record = _record(folder)
    path = folder.run_path(record.run_id) / "run.json"
    write_record(path.parent, record)
    raw = json.loads(path.read_text())
    for name in ("sha256", "sessions", "files", "activations", "attempts"):
        raw.pop(name)
    raw["provenance"] |= {"device": "cpu", "precision": "float32", "threads": 2, "versions": {"torch": "2"}}
    path.write_text(json.dumps(raw | {"schema": 1, "results_sha256": "ab"}))
    session = Session(0, "", "cpu", "float32", 2, {"torch": "2"})
    assert read_record(path.parent) == replace(record, sessions=(session,), files={"results.h5": "ab"})


def test_a_damaged_record_is_listed_as_damaged_and_the_others_stay(folder: StudyFolder) -> None:
    record = _record(folder)
    write_record(folder.run_path(record.run_id), record)
    for name, content in {"wrong": {"run_id": 3}, "newer": {"schema": 9}}.items():
        write_sealed_json(folder.run_path(name) / "run.json", content)
    whole = (folder.run_path(record.run_id) / "run.json").read_text()
    for name, text in {"cut": "{", "bare": "{}", "changed": whole.replace("done", "gone")}.items():
        folder.run_path(name).mkdir()
        (folder.run_path(name) / "run.json").write_text(text)
    copied = folder.run_path("copied")
    write_record(copied, record)
    listing = folder.listing()
    assert listing.records == (record,)
    problems = {damaged.run_id: str(damaged.error) for damaged in listing.damaged}
    assert "not readable as JSON" in problems["cut"]
    assert "has no digest" in problems["bare"]
    assert "its digest does not match" in problems["changed"]
    assert "run_id: " in problems["wrong"]
    assert "written by schema 9; this simtui reads up to 2" in problems["newer"]
    assert "holds the run" in problems["copied"]


def test_a_run_that_nobody_runs_any_more_shows_as_interrupted(folder: StudyFolder) -> None:
    record = replace(_record(folder), state=State.RUNNING)
    path = folder.run_path(record.run_id)
    write_record(path, record)
    assert folder.record(record.run_id).state is State.INTERRUPTED
    with locked(path / "run.lock"):
        assert folder.record(record.run_id).state is State.RUNNING


def test_a_listing_in_which_nothing_has_changed_is_the_same_one(folder: StudyFolder) -> None:
    record = _record(folder)
    path = folder.run_path(record.run_id)
    write_record(path, record)
    first = folder.listing()
    assert folder.listing() is first
    write_record(path, replace(record, state=State.RUNNING))
    with locked(path / "run.lock"):
        assert folder.listing().records[0].state is State.RUNNING
    assert folder.listing().records[0].state is State.INTERRUPTED  # its record is as before
    write_record(path, replace(record, state=State.FAILED))
    assert folder.listing().records[0].state is State.FAILED
    shutil.rmtree(path)
    assert folder.listing().records == ()


def test_results_read_back_equal_and_shorten(tmp_path: Path) -> None:
    results = _results(3)
    write_results(tmp_path, results)
    found = read_results(tmp_path)
    assert found.layers == results.layers
    np.testing.assert_array_equal(found.similarity[KEY], results.similarity[KEY])
    np.testing.assert_array_equal(found.quality["origin_knn"], [np.nan] * 3)
    assert found.first_epochs(2).n_epochs == 2
    assert (tmp_path / "history.csv").read_text().splitlines() == [
        "epoch,test_accuracy,origin_knn", "0,0,", "1,0.100000001,", "2,0.200000003,",
    ]  # fmt: skip


def test_quality_of_layers_reads_back_and_an_older_file_has_none(tmp_path: Path) -> None:
    write_results(tmp_path / "old", _results(2))
    assert read_results(tmp_path / "old").layer_quality == {}
    rows = {"effective_rank_cls": np.array([2.0, np.nan]), "effective_rank_feat": np.array([1.0, 3.0])}
    results = _results(2).with_epoch({KEY: np.zeros((2, 2))}, {"test_accuracy": 0.3}, rows)
    write_results(tmp_path / "new", results)
    found = read_results(tmp_path / "new")
    np.testing.assert_array_equal(found.layer_quality["effective_rank_cls"], [[np.nan] * 2, [np.nan] * 2, [2, np.nan]])
    assert set(found.quality) == {"test_accuracy", "origin_knn"}
    assert found.first_epochs(2).layer_quality["effective_rank_feat"].shape == (2, 2)
    assert "effective_rank" not in (tmp_path / "new" / "history.csv").read_text()
    xarray = pytest.importorskip("xarray")
    with xarray.open_datatree(tmp_path / "new" / "results.h5", engine="h5netcdf") as tree:
        assert tree["quality/effective_rank_cls"].dims == ("epoch", "layer")


def test_a_metric_of_layers_that_some_epochs_lack_is_nan_there(tmp_path: Path) -> None:
    """Attention is looked at before training and after it, and not between."""
    results = Results(("blocks.0", "blocks.1"))
    rows: list[dict[str, np.ndarray] | None] = [
        {"attention_cls": np.array([1.0, 2.0]), "rank_cls": np.array([5.0, 6.0])},
        {"rank_cls": np.array([7.0, 8.0])},
        None,
        {"attention_cls": np.array([3.0, 4.0]), "late_cls": np.array([9.0, 9.0])},
    ]
    for each in rows:
        results = results.with_epoch({KEY: np.zeros((2, 2))}, {"test_accuracy": 0.5}, each)
    write_results(tmp_path, results)
    nan = [np.nan, np.nan]
    expected = {
        "attention_cls": [[1, 2], nan, nan, [3, 4]], "rank_cls": [[5, 6], [7, 8], nan, nan],
        "late_cls": [nan, nan, nan, [9, 9]],
    }  # fmt: skip
    for found in (results, read_results(tmp_path)):
        assert found.layer_quality.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(found.layer_quality[name], np.array(values, np.float32))


def test_the_same_results_are_the_same_bytes_however_they_came_about(tmp_path: Path) -> None:
    write_results(tmp_path / "whole", _results(3))
    write_results(tmp_path / "part", _results(2))
    found = read_results(tmp_path / "part")
    last = {KEY: np.full((2, 2), 0.2)}, {"origin_knn": None, "test_accuracy": 0.2}
    write_results(tmp_path / "part", found.with_epoch(*last))
    for name in ("results.h5", "history.csv"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_results_whose_shapes_do_not_fit_together_are_damaged(tmp_path: Path) -> None:
    coordinates = {"epoch": np.arange(2), "layer": np.array(["a"]), "layer_ref": np.array(["a"]), "other": np.arange(3)}
    for name, dims, message in (
        ("/similarity/target/cls/linear_cka", ("epoch", "other", "layer"), "has shape (2, 3, 1), need (2, 1, 1)"),
        ("/quality/loss", ("other",), "quality loss has shape (3,), need (2,)"),
        ("/quality/rank_cls", ("epoch", "other"), "quality rank_cls has shape (2, 3), need (2, 1)"),
    ):
        shape = tuple(len(coordinates[dim]) for dim in dims)
        write_arrays(tmp_path / "results.h5", {name: NamedArray(np.zeros(shape), dims)}, coordinates, {})
        with pytest.raises(DamagedError) as caught:
            read_results(tmp_path)
        assert message in str(caught.value)


def test_a_folder_that_is_no_study_and_a_run_that_is_not_there_are_named(tmp_path: Path, folder: StudyFolder) -> None:
    with pytest.raises(StudyError, match="not a study folder"):
        engine.open_study(tmp_path / "none")
    with pytest.raises(StudyError, match="no such run"):
        folder.record("none")
    assert engine.open_study(tmp_path).study == folder.study


def test_numbers_that_are_not_json_are_never_written(folder: StudyFolder) -> None:
    record = replace(_record(folder), last={"a": float("nan")})
    path = folder.run_path(record.run_id)
    write_record(path, record)
    assert json.loads((path / "run.json").read_text())["last"] == {"a": None}


def test_results_whose_rows_are_other_layers_come_back(tmp_path: Path) -> None:
    maps = {KEY: np.arange(6, dtype=np.float32).reshape(2, 3) / 10}
    made = Results(("a", "b", "c"), layers_ref=("x", "y")).with_epoch(maps, {})
    write_results(tmp_path, made)
    found = read_results(tmp_path)
    assert (found.rows, found.layers) == (("x", "y"), ("a", "b", "c"))
    np.testing.assert_array_equal(found.similarity[KEY][0], maps[KEY])
    assert found.first_epochs(1).rows == found.rows
    same = Results(("a", "b")).with_epoch({KEY: np.eye(2)}, {})
    write_results(tmp_path, same)
    assert read_results(tmp_path).layers_ref == () and read_results(tmp_path).rows == ("a", "b")
