"""Similarity against quality: coefficients against scipy, the intervals of the paper's figure 5, and what misleads."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from engine.analysis.association import associate, fit
from engine.analysis.correlation import correlation, metrics_of
from engine.analysis.correlation_tables import (
    correlation_intervals_table,
    correlation_points_table,
    correlation_table,
)
from engine.analysis.options import TableOptions
from engine.analysis.study_data import RunData, StudyData
from engine.errors import StudyError
from engine.runs.record import State
from tests.engine.analysis.made_runs import COLUMN, KEY, made_run

OPTIONS = TableOptions(metric="test_ece")


def _run(name: str, similarity: float, ece: float, **made: object) -> RunData:
    return made_run(name, similarity, quality={"test_ece": [0.9, 0.9, ece]}, **made)  # type: ignore[arg-type]


def _study(pairs: list[tuple[float, float]], **made: object) -> StudyData:
    return StudyData(tuple(_run(str(i), *pair, **made) for i, pair in enumerate(pairs)))


class TestAssociation:
    @pytest.mark.parametrize("n", [5, 60])
    def test_pearson_and_its_interval_and_p_are_scipys(self, n: int) -> None:
        rng = np.random.default_rng(n)
        x = rng.normal(size=n)
        y = x + rng.normal(size=n)
        found, expected = associate(x, y, np.arange(n)).pearson, scipy.stats.pearsonr(x, y)
        interval = expected.confidence_interval(0.95)
        assert found.value == pytest.approx(expected.statistic, abs=1e-12)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
        assert found.p == pytest.approx(expected.pvalue, rel=1e-6)

    def test_spearman_with_ties_is_scipys_and_its_interval_is_wider_than_pearsons(self) -> None:
        rng = np.random.default_rng(0)
        x = rng.integers(0, 6, 40).astype(float)
        y = x + rng.integers(0, 4, 40)
        found, expected = associate(x, y, np.arange(40)), scipy.stats.spearmanr(x, y)
        assert found.spearman.value == pytest.approx(expected.statistic, abs=1e-12)
        assert found.spearman.p == pytest.approx(expected.pvalue, rel=1e-6)
        z = math.atanh(expected.statistic)
        half = 1.959964 * math.sqrt((1 + expected.statistic**2 / 2) / 37)
        assert (found.spearman.low, found.spearman.high) == pytest.approx(
            (math.tanh(z - half), math.tanh(z + half)), abs=1e-6
        )

    def test_the_line_is_scipys(self) -> None:
        rng = np.random.default_rng(1)
        x, y = rng.normal(size=30), rng.normal(size=30)
        found, expected = fit(x, y), scipy.stats.linregress(x, y)
        assert found is not None
        assert (found.slope, found.intercept) == pytest.approx((expected.slope, expected.intercept))
        assert found.r_squared == pytest.approx(expected.rvalue**2)
        assert found.at(2.0) == pytest.approx(expected.intercept + 2 * expected.slope)

    def test_offsets_and_scales_change_nothing(self) -> None:
        rng = np.random.default_rng(2)
        x, y = rng.normal(size=20), rng.normal(size=20)
        plain, moved = associate(x, y, np.arange(20)), associate(1e6 + 3 * x, 5 - 1e-3 * y, np.arange(20))
        assert moved.pearson.value == pytest.approx(-plain.pearson.value, abs=1e-6)  # type: ignore[operator]
        assert moved.spearman.value == pytest.approx(-plain.spearman.value)  # type: ignore[operator]

    def test_a_mean_taken_out_costs_a_degree_of_freedom(self) -> None:
        """Against the partial correlation of the statsmodels kind: residuals of dummies, n - k - 2 degrees."""
        rng = np.random.default_rng(3)
        x, y = rng.normal(size=12), rng.normal(size=12)
        found = associate(x, y, np.arange(12), n_groups=4).pearson
        t = found.value * math.sqrt(7 / (1 - found.value**2))  # type: ignore[operator]
        assert found.p == pytest.approx(2 * scipy.stats.t.sf(abs(t), 7))

    def test_points_of_one_run_are_not_independent(self) -> None:
        """Twenty copies of every run's point say no more than one: the interval must not shrink by √20."""
        rng = np.random.default_rng(4)
        x = rng.normal(size=15)
        y = 0.5 * x + rng.normal(size=15)
        single = associate(x, y, np.arange(15)).pearson
        copies = associate(np.repeat(x, 20), np.repeat(y, 20), np.repeat(np.arange(15), 20)).pearson
        assert copies.value == pytest.approx(single.value) and copies.p is None
        width = lambda each: each.high - each.low  # noqa: E731
        assert 0.6 < width(copies) / width(single) < 1.4

    def test_the_bootstrap_of_runs_is_that_of_the_plain_loop(self) -> None:
        rng = np.random.default_rng(5)
        runs = np.repeat(np.arange(12), 5)
        x = rng.normal(size=60) + np.repeat(rng.normal(size=12), 5)
        y = x + rng.normal(size=60)
        found = associate(x, y, runs).pearson
        draws = np.random.default_rng(9).integers(0, 12, (2000, 12))
        rows = [np.concatenate([np.flatnonzero(runs == run) for run in draw]) for draw in draws]
        expected = np.quantile([np.corrcoef(x[each], y[each])[0, 1] for each in rows], [0.025, 0.975])
        assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.03)

    @pytest.mark.parametrize(
        ("x", "y", "why"),
        [([1.0, 2.0], [1.0, 2.0], "2 points"), ([0.1] * 5, range(5), "similarity is the same at all 5 points"),
         (range(5), [0.1] * 5, "metric is the same at all 5 points"), ([], [], "0 points")],
    )  # fmt: skip
    def test_what_is_undefined_has_a_reason_and_no_figure(self, x: list[float], y: list[float], why: str) -> None:
        found = associate(np.array(x, float), np.array(y, float), np.arange(len(x)))
        assert why in found.why and found.pearson.value is None and found.line is None

    def test_a_perfect_line_has_no_width(self) -> None:
        found = associate(np.arange(6.0), 2 * np.arange(6.0), np.arange(6))
        assert (found.pearson.low, found.pearson.high, found.pearson.p) == pytest.approx((1, 1, 0), abs=1e-7)


class TestIntervals:
    def test_they_are_cut_at_multiples_of_the_width_and_the_last_has_its_end(self) -> None:
        data = _study([(0.8, 0.1), (0.849, 0.2), (0.85, 0.3), (0.95, 0.5), (1.0, 0.7)])
        found = correlation(data, replace(OPTIONS, min_count=1)).intervals
        assert [(each.low, each.high, each.n) for each in found] == [(0.8, 0.85, 2), (0.85, 0.9, 1), (0.95, 1.0, 2)]
        assert found[0].y.mean == pytest.approx(0.15, abs=1e-6) and found[0].x == pytest.approx(0.8245, abs=1e-6)
        assert found[2].y.sd == pytest.approx(math.sqrt(0.02), abs=1e-6)

    def test_below_zero_too(self) -> None:
        key = replace(KEY, measure="debiased_cka")
        data = StudyData((made_run("a", -0.01, key=key, quality={"test_ece": [0, 0, 0.5]}),))
        (found,) = correlation(data, replace(OPTIONS, measure="debiased_cka", min_count=1)).intervals
        assert (found.low, found.high) == (-0.05, 0.0)

    def test_thin_ones_are_counted_and_have_no_mean(self) -> None:
        data = _study([(0.81, 0.1), (0.82, 0.2), (0.91, 0.3)])
        table = correlation_intervals_table(data, replace(OPTIONS, min_count=2))
        assert table.column("n_points") == (2, 1)
        assert table.column("test_ece_mean")[1] is None and table.column("test_ece_mean")[0] is not None
        assert any("0.05 wide, from multiples of it, with at least 2 points" in note for note in table.notes)

    def test_the_line_through_them_counts_each_once(self) -> None:
        """Ten runs in one interval weigh as much as one in another."""
        pairs = [(0.12, 0.1)] * 10 + [(0.52, 0.2), (0.92, 0.6)]
        found = correlation(_study(pairs), replace(OPTIONS, min_count=1))
        expected = scipy.stats.linregress([0.12, 0.52, 0.92], [0.1, 0.2, 0.6])
        assert found.interval_line is not None and found.all.line is not None
        assert found.interval_line.slope == pytest.approx(expected.slope, abs=1e-5)
        assert found.all.line.slope != pytest.approx(expected.slope, abs=1e-2)

    def test_two_means_are_no_line(self) -> None:
        found = correlation(_study([(0.1, 0.1), (0.9, 0.2)]), replace(OPTIONS, min_count=1))
        assert found.interval_line is None

    def test_where_the_means_flatter_the_fit_it_is_said(self) -> None:
        rng = np.random.default_rng(0)
        x = rng.uniform(0.3, 1.0, 400)
        noisy = [(float(a), float(b)) for a, b in zip(x, 0.5 - 0.2 * x + rng.normal(0, 0.1, 400), strict=True)]
        clean = [(float(a), float(0.5 - 0.2 * a)) for a in x]
        said = correlation(_study(noisy), OPTIONS).warnings
        assert len(said) == 1 and said[0].startswith("the interval means flatter the fit: R² = 0.")
        assert "over the 400 points" in said[0]
        assert correlation(_study(clean), OPTIONS).warnings == ()


class TestGroups:
    def test_a_correlation_between_groups_alone_is_said(self) -> None:
        rng = np.random.default_rng(1)
        runs = [
            _run(f"{method}{i}", at + float(rng.normal(0, 0.01)), ece + float(rng.normal(0, 0.01)), method=method)
            for method, at, ece in (("full", 0.4, 0.2), ("linear", 0.9, 0.05))
            for i in range(15)
        ]
        found = correlation(StudyData(tuple(runs)), OPTIONS)
        assert found.all.pearson.value is not None and found.all.pearson.value < -0.95
        assert found.within.pearson.value is not None and abs(found.within.pearson.value) < 0.4
        assert any("differences between backbones and methods alone" in each for each in found.warnings)

    def test_a_correlation_that_turns_round_within_groups_is_said(self) -> None:
        runs = [
            _run(f"{method}{i}", at + 0.01 * i, ece + 0.002 * i + 0.0005 * (i % 2), method=method)
            for method, at, ece in (("full", 0.4, 0.3), ("linear", 0.8, 0.1))
            for i in range(10)
        ]
        found = correlation(StudyData(tuple(runs)), OPTIONS)
        assert found.all.pearson.value is not None and found.within.pearson.value is not None
        assert found.all.pearson.value < 0 < found.within.pearson.value
        assert any("it turns round: r = " in each for each in found.warnings)

    def test_each_group_has_its_own_row(self) -> None:
        runs = [
            _run(f"{method}{i}", 0.5 + 0.01 * i, sign * 0.01 * i + 0.5, method=method)
            for method, sign in (("full", 1), ("linear", -1))
            for i in range(6)
        ]
        table = correlation_table(StudyData(tuple(runs)), replace(OPTIONS, by="method"))
        assert table.column("method") == ("all points", "within backbones and methods", "full", "linear")
        assert table.column("pearson")[2:] == pytest.approx((1.0, -1.0), abs=1e-6)
        assert table.column("n_points") == (12, 12, 6, 6)


class TestPoints:
    def test_over_epochs_every_epoch_but_the_first_is_a_point(self) -> None:
        run = replace(
            _run("a", 0.5, 0.1),
            diagonal={KEY: np.array([[1, 1], [0.8, 0.6], [0.5, 0.5]], np.float32)},
            quality={"test_ece": np.array([0.9, 0.3, 0.1], np.float32)},
        )
        table = correlation_points_table(StudyData((run,)), replace(OPTIONS, over="runs and epochs"))
        assert table.column("epoch") == (1, 2)
        assert table.column(COLUMN) == pytest.approx((0.7, 0.5), abs=1e-6)
        assert table.column("test_ece") == pytest.approx((0.3, 0.1), abs=1e-6)

    def test_runs_under_way_count_over_epochs_only(self) -> None:
        data = StudyData((_run("a", 0.5, 0.1), made_run("b", 0.6, n_epochs=2, state=State.RUNNING,
                                                         quality={"test_ece": [0.9, 0.4]})))  # fmt: skip
        assert correlation(data, OPTIONS).points.n == 1
        found = correlation(data, replace(OPTIONS, over="runs and epochs")).points
        assert found.runs.tolist() == [0, 0, 1] and found.epochs.tolist() == [1, 2, 1]
        table = correlation_table(data, OPTIONS)
        assert any("left out: 1 of 2 runs" in note for note in table.notes)

    def test_points_without_a_value_are_left_out_counted_and_said(self) -> None:
        data = _study([(0.5, 0.1), (math.nan, 0.2), (0.7, math.nan), (0.8, 0.3)])
        assert correlation(data, OPTIONS).points.n_left_out == 2
        notes = correlation_table(data, OPTIONS).notes
        assert "left out: 2 points without a similarity or without the metric" in notes

    def test_a_metric_of_layers_is_taken_of_the_layer_that_is_asked_for(self) -> None:
        run = replace(
            _run("a", [0.4, 0.6], 0.1),  # type: ignore[arg-type]
            layer_quality={"effective_rank_cls": np.array([[9, 9], [9, 9], [3, 5]], np.float32)},
        )
        data = StudyData((run,))
        assert "effective_rank" in metrics_of(data)
        of_mean = correlation(data, replace(OPTIONS, metric="effective_rank")).points
        of_layer = correlation(data, replace(OPTIONS, metric="effective_rank", layer="block 2")).points
        assert (of_mean.x[0], of_mean.y[0]) == pytest.approx((0.5, 4.0))
        assert (of_layer.x[0], of_layer.y[0]) == pytest.approx((0.6, 5.0))

    def test_an_unknown_metric_is_refused_with_what_there_is(self) -> None:
        with pytest.raises(StudyError, match=r'did you mean "test_ece"\?\n.*choose one of test_accuracy, test_ece'):
            correlation(_study([(0.5, 0.1)]), replace(OPTIONS, metric="test_ec"))

    def test_one_run_and_no_run_give_tables_without_figures(self) -> None:
        table = correlation_table(_study([(0.5, 0.1)]), OPTIONS)
        assert table.column("pearson") == (None, None, None)
        assert any("1 points; 3 are the fewest" in note for note in table.notes)
        assert correlation_table(StudyData(()), OPTIONS).rows == ()
        assert correlation_intervals_table(StudyData(()), OPTIONS).rows == ()
