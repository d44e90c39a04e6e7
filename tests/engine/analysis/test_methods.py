"""The table of methods: the figures of the other tables side by side, each method against full fine-tuning."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest

from engine.analysis.comparison import PAIRED_NOTE, comparison_table
from engine.analysis.distribution import distribution_table
from engine.analysis.forgetting import NO_ORIGIN, SCRATCH, forgetting_table
from engine.analysis.options import TableOptions
from engine.analysis.space import space_counts_table
from engine.analysis.study_data import RunData, StudyData, in_study_order
from engine.analysis.table import Cell, Table
from engine.analysis.tables import DATA_TABLES, data_table
from engine.analysis.trajectory import trajectories
from engine.export import to_csv, to_latex, to_markdown
from engine.runs.record import State
from engine.study import BackboneSection, DataSection, Study, StudySection
from tests.engine.analysis.made_runs import COLUMN, KEY, made_run, study

METHODS = ("full", "linear", "lora", "wise_ft", "wise_ft:0.25")


def made_study(*, origin: bool = True) -> StudyData:
    """Four seeds of each method on two backbones; the further down the list, the more similar and the less accurate."""
    rng = np.random.default_rng(0)
    runs = []
    for backbone in ("bundled:supervised", "bundled:image-text"):
        for place, method in enumerate(METHODS):
            for seed in range(4):
                similarity, score = 0.6 + 0.08 * place, 0.9 - 0.02 * place
                knn = (0.7, math.nan, 0.4 + 0.06 * place + 0.01 * seed)
                run = made_run(
                    f"{backbone}-{method}-{seed}", similarity + 0.02 * rng.random(), score + 0.01 * rng.random(),
                    backbone=backbone, method=method, seed=seed, quality={"origin_knn": knn} if origin else {},
                )  # fmt: skip
                runs.append(without_middle(run) if method.startswith("wise_ft") else run)
    return study(*runs)


def without_middle(run: RunData) -> RunData:
    """As a mixture is whose study keeps the last weights only."""
    diagonal = {key: values.copy() for key, values in run.diagonal.items()}
    quality = {name: values.copy() for name, values in run.quality.items()}
    for values in (*diagonal.values(), *quality.values()):
        values[1] = math.nan
    return replace(run, diagonal=diagonal, quality=quality)


def row_of(table: Table, **names: str) -> dict[str, Cell]:
    rows = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    found = [row for row in rows if all(row[name] == value for name, value in names.items())]
    assert len(found) == 1
    return found[0]


def test_its_figures_are_those_of_the_tables_of_each_quantity() -> None:
    data, options = made_study(), TableOptions(eta=0.75, epsilon=0.05)
    table = data_table(data, "methods", options)
    assert len(table.rows) == 2 * len(METHODS)
    distribution, comparison = distribution_table(data, options), comparison_table(data, options)
    counts, forgetting = space_counts_table(data, options), forgetting_table(data, options)
    for backbone in ("bundled:supervised", "bundled:image-text"):
        for method in METHODS:
            names = {"backbone": backbone, "method": method}
            row = row_of(table, **names)
            assert row["n_runs"] == 4
            for quantity in ("test_accuracy", COLUMN):
                theirs = row_of(distribution, quantity=quantity, **names)
                for ours, other in (("mean", "mean"), ("sd", "sd"), ("low", "mean_low"), ("high", "mean_high")):
                    assert row[f"{quantity}_{ours}"] == pytest.approx(theirs[other], rel=1e-6)
                if method == "full":
                    assert {row[f"{quantity}_{what}"] for what in ("difference", "delta", "effect")} == {None}
                    continue
                pair = row_of(comparison, backbone=backbone, method_a="full", method_b=method, quantity=quantity)
                assert row[f"{quantity}_difference"] == pytest.approx(-float(pair["mean_difference"] or 0))
                assert row[f"{quantity}_difference_low"] == pytest.approx(-float(pair["mean_difference_high"] or 0))
                assert row[f"{quantity}_delta"] == pytest.approx(-float(pair["cliffs_delta"] or 0))
                if method.startswith("wise_ft"):  # made from full: in pairs, without an interval of delta
                    assert (pair["n_pairs"], pair["cliffs_delta_high"], row[f"{quantity}_delta_low"]) == (4, None, None)
                else:
                    assert row[f"{quantity}_delta_low"] == pytest.approx(-float(pair["cliffs_delta_high"] or 0))
                assert row[f"{quantity}_effect"] == pair["effect"]
            drop = row_of(forgetting, **names)
            assert row["origin_knn_drop_mean"] == pytest.approx(drop["drop_mean"])
            assert row["origin_knn_drop_low"] == pytest.approx(drop["drop_low"])
            inside = row_of(counts, **names)
            assert (row["n_in_space"], row["n_inside"]) == (inside["n_runs"], inside["n_inside"])
            assert all(row[name] == inside[name] for name in ("share_inside", "share_inside_low"))
    assert row_of(table, backbone="bundled:supervised", method="lora")["origin_knn_drop_delta"] == -1.0
    assert {row_of(table, backbone="bundled:supervised", method=name)["n_inside"] for name in METHODS} > {0}
    assert PAIRED_NOTE in table.notes and PAIRED_NOTE in comparison.notes
    for text in (to_csv(table), to_markdown(table), to_latex(table)):
        assert "wise" in text and "nan" not in text


def test_what_is_not_there_has_no_figure_and_is_said() -> None:
    late = made_run("late", method="lora", state=State.STOPPED)
    data = study(made_run("a", method="lora"), made_run("b", method="scratch"), late)
    table = data_table(data, "methods", TableOptions())
    row = row_of(table, method="lora")
    assert row["n_runs"] == 1 and row["test_accuracy_sd"] is None
    assert row["test_accuracy_difference"] is None  # there is no full
    assert row["origin_knn_drop_mean"] is None
    assert NO_ORIGIN in table.notes and SCRATCH in table.notes and PAIRED_NOTE not in table.notes
    assert any("1 of 3 runs, which have not come to their last epoch" in note for note in table.notes)
    assert data_table(study(), "methods", TableOptions()).rows == ()


@pytest.mark.parametrize("name", list(DATA_TABLES))
def test_epochs_that_are_not_there_leave_every_table_whole(name: str) -> None:
    data = made_study()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for by in ("backbone and method", "method", "paradigm"):
            text = to_csv(data_table(data, name, TableOptions(by=by, until=1, metric="test_accuracy")))  # type: ignore[arg-type]
            assert "nan" not in text and "inf," not in text


def test_a_trajectory_goes_round_an_epoch_that_is_not_there() -> None:
    found = {each.method: each for each in trajectories(made_study(), TableOptions()) if "supervised" in each.backbone}
    assert [each.n for each in found["wise_ft"].similarity.spreads] == [4, 0, 4]
    assert [each.n for each in found["full"].similarity.spreads] == [4, 4, 4]
    assert {run.record.spec.method for run in made_study().runs if np.isnan(run.diagonal[KEY][1]).all()} == {
        "wise_ft", "wise_ft:0.25",
    }  # fmt: skip


def test_backbones_are_compared_by_full_fine_tuning_alone() -> None:
    table = forgetting_table(made_study(), TableOptions(by="paradigm"))
    assert [row[1] for row in table.rows] == [8]
    note = next(note for note in table.notes if note.startswith("by paradigm: only what trains pre-trained weights"))
    assert "(full)" in note and "lora (8, not full fine-tuning)" in note and "linear (8, a frozen backbone)" in note
    others = study(*(run for run in made_study().runs if run.record.spec.method in ("lora", "linear")))
    assert [row[1] for row in forgetting_table(others, TableOptions(by="paradigm")).rows] == [8]


def test_methods_stand_in_the_order_of_their_table_mixtures_by_their_share() -> None:
    asked = Study(StudySection("x"), DataSection(path="/d"), (BackboneSection("bundled:supervised"),))
    names = ["wise_ft:0.75", "ema", "wise_ft", "full", "wise_ft:0.25", "lora"]
    records = [made_run(name, method=name).record for name in names]
    assert [each.run_id for each in in_study_order(records, asked)] == [
        "full", "lora", "wise_ft:0.25", "wise_ft", "wise_ft:0.75", "ema",
    ]  # fmt: skip
