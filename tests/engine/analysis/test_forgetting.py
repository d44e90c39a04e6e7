"""Forgetting over made-up runs: drops by hand, who is compared with whom, and the same table from records alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from engine.analysis import bootstrap
from engine.analysis.forgetting import (
    NO_ORIGIN,
    NO_ORIGIN_PROBE,
    POOLED,
    PROTOCOL,
    SCRATCH,
    forgetting_table,
)
from engine.analysis.options import BY, TableOptions
from engine.analysis.study_data import RunData, StudyData
from engine.analysis.table import Cell, Table
from engine.finetune.methods import METHODS
from engine.runs.record import Provenance, State
from engine.runs.results import SimilarityKey
from tests.engine.analysis.made_runs import made_run, study

ORIGIN = SimilarityKey("origin", "cls", "linear_cka")
IMAGE_TEXT = {"backbone": "bundled:image-text", "paradigm": "image-text"}
HEAD = (
    "n_seeds", "origin_knn_before_mean", "origin_knn_before_sd", "origin_knn_after_mean", "origin_knn_after_sd",
    "drop_mean", "drop_sd", "drop_low", "drop_high",
    "drop_relative_mean", "drop_relative_sd", "drop_relative_low", "drop_relative_high",
)  # fmt: skip


def _run(name: str, before: float, after: float, **changes: object) -> RunData:
    """k-NN is measured at both ends only."""
    return made_run(name, quality={"origin_knn": (before, math.nan, after)}, **changes)  # type: ignore[arg-type]


def _rows(table: Table) -> list[dict[str, Cell]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _two_seeds() -> StudyData:
    return study(_run("a", 0.5, 0.25, more={ORIGIN: 0.75}), _run("b", 0.75, 0.625, seed=1, more={ORIGIN: 0.25}))


def test_the_drop_by_hand() -> None:
    table = forgetting_table(_two_seeds(), TableOptions())
    assert table.columns[:16] == ("backbone", "paradigm", "method", *HEAD)
    (row,) = _rows(table)
    assert (row["backbone"], row["paradigm"], row["method"]) == ("bundled:supervised", "supervised", "full")
    assert (row["n_seeds"], row["origin_knn_before_mean"], row["origin_knn_after_mean"]) == (2, 0.625, 0.4375)
    assert (row["drop_mean"], row["drop_sd"]) == (0.1875, pytest.approx(0.125 / math.sqrt(2)))
    assert row["drop_relative_mean"] == pytest.approx((1 / 2 + 1 / 6) / 2)
    assert row["drop_relative_sd"] == pytest.approx((1 / 2 - 1 / 6) / math.sqrt(2))
    low, high = bootstrap.mean_interval(np.array([[0.25, 1 / 2], [0.125, 1 / 6]]))
    assert (row["drop_low"], row["drop_high"]) == (low[0], high[0])
    assert (row["drop_relative_low"], row["drop_relative_high"]) == pytest.approx((low[1], high[1]))
    assert 0.125 <= low[0] < 0.1875 < high[0] <= 0.25
    assert table.notes[0] == PROTOCOL and bootstrap.NOTE in table.notes


def test_similarity_on_the_images_of_both_domains_stands_beside_it() -> None:
    table = forgetting_table(_two_seeds(), TableOptions())
    assert table.columns[16:] == tuple(
        f"{name}_{what}"
        for name in (
            "test_accuracy", "linear_cka_cls", "linear_cka_feat", "debiased_cka_cls", "debiased_cka_feat",
            "linear_cka_cls_origin", "linear_cka_feat_origin", "debiased_cka_cls_origin", "debiased_cka_feat_origin",
        )
        for what in ("mean", "sd")
    )  # fmt: skip
    (row,) = _rows(table)
    assert row["linear_cka_cls_origin_mean"] == 0.5
    assert row["linear_cka_cls_origin_sd"] == pytest.approx(0.5 / math.sqrt(2))
    assert row["linear_cka_cls_mean"] == pytest.approx(0.9) and row["test_accuracy_mean"] == pytest.approx(0.8)
    assert row["linear_cka_feat_origin_mean"] is None
    assert NO_ORIGIN_PROBE not in table.notes


def test_a_study_that_compares_no_origin_images_is_told_how_to() -> None:
    table = forgetting_table(study(_run("a", 0.5, 0.25)), TableOptions())
    assert table.column("linear_cka_cls_origin_mean") == (None,)
    assert NO_ORIGIN_PROBE in table.notes and table.notes[0] == PROTOCOL
    assert not any("runs have none" in note for note in table.notes)  # what no run has is said once, not by column


def test_a_study_without_an_origin_set_is_told_so() -> None:
    table = forgetting_table(study(made_run("a")), TableOptions())
    assert table.notes[0] == NO_ORIGIN and NO_ORIGIN_PROBE in table.notes
    (row,) = _rows(table)
    assert {row[name] for name in HEAD[1:]} == {None} and row["n_seeds"] == 1
    assert row["test_accuracy_mean"] == pytest.approx(0.8)


def test_one_seed_has_neither_sd_nor_interval() -> None:
    (row,) = _rows(forgetting_table(study(_run("a", 0.5, 0.25)), TableOptions()))
    assert row["drop_mean"] == 0.25
    assert {row[f"drop_{what}"] for what in ("sd", "low", "high")} == {None}


def test_a_frozen_backbone_has_an_interval_without_width() -> None:
    data = study(*(_run(f"l{i}", 0.75, 0.75, method="linear", seed=i) for i in range(3)))
    (row,) = _rows(forgetting_table(data, TableOptions()))
    assert (row["drop_mean"], row["drop_sd"], row["drop_low"], row["drop_high"]) == (0, 0, 0, 0)


def _all_methods(
    backbone: str = "bundled:supervised", paradigm: str = "supervised", drop: float = 0.25
) -> list[RunData]:
    where = {"backbone": backbone, "paradigm": paradigm}
    return [
        *(_run(f"{backbone} full {i}", 0.75, 0.75 - drop, method="full", seed=i, **where) for i in range(2)),
        _run(f"{backbone} linear", 0.75, 0.75, method="linear", **where),
        *(_run(f"{backbone} scratch {i}", 0.125, 0.25, method="scratch", seed=i, **where) for i in range(3)),
    ]


class TestGroups:
    def _data(self) -> StudyData:
        return study(
            *_all_methods(), *_all_methods("bundled:image-text", "image-text", 0.125),
            *_all_methods("timm:other", "supervised", 0.5),
        )  # fmt: skip

    def test_backbone_and_method(self) -> None:
        table = forgetting_table(self._data(), TableOptions())
        assert len(table.rows) == 9 and table.column("n_seeds") == (2, 1, 3) * 3
        assert SCRATCH in table.notes and POOLED not in table.notes
        assert not any(note.startswith("by ") for note in table.notes)

    def test_backbones_are_compared_by_what_trains_pre_trained_weights(self) -> None:
        table = forgetting_table(self._data(), TableOptions(by="backbone"))
        assert table.columns[:3] == ("backbone", "paradigm", "n_seeds")
        assert [row[:3] for row in table.rows] == [
            ("bundled:supervised", "supervised", 2), ("bundled:image-text", "image-text", 2),
            ("timm:other", "supervised", 2),
        ]  # fmt: skip
        assert table.column("drop_mean") == (0.25, 0.125, 0.5)
        assert (
            "by backbone: only what trains pre-trained weights (full) can forget; runs left out: linear (3, a frozen "
            "backbone), scratch (9, never pre-trained)"
        ) in table.notes
        assert SCRATCH not in table.notes and POOLED not in table.notes

    def test_paradigms_pool_the_runs_of_their_backbones_and_say_so(self) -> None:
        table = forgetting_table(self._data(), TableOptions(by="paradigm"))
        assert table.columns[:2] == ("paradigm", "n_seeds")
        assert [row[:2] for row in table.rows] == [("supervised", 4), ("image-text", 2)]
        assert table.column("drop_mean") == (0.375, 0.125)
        assert POOLED in table.notes
        assert any(note.startswith("by paradigm: only what trains") for note in table.notes)

    def test_methods_are_all_shown(self) -> None:
        table = forgetting_table(self._data(), TableOptions(by="method"))
        assert table.columns[:2] == ("method", "n_seeds")
        assert [row[:2] for row in table.rows] == [("full", 6), ("linear", 3), ("scratch", 9)]
        assert SCRATCH in table.notes and POOLED in table.notes
        assert not any(note.startswith("by ") for note in table.notes)

    def test_a_study_that_forgets_nothing_by_construction_has_no_rows(self) -> None:
        data = study(*(run for run in _all_methods() if run.record.spec.method != "full"))
        table = forgetting_table(data, TableOptions(by="paradigm"))
        assert table.rows == ()
        assert any("runs left out: linear (1, a frozen backbone)" in note for note in table.notes)

    def test_only_methods_that_train_what_was_pre_trained_can_forget(self) -> None:
        """The notes name reasons for `linear` and `scratch`; a new method must fit one of them, or be fine-tuning."""
        facts = {name: (each.starts_pretrained, each.trains_backbone) for name, each in METHODS.items()}
        assert facts["linear"] == (True, False) and facts["scratch"] == (False, True)
        assert {each for name, each in facts.items() if name not in ("linear", "scratch")} == {(True, True)}

    @pytest.mark.parametrize("by", BY)
    def test_without_finished_runs_there_are_no_rows(self, by: str) -> None:
        options = TableOptions(by=by)  # type: ignore[arg-type]
        for data in (StudyData(()), study(_run("a", 0.5, 0.25, state=State.RUNNING))):
            table = forgetting_table(data, options)
            assert table.rows == () and table.notes[0] == PROTOCOL and NO_ORIGIN_PROBE not in table.notes
            assert {"drop_mean", "drop_low", "test_accuracy_mean"} <= set(table.columns)


class TestWhatIsLeftOut:
    def test_runs_that_are_not_done(self) -> None:
        data = study(
            _run("a", 0.5, 0.25), _run("late", 0.5, 0.0, state=State.STOPPED), _run("f", 1, 0, state=State.FAILED)
        )
        table = forgetting_table(data, TableOptions())
        assert table.column("n_seeds") == (1,) and table.column("drop_mean") == (0.25,)
        assert "left out: 2 of 3 runs, which have not come to their last epoch" in table.notes

    @pytest.mark.parametrize("ends", [(0.5, math.nan), (math.nan, 0.5)])
    def test_runs_without_a_k_nn_at_both_ends_are_counted_and_said(self, ends: Sequence[float]) -> None:
        table = forgetting_table(study(_run("a", 0.5, 0.25), _run("b", *ends)), TableOptions())
        assert (table.column("n_seeds"), table.column("drop_mean")) == ((2,), (0.25,))
        assert "origin_knn: 1 of 2 runs have none (undefined, or not measured)" in table.notes

    def test_a_run_that_lacks_its_last_epoch(self) -> None:
        short = made_run("b", n_epochs=2, quality={"origin_knn": (0.5, 0.25)})
        table = forgetting_table(study(_run("a", 0.5, 0.25), short), TableOptions())
        (row,) = _rows(table)
        assert (row["drop_mean"], row["drop_sd"], row["linear_cka_cls_sd"]) == (0.25, None, None)
        for name in ("origin_knn", "test_accuracy", "linear_cka_cls"):
            assert f"{name}: 1 of 2 runs have none (undefined, or not measured)" in table.notes

    def test_an_undefined_layer(self) -> None:
        data = study(_run("a", 0.5, 0.25, similarity=(0.5, math.nan)), _run("b", 0.5, 0.25, similarity=0.5))
        table = forgetting_table(data, TableOptions())
        assert table.column("linear_cka_cls_mean") == (0.5,)
        assert "linear_cka_cls: 1 of 2 runs have none (undefined, or not measured)" in table.notes

    def test_nothing_can_be_lost_of_nothing(self) -> None:
        table = forgetting_table(study(_run("a", 0.0, 0.25), *(_run(x, 0.5, 0.25) for x in "bc")), TableOptions())
        (row,) = _rows(table)
        assert (row["drop_mean"], row["drop_relative_mean"]) == (pytest.approx(0.25 / 3), 0.5)
        assert "drop_relative: 1 of 3 runs have none, as their k-NN before is 0" in table.notes


def test_cautions_of_both_domains_stand_once_each() -> None:
    sized = Provenance(n_probe=96, n_origin_probe=50, n_features=128)
    notes = forgetting_table(study(_run("a", 0.5, 0.25, provenance=sized)), TableOptions()).notes
    for what in ("n = 96 is not >> d = 128", "n = 50 is not >> d = 128 on the origin images"):
        assert notes.count(f"linear CKA (biased) is inflated: {what}") == 1
    assert sum(note.startswith("linear_cka: linear CKA (biased)") for note in notes) == 1


def test_names_from_outside_pass_through_untouched() -> None:
    name = "bundled:\x1b[31m=x"
    assert forgetting_table(study(_run("a", 0.5, 0.25, backbone=name)), TableOptions()).rows[0][0] == name
