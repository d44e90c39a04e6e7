"""What analyses look at: read once, read again where files change, and what is missing is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.analysis.names import TABLE_NAMES, TABLE_USES
from engine.analysis.options import MEAN_OF_LAYERS, TableOptions, find_run
from engine.analysis.study_data import RunData, StudyData, StudyDataCache, grouped, read_study
from engine.analysis.tables import DATA_TABLES, TABLES, data_table
from engine.analysis.trajectory import trajectory_table
from engine.errors import StudyError
from engine.runs.results import Results, SimilarityKey, write_results
from engine.runs.study_folder import StudyFolder
from engine.study import run_specs
from tests.engine.analysis.made_runs import made_run
from tests.simtui.studies import made_results, similarity, study_of, write_run, write_study

KEY = SimilarityKey("target", "cls", "linear_cka")


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """One backbone, three methods, two seeds, two epochs."""
    return StudyFolder(write_study(tmp_path, study_of(("bundled:supervised",), seeds=2, epochs=2)))


def test_only_the_diagonal_is_kept_and_it_is_that_of_the_maps(folder: StudyFolder) -> None:
    data = read_study(folder)
    run = next(run for run in data.runs if run.record.spec.method == "full" and run.record.spec.seed == 1)
    expected = [similarity("full", 1, 2, i, i) for i in range(6)]
    assert run.diagonal[KEY][2] == pytest.approx(expected, abs=1e-6)
    assert run.similarity(KEY)[2] == pytest.approx(np.mean(expected), abs=1e-6)
    assert run.similarity(KEY, "block 3")[2] == pytest.approx(expected[2], abs=1e-6)
    assert run.n_epochs == 3 and len(data.runs) == 6 and data.layers[0] == "block 1"


def test_what_a_run_does_not_have_is_nan_not_an_error(folder: StudyFolder) -> None:
    run = read_study(folder).runs[0]
    assert np.isnan(run.similarity(SimilarityKey("origin", "cls", "linear_cka"))).all()
    assert np.isnan(run.similarity(KEY, "block 9")).all() and np.isnan(run.metric("nothing")).all()
    assert len(run.metric("nothing")) == 3


def test_files_that_have_not_changed_are_not_read_again(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = StudyDataCache(folder)
    first = cache.read()
    read: list[str] = []
    real = StudyFolder.results
    monkeypatch.setattr(StudyFolder, "results", lambda self, run_id: read.append(run_id) or real(self, run_id))
    assert [run.record for run in cache.read().runs] == [run.record for run in first.runs] and not read
    spec = first.runs[0].record.spec
    write_results(folder.run_path(spec.run_id), made_results(spec, 6, 2))
    assert cache.read().runs[0].n_epochs == 2
    assert read == [spec.run_id]


def test_a_new_record_is_taken_without_reading_results_again(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = StudyDataCache(folder)
    spec = cache.read().runs[0].record.spec
    monkeypatch.setattr(StudyFolder, "results", lambda self, run_id: pytest.fail("read again"))
    write_run_record(folder, spec)
    assert cache.read().runs[0].record.reason == "changed"


def write_run_record(folder: StudyFolder, spec) -> None:  # type: ignore[no-untyped-def]
    from engine.runs.record import read_record, write_record

    path = folder.run_path(spec.run_id)
    write_record(path, read_record(path).with_(reason="changed"))


def test_damaged_and_empty_runs_are_counted_and_the_others_kept(folder: StudyFolder) -> None:
    specs = run_specs(folder.study)
    (folder.run_path(specs[0].run_id) / "results.h5").write_bytes(b"nonsense")
    (folder.run_path(specs[1].run_id) / "results.h5").unlink()
    write_run(folder.path, specs[2], epochs_done=-1)
    (folder.run_path(specs[2].run_id) / "results.h5").unlink()
    data = read_study(folder)
    assert len(data.runs) == 3
    # Results that a run claims to have and that are not there are damage; a run that has not begun has none.
    assert {each.run_id for each in data.unreadable} == {specs[0].run_id, specs[1].run_id}
    assert data.n_without_results == 1
    table = trajectory_table(data, TableOptions())
    assert any(note.startswith("left out: 1 runs without results") for note in table.notes)
    assert any(note.startswith("left out: 2 runs that cannot be read") for note in table.notes)


def test_runs_that_are_under_way_are_in_trajectories_and_not_among_the_finals(folder: StudyFolder) -> None:
    write_run(folder.path, run_specs(folder.study)[0], epochs_done=1)
    data = read_study(folder)
    assert (len(data.runs), len(data.done)) == (6, 5)
    assert data.notes() == ()
    assert data.notes(finals_only=True) == ("left out: 1 of 6 runs, which have not come to their last epoch",)


def test_what_no_run_has_is_refused_with_what_there_is() -> None:
    data = StudyData((made_run("a"),))
    with pytest.raises(StudyError, match=r"block 7.*no run has this layer.*\n.*choose one of block 1, block 2"):
        data.check(KEY, "block 7")
    with pytest.raises(StudyError, match=r"origin cls linear_cka: this study has no such similarity\n.*target cls"):
        data.check(SimilarityKey("origin", "cls", "linear_cka"))
    StudyData(()).check(KEY, MEAN_OF_LAYERS)


@pytest.mark.parametrize(
    ("by", "expected"),
    [("backbone and method", [("x", "full"), ("x", "linear"), ("y", "full")]), ("backbone", [("x",), ("y",)]),
     ("method", [("full",), ("linear",)]), ("paradigm", [("supervised",), ("image-text",)])],
)  # fmt: skip
def test_groups_come_in_the_order_of_their_first_run(by: str, expected: list[tuple[str, ...]]) -> None:
    runs = [
        made_run("1", backbone="x"),
        made_run("2", backbone="x", method="linear"),
        made_run("3", backbone="y", paradigm="image-text"),
        made_run("4", backbone="x"),
    ]
    groups = grouped(runs, by)
    assert list(groups) == expected
    assert sum(len(group) for group in groups.values()) == 4


def test_a_run_is_found_by_a_part_of_its_name() -> None:
    records = [made_run("full_seed00").record, made_run("full_seed01").record]
    assert find_run(records, "seed01") is records[1]
    with pytest.raises(StudyError, match="fits 2 runs"):
        find_run(records, "full")
    with pytest.raises(StudyError, match="no run has this in its name"):
        find_run(records, "scratch")


def test_every_table_that_is_named_can_be_made_and_every_one_that_can_be_made_is_named() -> None:
    assert set(TABLE_NAMES) == set(TABLES) == set(TABLE_USES)


# Another value of each option, such as would show.
_OTHERS = {
    "run": "scratch_seed01", "epoch": 1, "layer": "block 2", "pooling": "feat", "measure": "debiased_cka",
    "by": "method", "eta": 0.1, "epsilon": 0.5, "reference": "0.99", "metric": "test_accuracy",
    "over": "runs and epochs", "width": 0.3,
    "min_count": 1, "until": 2, "head": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(TABLES) - {"attention_map", "quality"}))
def test_a_table_goes_by_the_options_that_are_named_and_by_no_others(name: str, tmp_path: Path) -> None:
    folder = StudyFolder(write_study(tmp_path, study_of(("bundled:supervised",), seeds=3, epochs=4)))
    plain = TableOptions(run="full_seed00", until=1)
    before = TABLES[name](folder, plain)
    for option, value in _OTHERS.items():
        after = TABLES[name](folder, replace(plain, **{option: value}))
        is_same = (after.columns, after.rows, after.notes) == (before.columns, before.rows, before.notes)
        assert is_same == (option not in TABLE_USES[name]), option


@pytest.mark.parametrize("name", sorted(DATA_TABLES))
def test_no_table_fails_on_a_study_without_results(name: str) -> None:
    table = data_table(StudyData(()), name, TableOptions(until=1))
    assert table.rows == () or all(cell is None or isinstance(cell, str | int) for row in table.rows for cell in row)
    assert table.columns


@pytest.mark.parametrize("name", sorted(DATA_TABLES))
def test_no_cell_of_any_table_is_nan(name: str, folder: StudyFolder) -> None:
    spec = run_specs(folder.study)[0]
    broken = made_results(spec, 6, 3)
    maps = {key: np.full_like(values, np.nan) for key, values in broken.similarity.items()}
    write_results(folder.run_path(spec.run_id), Results(broken.layers, maps, broken.quality))
    table = data_table(read_study(folder), name, TableOptions(until=1))
    assert not [cell for row in table.rows for cell in row if isinstance(cell, float) and not np.isfinite(cell)]


def test_runs_come_in_the_order_of_the_study_file(tmp_path: Path) -> None:
    backbones = ("bundled:supervised", "bundled:image-text")
    folder = StudyFolder(write_study(tmp_path, study_of(backbones, seeds=2, epochs=1)))
    found = [
        (run.record.spec.backbone.name, run.record.spec.method, run.record.spec.seed) for run in read_study(folder).runs
    ]
    methods = ("full", "linear", "scratch")
    assert found == [(backbone, method, seed) for backbone in backbones for method in methods for seed in range(2)]


def test_scratch_runs_that_are_one_network_are_said_not_to_be_independent() -> None:
    def scratch(name: str, backbone: str, seed: int, score: float) -> RunData:
        return made_run(name, 0.1, score, backbone=backbone, method="scratch", seed=seed)

    runs = (scratch("1", "x", 0, 0.7), scratch("2", "y", 0, 0.7), scratch("3", "x", 1, 0.6), scratch("4", "y", 1, 0.65))
    assert any(note.startswith("2 scratch runs have a twin") for note in StudyData(runs).notes())
    assert StudyData(runs[2:]).notes() == ()
