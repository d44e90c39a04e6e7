"""Tables of made-up runs whose answers are known, and of the awkward cases: one seed, no origin set, missing epochs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.analysis.forgetting import NO_ORIGIN, SCRATCH, forgetting_table
from engine.analysis.options import TableOptions, find_run
from engine.analysis.runs import runs_table
from engine.analysis.study_data import RunData, StudyData, read_study
from engine.analysis.table import Spread
from engine.analysis.tables import table_of
from engine.analysis.trajectory import trajectories
from engine.errors import StudyError
from engine.export import to_csv, write_table
from engine.runs.record import Provenance, RunRecord, State, write_record
from engine.runs.results import Results, SimilarityKey, write_results
from engine.runs.study_folder import StudyFolder
from engine.study import MeasureSection, load_study, run_specs
from tests.engine.analysis.made_runs import study_of_records

KEY = SimilarityKey("target", "cls", "linear_cka")
STUDY = """
[study]
name = "s"
[data]
path = "d"
[[backbone]]
name = "bundled:supervised"
[finetune]
methods = ["full", "scratch"]
seeds = 2
epochs = 2
"""


def _results(seed: int, n_epochs: int) -> Results:
    results = Results(("blocks.0", "blocks.1"))
    for epoch in range(n_epochs):
        matrix = np.array([[1.0 - 0.1 * epoch - 0.02 * seed, 0.3], [0.2, 1.0 - 0.3 * epoch]])
        quality = {
            "test_accuracy": 0.5 + 0.1 * epoch + 0.1 * seed,
            "origin_knn": {0: 0.8, 2: 0.6 + 0.1 * seed}.get(epoch),
        }
        results = results.with_epoch({KEY: matrix}, quality)
    return results


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """Two seeds of two methods; the second seed of `scratch` has only come to epoch 1."""
    (tmp_path / "study.toml").write_text(STUDY)
    folder = StudyFolder(tmp_path)
    for spec in run_specs(load_study(tmp_path / "study.toml")):
        is_short = spec.method == "scratch" and spec.seed == 1
        results = _results(spec.seed, 2 if is_short else 3)
        record = RunRecord(
            spec.run_id,
            spec,
            State.STOPPED if is_short else State.DONE,
            epochs_done=results.n_epochs - 1,
            first={"origin_knn": 0.8},
            last={"origin_knn": 0.6 + 0.1 * spec.seed, "test_accuracy": 0.7, "linear_cka_cls": 0.9},
            provenance=Provenance(paradigm="supervised", dataset_is_synthetic=True),
        )
        write_record(folder.run_path(spec.run_id), record)
        write_results(folder.run_path(spec.run_id), results)
    return folder


def test_spread_is_the_sample_standard_deviation_of_what_there_is() -> None:
    spread = Spread.of([1.0, 3.0, None, math.nan])
    assert (spread.mean, spread.n) == (2.0, 2)
    assert spread.sd == pytest.approx(math.sqrt(2))
    assert Spread.of([5.0]) == Spread(5.0, None, 1)
    assert Spread.of([]) == Spread(None, None, 0)


def test_trajectories_average_each_epoch_over_the_runs_that_reached_it(folder: StudyFolder) -> None:
    data = read_study(folder)
    full, scratch = trajectories(data, TableOptions(layer="blocks.0"))
    assert (full.method, full.similarity.epochs) == ("full", (0, 1, 2))
    assert full.similarity.spreads[2].mean == pytest.approx(0.8 - 0.01)
    assert full.similarity.spreads[2].sd == pytest.approx(0.02 / math.sqrt(2), rel=1e-4)
    assert full.accuracy.spreads[1].mean == pytest.approx(0.65)
    assert [spread.n for spread in scratch.similarity.spreads] == [2, 2, 1]
    (mean_of_layers, _) = trajectories(data, TableOptions())
    assert mean_of_layers.similarity.spreads[1].mean == pytest.approx((0.89 + 0.7) / 2, rel=1e-5)


def test_an_undefined_layer_makes_the_mean_over_layers_undefined(folder: StudyFolder) -> None:
    record = folder.listing().records[0]
    broken = Results(("blocks.0", "blocks.1")).with_epoch({KEY: np.array([[1.0, 0], [0, math.nan]])}, {})
    (found,) = trajectories(StudyData((RunData.of(record, broken),)), TableOptions())
    assert found.similarity.spreads[0] == Spread(None, None, 0)


def test_a_run_without_the_layer_is_left_out(folder: StudyFolder) -> None:
    data = read_study(folder)
    assert trajectories(data, TableOptions(layer="blocks.11")) == ()


def test_forgetting_is_before_minus_after_over_the_runs_that_are_done(folder: StudyFolder) -> None:
    table = forgetting_table(read_study(folder), TableOptions())
    assert table.column("method") == ("full", "scratch")
    assert table.column("n_seeds") == (2, 1)
    assert table.column("drop_mean")[0] == pytest.approx(0.15)
    assert table.column("drop_sd")[0] == pytest.approx(0.1 / math.sqrt(2))
    assert table.column("drop_relative_mean")[0] == pytest.approx(0.1875)
    assert table.column("drop_sd")[1] is None
    assert SCRATCH in table.notes


def test_without_an_origin_set_the_forgetting_table_says_so(folder: StudyFolder) -> None:
    records = [replace(record, first={}, last={}) for record in folder.listing().records]
    table = forgetting_table(study_of_records(records), TableOptions())
    assert table.notes[0] == NO_ORIGIN
    assert set(table.column("drop_mean")) == {None}


def test_heatmap_names_the_side_of_the_pre_trained_model(folder: StudyFolder) -> None:
    table = table_of(folder, "heatmap", TableOptions(run="full_seed01", epoch=1))
    assert table.columns == ("epoch", "layer_ref", "layer", "linear_cka_cls_target")
    cells = {row[1:3]: row[3] for row in table.rows}
    assert cells["blocks.0", "blocks.1"] == pytest.approx(0.3)
    assert cells["blocks.1", "blocks.0"] == pytest.approx(0.2)
    assert table_of(folder, "heatmap", TableOptions(run="full_seed01")).column("epoch") == (2,) * 4


def test_a_table_names_its_estimator_and_says_where_it_is_inflated(folder: StudyFolder) -> None:
    listed = folder.listing().records
    for record in listed:
        sized = replace(record.provenance, n_probe=96, n_features=128)
        write_record(folder.run_path(record.run_id), replace(record, provenance=sized))
    inflated = "linear CKA (biased) is inflated: n = 96 is not >> d = 128"
    for name, options in (
        ("runs", TableOptions()),
        ("forgetting", TableOptions()),
        ("trajectory", TableOptions()),
        ("heatmap", TableOptions(run="full_seed01")),
    ):
        notes = table_of(folder, name, options).notes
        assert any(note.startswith("linear_cka: linear CKA (biased); Kornblith et al. 2019") for note in notes), name
        assert notes.count(inflated) == 1, name


def test_similarities_are_those_that_the_study_asks_for(folder: StudyFolder) -> None:
    asked = MeasureSection(similarity=("rsa", "debiased_cka"))
    records = [
        replace(record, spec=replace(record.spec, measure=asked), last={"rsa_cls": 0.25, "debiased_cka_feat": 0.5})
        for record in folder.listing().records
    ]
    columns = ("rsa_cls", "rsa_feat", "debiased_cka_cls", "debiased_cka_feat")
    table = runs_table(records)
    assert table.columns[-7:-3] == columns
    assert table.rows[0][-7:-3] == (0.25, None, None, 0.5)
    table = forgetting_table(study_of_records(records), TableOptions())
    of_origin = tuple(f"{name}_origin" for name in columns)
    assert table.columns[-16:] == tuple(f"{name}_{what}" for name in (*columns, *of_origin) for what in ("mean", "sd"))
    assert table.column("rsa_cls_mean")[0] == 0.25
    assert TableOptions().key(records).measure == "rsa"
    assert TableOptions(measure="debiased_cka").key(records).measure == "debiased_cka"


def test_quality_of_layers_is_one_row_a_layer_and_epoch(folder: StudyFolder) -> None:
    record = folder.listing().records[0]
    results = folder.results(record.run_id)
    metrics = {
        "effective_rank_cls": np.array([[3.0, 2.0], [2.5, 1.5], [math.nan, 1.0]]),
        "uniformity_cls": np.zeros((3, 2)),
        "effective_rank_feat": np.ones((3, 2)),
    }
    write_results(folder.run_path(record.run_id), replace(results, layer_quality=metrics))
    table = table_of(folder, "quality", TableOptions(run=record.run_id))
    assert table.columns == ("epoch", "layer", "effective_rank_cls", "uniformity_cls")
    assert table.rows[1] == (0, "blocks.1", 2.0, 0.0)
    assert table.rows[4] == (2, "blocks.0", None, 0.0)
    assert table.notes[0].startswith("effective_rank: effective rank (RankMe); exp of the entropy")
    assert table_of(folder, "quality", TableOptions(run=record.run_id, pooling="feat")).rows[5] == (2, "blocks.1", 1.0)


def test_every_table_says_that_the_images_are_synthetic_or_names_its_runs(folder: StudyFolder) -> None:
    runs = table_of(folder, "runs", TableOptions())
    assert set(runs.column("dataset_is_synthetic")) == {"yes"}
    assert sorted(runs.column("state")) == ["done", "done", "done", "stopped"]
    assert len(table_of(folder, "trajectory", TableOptions()).rows) == 6


def test_heatmap_beside_that_of_another_run(folder: StudyFolder) -> None:
    table = table_of(folder, "heatmap", TableOptions(run="full_seed01", beside="full_seed00"))
    mine = table_of(folder, "heatmap", TableOptions(run="full_seed01"))
    theirs = table_of(folder, "heatmap", TableOptions(run="full_seed00"))
    measure = mine.columns[-1]
    assert table.column(measure) == mine.column(measure)
    assert table.column(f"{measure}_pinned") == theirs.column(measure)
    assert set(table.column("pinned_run")) == {find_run(folder.listing().records, "full_seed00").run_id}


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ("nonsense", TableOptions(), "choose one of runs, heatmap, "),
        ("heatmap", TableOptions(), "which run"),
        ("heatmap", TableOptions(run="seed"), "fits 4 runs"),
        ("heatmap", TableOptions(run="other"), "no run has this in its name"),
        ("heatmap", TableOptions(run="full_seed00", epoch=9), "choose 0 to 2"),
        ("heatmap", TableOptions(run="full_seed00", beside="other"), "no run has this in its name"),
        ("heatmap", TableOptions(run="full_seed00", beside="full_seed01", epoch=9), "choose 0 to 2"),
        ("heatmap", TableOptions(run="full_seed00", beside="full_seed01", interval=True), "leave one of them out"),
        ("heatmap", TableOptions(run="full_seed00", pooling="feat"), "choose one of target/cls/linear_cka"),
        ("trajectory", TableOptions(layer="blocks.9"), "choose one of blocks.0, blocks.1"),
        ("trajectory", TableOptions(measure="rsa"), "choose target cls linear_cka"),
        ("trajectory", TableOptions(measure="linear_ckq"), 'did you mean "linear_cka"?'),
        (
            "heatmap",
            TableOptions(run="full_seed00", measure="zzz"),
            "no such measure\n  fix: choose one of linear_cka,",
        ),
        ("quality", TableOptions(), "which run"),
        ("quality", TableOptions(run="full_seed00"), "add one of effective_rank, participation_ratio, "),
    ],
)
def test_what_is_not_there_is_named_with_what_there_is(
    folder: StudyFolder, table: str, options: TableOptions, message: str
) -> None:
    with pytest.raises(StudyError) as caught:
        table_of(folder, table, options)
    assert message in str(caught.value)


def test_csv_has_nine_digits_and_no_cell_that_a_spreadsheet_would_run(folder: StudyFolder, tmp_path: Path) -> None:
    table = replace(
        table_of(folder, "runs", TableOptions()),
        columns=("a",),
        rows=(("=cmd()",), (0.123456789123,), (None,), (-1.5,)),
    )
    assert to_csv(table) == 'a\n\'=cmd()\n0.123456789\n""\n-1.5\n'
    write_table(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == to_csv(table)
    assert to_csv(replace(table, rows=((math.inf,), ("@x",), ("a\nb",)))) == 'a\n""\n\'@x\n"a\nb"\n'
