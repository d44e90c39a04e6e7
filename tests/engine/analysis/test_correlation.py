"""Similarity against quality: coefficients against scipy, the intervals of the paper's figure 5, and what misleads."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from engine.analysis import bootstrap
from engine.analysis.association import (
    Coefficient,
    associate,
    error_over_runs,
    fit,
    pearson_influence,
    spearman_influence,
)
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

    def test_few_runs_have_students_t(self) -> None:
        rng = np.random.default_rng(8)
        runs = np.repeat(np.arange(5), 4)
        x = rng.normal(size=20)
        y = x + rng.normal(size=20)
        found = associate(x, y, runs).pearson
        r = scipy.stats.pearsonr(x, y).statistic
        zx, zy = scipy.stats.zscore(x), scipy.stats.zscore(y)
        sums = (zx * zy - r / 2 * (zx**2 + zy**2)).reshape(5, 4).sum(axis=1)
        half = scipy.stats.t.ppf(0.975, 4) * math.sqrt(5 / 4 * (sums**2).sum()) / 20 / (1 - r**2)
        assert (found.low, found.high) == pytest.approx(
            (math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half))
        )

    def test_with_many_runs_the_interval_is_that_of_drawing_whole_runs_anew(self) -> None:
        """An independent way to the same: the bootstrap of runs by a plain loop, ranks made anew in each resample."""
        rng = np.random.default_rng(5)
        runs = np.repeat(np.arange(80), 5)
        x = rng.normal(size=400) + np.repeat(rng.normal(size=80), 5)
        y = np.exp(x + rng.normal(size=400) + np.repeat(rng.normal(size=80), 5))
        found = associate(x, np.log(y), runs)
        draws = np.random.default_rng(9).integers(0, 80, (1000, 80))
        rows = [np.concatenate([np.flatnonzero(runs == run) for run in draw]) for draw in draws]
        for coefficient, resampled in (
            (found.pearson, [np.corrcoef(x[each], np.log(y[each]))[0, 1] for each in rows]),
            (found.spearman, [scipy.stats.spearmanr(x[each], y[each]).statistic for each in rows]),
        ):
            expected = np.quantile(resampled, [0.025, 0.975])
            assert (coefficient.low, coefficient.high) == pytest.approx(tuple(expected), abs=0.025)
            width = coefficient.high - coefficient.low  # type: ignore[operator]
            assert 0.85 < width / (expected[1] - expected[0]) < 1.15

    @pytest.mark.parametrize("has_ties", [False, True])
    def test_influences_are_what_leaving_a_point_out_changes(self, has_ties: bool) -> None:
        rng = np.random.default_rng(6)
        x, n = rng.normal(size=400), 400
        y = 0.6 * x + rng.normal(size=n)
        if has_ties:
            x, y = np.minimum(x, 0.4), np.round(2 * y)
        for influence, coefficient in (
            (pearson_influence(x, y), lambda a, b: scipy.stats.pearsonr(a, b).statistic),
            (spearman_influence(x, y), lambda a, b: scipy.stats.spearmanr(a, b).statistic),
        ):
            whole = coefficient(x, y)
            left_out = [(n - 1) * (whole - coefficient(np.delete(x, i), np.delete(y, i))) for i in range(n)]
            assert influence.mean() == pytest.approx(0, abs=1e-12)
            assert np.corrcoef(influence, left_out)[0, 1] > 0.9999
            assert np.std(influence) == pytest.approx(np.std(left_out), rel=0.02)

    def test_an_error_over_runs_adds_up_the_points_of_a_run(self) -> None:
        values = np.array([1.0, 2.0, 6.0, 7.0])
        single = error_over_runs(values - 4, np.arange(4))
        assert single == pytest.approx(np.std(values, ddof=1) / 2)
        # sums of runs: −5 and 5; √(2 / 1 · 50) / 4
        assert error_over_runs(values - 4, np.array([7, 7, 9, 9])) == pytest.approx(2.5)
        assert error_over_runs(np.repeat(values - 4, 6), np.repeat(np.arange(4), 6)) == pytest.approx(single)
        assert error_over_runs(values - 4, np.arange(4), n_groups=2) == pytest.approx(single * math.sqrt(3 / 2))

    @pytest.mark.parametrize(
        ("y", "rho", "p"),
        [([1, 2, 3, 4], 1.0, 2 / 24), ([1, 2, 3, 5, 4], 0.9, 10 / 120), ([5, 4, 3, 2, 1], -1.0, 2 / 120)],
    )
    def test_spearmans_p_of_few_points_is_of_all_orders(self, y: list[float], rho: float, p: float) -> None:
        """Student's t, as in `scipy.stats.spearmanr`, gives 0, 0.037 and 0."""
        found = associate(np.arange(len(y), dtype=float), np.array(y, float), np.arange(len(y))).spearman
        assert (found.value, found.p) == pytest.approx((rho, p))
        assert scipy.stats.spearmanr(np.arange(len(y)), y).pvalue < 0.04

    def test_spearmans_p_with_ties_is_scipys_permutation_test(self) -> None:
        x, y = np.array([1.0, 1, 2, 3, 3, 4]), np.array([2.0, 1, 1, 5, 4, 4])
        found = associate(x, y, np.arange(6)).spearman
        expected = scipy.stats.permutation_test(
            (x,), lambda each: scipy.stats.spearmanr(each, y).statistic, permutation_type="pairings",
            n_resamples=np.inf,
        )  # fmt: skip
        assert found.p == pytest.approx(expected.pvalue)

    def test_spearmans_p_within_groups_is_students(self) -> None:
        """Points of several groups must not change places, so that not all orders are alike."""
        x, y = np.array([1.0, 2, 3, 5, 4, 6]), np.array([1.0, 3, 2, 4, 6, 5])
        found = associate(x, y, np.arange(6), n_groups=2).spearman
        t = found.value * math.sqrt(3 / (1 - found.value**2))  # type: ignore[operator]
        assert found.p == pytest.approx(2 * scipy.stats.t.sf(t, 3))

    def test_spearmans_p_is_never_below_that_of_one_order_and_its_reverse(self) -> None:
        found = associate(np.arange(10.0), np.arange(10.0) ** 3, np.arange(10)).spearman
        assert found.p == pytest.approx(2 / math.factorial(10))

    def test_what_differs_by_rounding_alone_is_constant(self) -> None:
        x = np.float32(1) - np.array([0, 1, 2, 1, 0]) * np.float32(6e-8)
        found = associate(x.astype(float), np.arange(5.0), np.arange(5))
        assert found.why == "the similarity is the same at all 5 points"

    @pytest.mark.parametrize(
        ("x", "y", "why"),
        [([1.0, 2.0], [1.0, 2.0], "2 points"), ([0.1] * 5, range(5), "similarity is the same at all 5 points"),
         (range(5), [0.1] * 5, "metric is the same at all 5 points"), ([], [], "0 points")],
    )  # fmt: skip
    def test_what_is_undefined_has_a_reason_and_no_figure(self, x: list[float], y: list[float], why: str) -> None:
        found = associate(np.array(x, float), np.array(y, float), np.arange(len(x)))
        assert why in found.why and found.pearson.value is None and found.line is None

    @pytest.mark.parametrize("runs", [range(6), [0, 0, 1, 1, 2, 2]])
    def test_a_perfect_line_has_no_interval(self, runs: list[int]) -> None:
        """Fisher's z is infinite; an interval from 1 to 1 would say that other runs can only lie on the line too."""
        found = associate(np.arange(6.0), 2 * np.arange(6.0), np.array(runs))
        for coefficient in (found.pearson, found.spearman):
            assert coefficient.value == pytest.approx(1) and (coefficient.low, coefficient.high) == (None, None)
        assert found.why_no_interval == "Pearson and Spearman: a coefficient of ±1 has none"

    def test_too_few_draws_have_a_coefficient_and_no_interval(self) -> None:
        x, y = np.array([1.0, 2, 4, 3]), np.array([1.0, 3, 2, 5])
        assert associate(x, y, np.arange(4)).why_no_interval == ""
        three = associate(x[:3], y[:3], np.arange(3))
        assert three.pearson.value is not None and three.pearson.low is None and three.pearson.p is not None
        assert three.why_no_interval == "Pearson and Spearman: 3 points are too few"
        grouped = associate(x, y, np.arange(4), n_groups=3)
        assert (grouped.pearson.low, grouped.pearson.p) == (None, None)
        assert grouped.why_no_interval == "Pearson and Spearman: 4 points in 3 groups are too few"
        two = associate(x, y, np.array([0, 0, 1, 1]))
        assert two.pearson == Coefficient(pytest.approx(scipy.stats.pearsonr(x, y).statistic))  # type: ignore[arg-type]
        assert two.why_no_interval == "Pearson and Spearman: 2 runs are too few"


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

    def test_many_epochs_of_a_run_make_no_mean_surer(self) -> None:
        """Three runs that stay where they are for twenty epochs: the interval is that of three values."""
        means = (0.1, 0.2, 0.6)
        runs = [
            replace(
                _run(str(i), 0.52, 0.1),
                diagonal={KEY: np.full((21, 2), 0.52, np.float32)},
                quality={"test_ece": np.full(21, mean, np.float32)},
            )
            for i, mean in enumerate(means)
        ]
        options = replace(OPTIONS, over="runs and epochs")
        (found,) = correlation(StudyData(tuple(runs)), options).intervals
        assert (found.n, found.n_runs) == (60, 3)
        assert found.standard_error == pytest.approx(scipy.stats.sem(means), rel=1e-6)
        ends = scipy.stats.t.interval(0.95, 2, np.mean(means), scipy.stats.sem(means))
        assert (found.y.low, found.y.high) == pytest.approx(ends, rel=1e-6)
        table = correlation_intervals_table(StudyData(tuple(runs)), options)
        assert table.column("n_runs") == (3,)
        assert table.column("test_ece_standard_error") == (found.standard_error,)
        (ends_only,) = correlation(StudyData(tuple(replace(run, record=replace(run.record, spec=replace(
            run.record.spec, epochs=20))) for run in runs)), OPTIONS).intervals  # fmt: skip
        low, high = bootstrap.mean_interval(np.array(means, np.float32)[:, None])
        assert (ends_only.y.low, ends_only.y.high) == (low[0], high[0])
        assert ends_only.standard_error == pytest.approx(scipy.stats.sem(means), rel=1e-6)
        (alone,) = correlation(StudyData((runs[0],)), options).intervals
        assert alone.y.mean == pytest.approx(0.1) and (alone.y.low, alone.standard_error) == (None, None)

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"width": 0.0}, "width: of an interval is above 0 (seen 0)"), ({"width": -0.1}, "(seen -0.1)"),
         ({"width": math.nan}, "(seen nan)"), ({"width": math.inf}, "(seen inf)"),
         ({"min_count": 0}, "min count: a mean is of 1 point or more (seen 0)")],
    )  # fmt: skip
    def test_intervals_that_cannot_be_are_refused(self, options: dict[str, float], message: str) -> None:
        with pytest.raises(StudyError) as caught:
            correlation(_study([(0.5, 0.1)]), replace(OPTIONS, **options))  # type: ignore[arg-type]
        assert message in str(caught.value)

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

    def test_rounding_within_groups_is_no_correlation(self) -> None:
        """Two frozen backbones, whose similarities differ from each other, and among their seeds by rounding alone."""
        runs = [
            _run(f"{method}{i}", at * (1 - 6e-8 * (i % 3)), 0.1 + 0.01 * (i % 3), method=method)
            for method, at in (("full", 0.9), ("linear", 1.0))
            for i in range(6)
        ]
        found = correlation(StudyData(tuple(runs)), OPTIONS)
        assert found.within.why == "the similarity is the same at all 12 points"
        assert found.all.pearson.value is not None

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
        assert None not in table.column("slope") and table.column("intercept")[1] is None
        assert any(note.startswith("no interval for linear: ") and "of ±1 has none" in note for note in table.notes)


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

    def test_a_run_without_its_last_epoch_is_left_out(self) -> None:
        """Done, by its record, with results that end early: an earlier epoch must not stand for the last."""
        short = made_run("short", 0.6, n_epochs=2, quality={"test_ece": [0.9, 0.4]})
        bare = replace(_run("bare", 0.5, 0.1), diagonal={}, quality={})
        found = correlation(StudyData((_run("a", 0.5, 0.1), short, bare)), OPTIONS).points
        assert (found.n, found.n_left_out) == (1, 2)

    def test_an_epoch_without_the_metric_is_left_out(self) -> None:
        data = StudyData((made_run("a", 0.6, quality={"test_ece": [0.9, 0.4]}),))
        found = correlation(data, replace(OPTIONS, over="runs and epochs")).points
        assert (found.epochs.tolist(), found.n_left_out) == ([1], 1)

    def test_a_layer_that_a_smaller_backbone_lacks_is_left_out(self) -> None:
        rank = {"effective_rank_cls": np.ones((3, 2), np.float32)}
        small = replace(
            _run("small", 0.5, 0.1), layers=("block 1",), diagonal={KEY: np.full((3, 1), 0.5, np.float32)},
            layer_quality={"effective_rank_cls": np.ones((3, 1), np.float32)},
        )  # fmt: skip
        data = StudyData((replace(_run("a", 0.5, 0.1), layer_quality=rank), small))
        for metric in ("test_ece", "effective_rank"):
            found = correlation(data, replace(OPTIONS, metric=metric, layer="block 2")).points
            assert (found.n, found.n_left_out, found.runs.tolist()) == (1, 1, [0])

    def test_a_metric_of_the_other_tokens_is_refused(self) -> None:
        run = replace(_run("a", 0.5, 0.1), layer_quality={"effective_rank_feat": np.ones((3, 2), np.float32)})
        assert "effective_rank" in metrics_of(StudyData((run,)), "feat")
        with pytest.raises(StudyError, match="this study has no such metric"):
            correlation(StudyData((run,)), replace(OPTIONS, metric="effective_rank"))

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
