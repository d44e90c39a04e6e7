"""The similarity space of made-up runs: who is inside, who is on the front, and what each is measured from."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from engine.analysis.options import BY, TableOptions
from engine.analysis.space import (
    PARETO_NOTE,
    Reference,
    pareto_front,
    space,
    space_counts_table,
    space_table,
    wilson_interval,
)
from engine.analysis.study_data import StudyData
from engine.errors import StudyError
from engine.export import to_csv
from engine.runs.record import Provenance, State
from engine.runs.results import SimilarityKey
from tests.engine.analysis.made_runs import COLUMN, KEY, made_run, study

OTHER = {"backbone": "bundled:image-text", "paradigm": "image-text"}


def _inside(data: StudyData, **options: object) -> list[str]:
    found = space(data, TableOptions(**options))  # type: ignore[arg-type]
    return [run.record.run_id for run, is_inside in zip(found.runs, found.is_inside, strict=True) if is_inside]


def test_one_row_a_run_with_all_that_it_is_judged_by() -> None:
    data = study(
        made_run("a", 0.95, 0.75, seed=3), made_run("b", 0.5, 0.875, method="scratch"),
        made_run("c", 0.9, 0.75, **OTHER),
    )  # fmt: skip
    table = space_table(data, TableOptions(eta=0.9, epsilon=0.125))
    assert table.name == "space" and table.columns == (
        "run", "backbone", "paradigm", "dataset", "method", "seed", COLUMN, "layer", "test_accuracy", "reference",
        "accuracy_divergence", "inside", "pareto_front",
    )  # fmt: skip
    heads = [
        ("a", "bundled:supervised", "supervised", "dermoscopy", "full", 3),
        ("b", "bundled:supervised", "supervised", "dermoscopy", "scratch", 0),
        ("c", "bundled:image-text", "image-text", "dermoscopy", "full", 0),
    ]
    figures = [
        (0.95, "mean of layers", 0.75, 0.875, 0.125, "yes", "yes"),
        (0.5, "mean of layers", 0.875, 0.875, 0.0, "no", "yes"),
        (0.9, "mean of layers", 0.75, 0.75, 0.0, "yes", "yes"),
    ]
    assert [row[:6] for row in table.rows] == heads
    for row, expected in zip(table.rows, figures, strict=True):
        assert row[6] == pytest.approx(expected[0], abs=1e-7)
        assert row[7:] == expected[1:]


def test_the_thresholds_hold_at_single_precision() -> None:
    """0.9 and 0.85 − 0.83 are stored as 0.89999998 and 0.02000004."""
    data = study(made_run("best", 0.9, 0.85), made_run("at", 0.9, 0.83), made_run("below", 0.89999, 0.83))
    assert float(np.float32(0.9)) < 0.9 and float(np.float32(0.85)) - float(np.float32(0.83)) > 0.02
    assert _inside(data, eta=0.9, epsilon=0.02) == ["best", "at"]
    assert _inside(data, eta=0.9, epsilon=0.01999) == ["best"]
    assert _inside(data, eta=0.90001, epsilon=0.02) == []


def test_only_the_best_diverges_by_nothing() -> None:
    data = study(made_run("a", 0.9, 0.75), made_run("b", 0.9, 0.7), made_run("c", 0.9, 0.75))
    assert _inside(data, eta=0.0, epsilon=0.0) == ["a", "c"]
    assert _inside(data, eta=0.0, epsilon=1.0) == ["a", "b", "c"]


def test_the_reference_is_the_best_run_of_the_same_backbone_and_dataset() -> None:
    data = study(
        made_run("a", 0.9, 0.5), made_run("b", math.nan, 0.75), made_run("late", 0.9, 0.9, state=State.STOPPED),
        made_run("c", 0.9, 0.25, **OTHER), made_run("d", 0.9, 0.625, dataset="x"),
    )  # fmt: skip
    found = space(data, TableOptions())
    assert found.references == (
        Reference("bundled:supervised", "dermoscopy", 0.75, "b"),
        Reference("bundled:image-text", "dermoscopy", 0.25, "c"),
        Reference("bundled:supervised", "x", 0.625, "d"),
    )
    assert found.divergence.tolist() == [0.25, 0.0, 0.0]
    notes = space_table(data, TableOptions()).notes
    assert "reference of bundled:supervised on dermoscopy: 0.75 (b)" in notes
    assert any(note.startswith("reference: the best run of the same backbone and dataset") for note in notes)


@pytest.mark.parametrize(("asked", "value", "run_id"), [
    ("0.5", 0.5, None), (" 1 ", 1.0, None), ("0", 0.0, None), ("a-full", 0.25, "a-full"), ("scratch", 0.5, "b-scratch"),
])  # fmt: skip
def test_a_reference_of_the_users_own(asked: str, value: float, run_id: str | None) -> None:
    data = study(made_run("a-full", 0.9, 0.25), made_run("b-scratch", 0.9, 0.5), made_run("c", 0.9, 0.75, **OTHER))
    found = space(data, TableOptions(reference=asked))
    assert {(each.value, each.run_id) for each in found.references} == {(value, run_id)}
    assert found.divergence.tolist() == [value - 0.25, value - 0.5, value - 0.75]
    assert f"reference: {asked}, as asked, for every run" in space_table(data, TableOptions(reference=asked)).notes


def test_what_is_better_than_a_named_reference_diverges_below_0_and_is_inside() -> None:
    data = study(made_run("a", 0.9, 0.5), made_run("b", 0.9, 0.75))
    assert space(data, TableOptions(reference="0.5")).divergence.tolist() == [0.0, -0.25]
    assert _inside(data, reference="0.5", epsilon=0.0) == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": 1.1}, "η: linear_cka lies in 0 to 1 (seen 1.1)\n  fix: give 0 to 1"),
        ({"eta": -0.1}, "(seen -0.1)"),
        ({"eta": math.nan}, "(seen nan)"),
        ({"epsilon": -0.01}, "ε: is a share of 1, from 0 to 1 (seen -0.01)\n  fix: give 0.02"),
        ({"epsilon": 2}, "(seen 2)"),
        ({"epsilon": math.nan}, "(seen nan)"),
        ({"reference": "85"}, "an accuracy is between 0 and 1 (seen 85)\n  fix: give one such as 0.85"),
        ({"reference": "nan"}, "an accuracy is between 0 and 1 (seen nan)"),
        ({"reference": "-inf"}, "an accuracy is between 0 and 1 (seen -inf)"),
        ({"reference": "nobody"}, "no run has this in its name"),
        ({"reference": "run"}, "fits 3 runs: run a, run b, run c"),
        ({"reference": "run b"}, "run run b has not come to its last epoch (state stopped)"),
        ({"reference": "run c"}, "run run c has no test_accuracy"),
        ({"layer": "block 9"}, "choose one of block 1, block 2"),
        ({"measure": "rsa"}, "this study has no such similarity"),
        ({"measure": "zzz"}, "no such measure"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    data = study(made_run("run a"), made_run("run b", state=State.STOPPED), made_run("run c", score=math.nan))
    for make in (space, space_table, space_counts_table):
        with pytest.raises(StudyError) as caught:
            make(data, TableOptions(**options))  # type: ignore[arg-type]
        assert message in str(caught.value)


def test_eta_may_be_as_low_as_its_measure() -> None:
    debiased = SimilarityKey("target", "cls", "debiased_cka")
    data = study(made_run("a", -0.25, key=debiased), made_run("b", -0.75, key=debiased))
    assert _inside(data, measure="debiased_cka", eta=-0.5) == ["a"]
    with pytest.raises(StudyError, match="lies in -1 to 1"):
        space(data, TableOptions(measure="debiased_cka", eta=-1.5))


class TestParetoFront:
    def test_what_is_beaten_in_both_is_not_on_it(self) -> None:
        similarity = np.array([0.9, 0.8, 0.7, 0.8, 0.6, 0.9])
        divergence = np.array([0.3, 0.1, 0.2, 0.1, 0.0, 0.4])
        #                     best  tie   beaten tie  best  as similar, more divergent
        assert pareto_front(similarity, divergence).tolist() == [True, True, False, True, True, False]

    def test_as_divergent_and_less_similar_is_beaten(self) -> None:
        assert pareto_front(np.array([0.9, 0.8]), np.array([0.1, 0.1])).tolist() == [True, False]

    def test_agrees_with_looking_at_every_pair(self) -> None:
        rng = np.random.default_rng(1)
        for n in (1, 2, 5, 40):
            for _ in range(30):
                m, a = rng.integers(0, 6, n) / 5, rng.integers(0, 6, n) / 5
                beaten = [
                    any(m[j] >= m[i] and a[j] <= a[i] and (m[j] > m[i] or a[j] < a[i]) for j in range(n))
                    for i in range(n)
                ]
                assert pareto_front(m, a).tolist() == [not each for each in beaten]

    def test_nothing_has_no_front(self) -> None:
        assert pareto_front(np.zeros(0), np.zeros(0)).tolist() == []

    def test_each_backbone_and_dataset_has_its_own(self) -> None:
        data = study(
            made_run("a", 0.9, 0.75), made_run("b", 0.8, 0.5), made_run("c", 0.8, 0.5, **OTHER),
            made_run("d", 0.7, 0.25, dataset="x"),
        )  # fmt: skip
        assert space(data, TableOptions()).is_on_front.tolist() == [True, False, True, True]

    def test_the_noise_of_single_precision_beats_nobody(self) -> None:
        data = study(made_run("a", 1.0, 0.75), made_run("b", 0.99999994, 0.75))
        assert np.float32(0.99999994) < 1
        found = space(data, TableOptions())
        assert found.is_on_front.tolist() == [True, True]
        assert PARETO_NOTE in space_table(data, TableOptions()).notes


def test_runs_without_a_value_are_left_out_counted_and_said() -> None:
    data = study(
        made_run("a"), made_run("b", (0.9, math.nan)), made_run("c", score=math.nan),
        made_run("d", math.nan, math.nan), made_run("short", n_epochs=2), made_run("late", state=State.RUNNING),
        made_run("failed", state=State.FAILED),
        made_run("e", key=SimilarityKey("target", "feat", "linear_cka")),
    )  # fmt: skip
    found = space(data, TableOptions())
    assert [run.record.run_id for run in found.runs] == ["a"]
    assert found.left_out == (
        f"left out: 5 of 6 runs that are done: 4 without {COLUMN}, 3 without test_accuracy (undefined, or not measured)"
    )
    for make in (space_table, space_counts_table):
        notes = make(data, TableOptions()).notes
        assert found.left_out in notes
        assert "left out: 2 of 8 runs, which have not come to their last epoch" in notes
    whole = study(made_run("a"))
    assert space(whole, TableOptions()).left_out == ""
    assert not any("left out" in note for note in space_table(whole, TableOptions()).notes)


def test_nan_in_another_layer_leaves_a_layer_as_it_is() -> None:
    found = space(study(made_run("b", (0.75, math.nan))), TableOptions(layer="block 1"))
    assert found.similarity.tolist() == [0.75] and found.layer == "block 1"


def test_a_backbone_without_any_accuracy_has_no_reference() -> None:
    data = study(made_run("a"), made_run("b", score=math.nan, **OTHER))
    assert [each.backbone for each in space(data, TableOptions()).references] == ["bundled:supervised"]


def test_counts_with_the_interval_of_their_share() -> None:
    data = study(
        made_run("a", 0.9, 0.75), made_run("b", 0.9, 0.5), made_run("c", 0.5, 0.75, method="linear"),
        made_run("d", math.nan, 0.75, method="scratch"), made_run("e", 0.95, 0.25, **OTHER),
    )  # fmt: skip
    table = space_counts_table(data, TableOptions(eta=0.8))
    assert table.name == "space_counts" and table.columns == (
        "backbone", "method", "n_runs", "n_inside", "share_inside", "share_inside_low", "share_inside_high", "n_pareto",
    )  # fmt: skip
    assert [(*row[:5], row[7]) for row in table.rows] == [
        ("bundled:supervised", "full", 2, 1, 0.5, 1),
        ("bundled:supervised", "linear", 1, 0, 0.0, 0),
        ("bundled:supervised", "scratch", 0, 0, None, 0),
        ("bundled:image-text", "full", 1, 1, 1.0, 1),
    ]
    assert table.rows[0][5:7] == wilson_interval(1, 2)
    assert table.rows[2][5:7] == (None, None)
    by_paradigm = space_counts_table(data, TableOptions(eta=0.8, by="paradigm"))
    assert by_paradigm.columns[0] == "paradigm"
    assert [row[:3] for row in by_paradigm.rows] == [("supervised", 3, 1), ("image-text", 1, 1)]


@pytest.mark.parametrize(("n_inside", "n"), [(0, 1), (1, 1), (0, 5), (3, 5), (5, 5), (12, 20), (999, 1000)])
def test_wilson_as_scipy_has_it(n_inside: int, n: int) -> None:
    expected = binomtest(n_inside, n).proportion_ci(method="wilson")
    assert wilson_interval(n_inside, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= wilson_interval(n_inside, n)[0] <= n_inside / n <= wilson_interval(n_inside, n)[1] <= 1


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("data", [StudyData(()), study(made_run("a", state=State.QUEUED))], ids=["empty", "none done"])
def test_without_finished_runs_there_are_no_rows(data: StudyData, by: str) -> None:
    options = TableOptions(by=by)  # type: ignore[arg-type]
    assert space_table(data, options).rows == space_counts_table(data, options).rows == ()
    assert space(data, options).references == ()


def test_an_empty_study_refuses_thresholds_all_the_same() -> None:
    with pytest.raises(StudyError, match="lies in 0 to 1"):
        space(StudyData(()), TableOptions(eta=2))


def test_several_labels_an_image_are_judged_by_auroc() -> None:
    several = Provenance(task="multilabel", n_classes=3)
    data = study(made_run("a", metric="test_auroc", provenance=several, score=0.875))
    table = space_table(data, TableOptions())
    assert table.column("test_auroc") == (0.875,)
    assert any("A_X: accuracy_divergence = reference − test_auroc" in note for note in table.notes)


def test_notes_say_what_the_figures_are() -> None:
    sized = Provenance(n_probe=96, n_features=128, n_origin_probe=50)
    origin = SimilarityKey("origin", "cls", "linear_cka")
    data = study(made_run("a", more={origin: 0.5}, provenance=sized))
    table = space_table(data, TableOptions(eta=0.25, epsilon=0.0625, probe="origin"))
    assert table.column("linear_cka_cls_origin") == (0.5,)
    notes = "\n".join(table.notes)
    assert "M_X: linear_cka_cls_origin at the last epoch, mean of layers; A_X" in notes
    assert "inside: M_X ≥ η = 0.25 and A_X ≤ ε = 0.0625" in notes
    assert "linear_cka: linear CKA (biased); Kornblith" in notes
    assert "n = 50 is not >> d = 128" in notes and "n = 96" not in notes


def test_names_from_outside_pass_through_untouched() -> None:
    hostile = "=cmd()\x1b[31m\n"
    data = study(made_run(hostile, backbone="bundled:" + hostile, dataset=hostile))
    table = space_table(data, TableOptions())
    assert table.rows[0][0] == table.rows[0][3] == hostile
    assert to_csv(table).splitlines()[1].startswith("\"'=cmd()")


def test_another_look_at_the_same_data_says_the_same() -> None:
    rng = np.random.default_rng(0)
    data = study(*(made_run(str(i), rng.uniform(), rng.uniform(), seed=i) for i in range(50)))
    wide, narrow = (_inside(data, eta=eta, epsilon=eps) for eta, eps in ((0.3, 0.6), (0.6, 0.3)))
    assert set(narrow) < set(wide)
    assert wide == [
        run.record.run_id for run in data.runs
        if run.diagonal[KEY][-1, 0] >= 0.3
        and max(each.quality["test_accuracy"][-1] for each in data.runs) - run.quality["test_accuracy"][-1] <= 0.6
    ]  # fmt: skip
    assert _inside(replace(data, runs=data.runs[::-1]), eta=0.3, epsilon=0.6) == wide[::-1]
