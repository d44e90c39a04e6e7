"""Distributions over seeds of made-up runs, against figures by hand, numpy and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from engine.analysis import bootstrap
from engine.analysis.distribution import (
    Distribution,
    Sample,
    as_compared,
    distribution_table,
    distributions,
    final_metric,
    final_similarity,
    finals,
    rows_by_group,
)
from engine.analysis.options import BY, TableOptions
from engine.analysis.study_data import StudyData
from engine.analysis.table import Spread
from engine.errors import StudyError
from engine.runs.record import Provenance, State
from engine.runs.results import SimilarityKey
from tests.engine.analysis.made_runs import COLUMN, KEY, made_run, study


def _of(*pairs: tuple[float, float]) -> Distribution:
    data = study(*(made_run(f"run {i}", m, a, seed=i) for i, (m, a) in enumerate(pairs)))
    (found,) = distributions(data, TableOptions())
    return found


class TestFinals:
    def test_the_last_epoch_that_the_study_asks_for_counts(self) -> None:
        run = made_run("a", (0.75, 0.25), 0.5)
        assert final_similarity(run, KEY) == 0.5
        assert (final_similarity(run, KEY, "block 1"), final_similarity(run, KEY, "block 2")) == (0.75, 0.25)
        assert final_metric(run, "test_accuracy") == 0.5
        assert final_similarity(run, KEY) == run.similarity(KEY)[2]

    def test_a_mean_is_taken_in_double_precision(self) -> None:
        values = np.float32([0.7, 0.1])
        assert final_similarity(made_run("a", values.tolist()), KEY) == values.astype(np.float64).mean()

    @pytest.mark.parametrize("n_epochs", [1, 2])
    def test_a_run_that_lacks_its_last_epoch_has_none(self, n_epochs: int) -> None:
        run = made_run("a", n_epochs=n_epochs)
        assert math.isnan(final_similarity(run, KEY)) and math.isnan(final_metric(run, "test_accuracy"))

    def test_what_was_not_measured_is_not_there(self) -> None:
        run = made_run("a")
        assert math.isnan(final_metric(run, "test_ece"))
        assert math.isnan(final_similarity(run, KEY, "block 9"))
        assert math.isnan(final_similarity(run, SimilarityKey("origin", "cls", "linear_cka")))

    def test_only_runs_that_are_done_count(self) -> None:
        data = study(made_run("a"), *(made_run(state, state=state) for state in State if state is not State.DONE))
        assert [run.record.run_id for run in finals(data, TableOptions()).runs] == ["a"]

    def test_those_without_a_value_are_counted(self) -> None:
        found = finals(study(made_run("a", math.nan), made_run("b", math.inf), made_run("c")), TableOptions())
        assert found.n_missing() == {COLUMN: 2}
        assert found.notes() == (f"{COLUMN}: 2 of 3 runs that are done have none (undefined, or not measured)",)

    def test_six_decimals_are_compared(self) -> None:
        assert as_compared(np.array([1 - 6e-8, 0.8999999, 0.899999])).tolist() == [1.0, 0.9, 0.899999]

    def test_rows_by_group_tells_runs_of_one_name_apart(self) -> None:
        runs = [made_run("a"), made_run("a", method="linear"), made_run("a")]
        found = rows_by_group(runs, "method")
        assert {names: rows.tolist() for names, rows in found.items()} == {("full",): [0, 2], ("linear",): [1]}


class TestDistributions:
    def test_every_value_with_its_run_and_what_sums_them_up(self) -> None:
        found = _of((0.5, 0.25), (0.75, 0.5), (1.0, 1.0), (0.25, 0.5))
        assert found.names == ("bundled:supervised", "full")
        assert found.similarity.run_ids == ("run 0", "run 1", "run 2", "run 3")
        assert found.similarity.values == (0.5, 0.75, 1.0, 0.25)
        assert found.score.values == (0.25, 0.5, 1.0, 0.5)
        assert (found.similarity.spread.mean, found.similarity.spread.n) == (0.625, 4)
        assert found.similarity.spread.sd == pytest.approx(math.sqrt(5 / 48))
        # By hand: 5 % of the way over 3 gaps is 0.15 of the first gap.
        assert found.similarity.quantiles == pytest.approx((0.25, 0.2875, 0.4375, 0.625, 0.8125, 0.9625, 1.0))
        assert found.score.quantiles == pytest.approx((0.25, 0.2875, 0.4375, 0.5, 0.625, 0.925, 1.0))

    def test_the_interval_is_that_of_the_mean(self) -> None:
        values = np.array([[0.5, 0.25], [0.75, 0.5], [1.0, 1.0], [0.25, 0.5]])
        found = _of(*(tuple(row) for row in values.tolist()))
        low, high = bootstrap.mean_interval(values)
        for sample, i in ((found.similarity, 0), (found.score, 1)):
            assert (sample.spread.low, sample.spread.high) == (low[i], high[i])
            assert low[i] < sample.spread.mean < high[i]

    def test_one_seed_has_no_spread(self) -> None:
        found = _of((0.5, 0.25)).similarity
        assert found == Sample(("run 0",), (0.5,), Spread(0.5, None, 1), (0.5,) * 7, None)

    def test_equal_values_have_an_interval_without_width_and_no_density(self) -> None:
        found = _of((1.0, 0.5), (1 - 6e-8, 0.25), (1.0, 0.75)).similarity
        assert found.spread.low == pytest.approx(1.0, abs=1e-7) and found.spread.high == pytest.approx(1.0, abs=1e-7)
        assert found.density is None

    def test_a_run_without_a_value_is_left_out_of_that_quantity_only(self) -> None:
        found = _of((0.5, 0.25), (math.nan, 0.5), (1.0, math.nan))
        assert (found.similarity.run_ids, found.similarity.values) == (("run 0", "run 2"), (0.5, 1.0))
        assert (found.score.run_ids, found.score.values) == (("run 0", "run 1"), (0.25, 0.5))

    def test_a_group_without_any_value_is_there_and_empty(self) -> None:
        found = _of((math.nan, 0.5)).similarity
        assert found == Sample((), (), Spread(None, None, 0), (), None)

    def test_groups_are_those_that_are_asked_for(self) -> None:
        data = study(
            made_run("a"), made_run("b", method="linear"),
            made_run("c", backbone="bundled:image-text", paradigm="image-text"),
        )  # fmt: skip
        names = {by: [each.names for each in distributions(data, TableOptions(by=by))] for by in BY}
        assert names["backbone and method"] == [
            ("bundled:supervised", "full"), ("bundled:supervised", "linear"), ("bundled:image-text", "full"),
        ]  # fmt: skip
        assert names["backbone"] == [("bundled:supervised",), ("bundled:image-text",)]
        assert names["method"] == [("full",), ("linear",)]
        assert names["paradigm"] == [("supervised",), ("image-text",)]


class TestDensity:
    def test_far_from_the_ends_it_is_that_of_scipy(self) -> None:
        values = np.random.default_rng(0).normal(0.5, 0.02, 40)
        found = _of(*((value, 0.5) for value in values)).similarity
        assert found.density is not None
        expected = gaussian_kde(found.values, "silverman")
        assert found.density.bandwidth == pytest.approx(math.sqrt(expected.covariance[0, 0]))
        assert found.density.values == pytest.approx(expected(found.density.at), abs=1e-9)
        reach = 3 * found.density.bandwidth
        assert found.density.at[[0, -1]] == pytest.approx([min(found.values) - reach, max(found.values) + reach])

    @pytest.mark.parametrize("values", [(0.9, 0.95, 1.0), (0.0, 0.02, 0.5), (0.0, 0.5, 1.0), (0.2, 0.21, 0.25, 0.9)])
    def test_it_stays_within_the_range_and_holds_everything(self, values: tuple[float, ...]) -> None:
        found = _of(*((0.5, value) for value in values)).score.density
        assert found is not None and found.at[0] >= 0 and found.at[-1] <= 1
        assert (np.diff(found.at) > 0).all() and (found.values >= 0).all()
        assert np.trapezoid(found.values, found.at) == pytest.approx(1, abs=0.01)

    def test_a_measure_that_can_be_negative_is_not_cut_at_0(self) -> None:
        key = SimilarityKey("target", "cls", "debiased_cka")
        data = study(*(made_run(str(i), value, key=key) for i, value in enumerate((-0.1, 0.0, 0.1))))
        (found,) = distributions(data, TableOptions(measure="debiased_cka"))
        assert found.similarity.density is not None and found.similarity.density.at[0] < -0.1
        assert np.trapezoid(found.similarity.density.values, found.similarity.density.at) == pytest.approx(1, abs=0.01)

    def test_below_three_values_there_is_none(self) -> None:
        assert _of((0.5, 0.25), (0.75, 0.5)).score.density is None
        assert _of((0.5, 0.25), (0.75, 0.5), (0.5, 0.5)).score.density is not None


class TestTable:
    def test_one_row_a_group_and_quantity(self) -> None:
        data = study(made_run("a", 0.5, 0.25), made_run("b", 0.75, 0.75), made_run("c", 1.0, 0.5, method="linear"))
        table = distribution_table(data, TableOptions())
        assert table.name == "distribution" and table.columns == (
            "backbone", "method", "quantity", "layer", "n", "mean", "sd", "mean_low", "mean_high", "min", "q05", "q25",
            "median", "q75", "q95", "max",
        )  # fmt: skip
        assert [row[1:6] for row in table.rows] == [
            ("full", COLUMN, "mean of layers", 2, 0.625),
            ("full", "test_accuracy", None, 2, 0.5),
            ("linear", COLUMN, "mean of layers", 1, 1.0),
            ("linear", "test_accuracy", None, 1, 0.5),
        ]
        assert table.rows[0][9:] == pytest.approx((0.5, 0.5125, 0.5625, 0.625, 0.6875, 0.7375, 0.75))
        low, high = bootstrap.mean_interval(np.array([[0.5], [0.75]]))
        assert table.rows[0][6:9] == (pytest.approx(math.sqrt(1 / 32)), low[0], high[0])
        assert table.rows[2][6:9] == (None, None, None)

    def test_a_layer_and_a_pooling_of_ones_own(self) -> None:
        feat = SimilarityKey("target", "feat", "linear_cka")
        data = study(made_run("a", (0.5, 0.25), key=feat))
        table = distribution_table(data, TableOptions(pooling="feat", layer="block 2"))
        assert table.rows[0][2:6] == ("linear_cka_feat_target", "block 2", 1, 0.25)

    def test_what_is_left_out_is_said(self) -> None:
        sized = Provenance(n_probe=96, n_features=128)
        data = study(
            made_run("a", provenance=sized), made_run("b", math.nan), made_run("c", score=math.nan),
            made_run("d", state=State.FAILED),
        )  # fmt: skip
        notes = distribution_table(data, TableOptions()).notes
        assert f"{COLUMN}: 1 of 3 runs that are done have none (undefined, or not measured)" in notes
        assert "test_accuracy: 1 of 3 runs that are done have none (undefined, or not measured)" in notes
        assert "left out: 1 of 4 runs, which have not come to their last epoch" in notes
        assert bootstrap.NOTE in notes
        assert "linear CKA (biased) is inflated: n = 96 is not >> d = 128" in notes

    @pytest.mark.parametrize("by", BY)
    def test_without_finished_runs_there_are_no_rows(self, by: str) -> None:
        options = TableOptions(by=by)  # type: ignore[arg-type]
        assert distribution_table(StudyData(()), options).rows == ()
        assert distribution_table(study(made_run("a", state=State.RUNNING)), options).rows == ()
        assert distributions(StudyData(()), options) == ()

    def test_a_group_without_values_has_empty_cells(self) -> None:
        row = distribution_table(study(made_run("a", math.nan)), TableOptions()).rows[0]
        assert row[4:] == (0, *(None,) * 11)

    def test_what_no_run_has_is_refused(self) -> None:
        for make in (distributions, distribution_table):
            with pytest.raises(StudyError, match="no run has this layer"):
                make(study(made_run("a")), TableOptions(layer="block 9"))
            with pytest.raises(StudyError, match="no such similarity"):
                make(study(made_run("a")), TableOptions(probe="origin"))
            with pytest.raises(StudyError, match="no such measure"):
                make(study(made_run("a")), TableOptions(measure="zzz"))

    def test_names_from_outside_pass_through_untouched(self) -> None:
        name = "bundled:\x1b[31m=x"
        assert distribution_table(study(made_run("a", backbone=name)), TableOptions()).rows[0][0] == name
