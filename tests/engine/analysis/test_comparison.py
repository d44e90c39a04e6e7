"""Comparisons of made-up groups, against figures by hand, scipy, every order there is, and published intervals."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, ttest_ind, ttest_rel, wilcoxon

from engine.analysis.comparison import (
    EXACT_UP_TO,
    PAIRED_NOTE,
    UNPAIRED_NOTE,
    Comparison,
    cliffs_delta,
    compare,
    compare_pairs,
    comparison_table,
    effect_of,
    holm,
    mann_whitney,
    paired_interval,
    signed_rank,
    welch_interval,
)
from engine.analysis.options import BY, TableOptions
from engine.analysis.study_data import StudyData
from engine.errors import StudyError
from engine.runs.record import Provenance, State
from engine.runs.results import SimilarityKey
from tests.engine.analysis.made_runs import COLUMN, made_run, study

RNG_SIZES = [(2, 2), (3, 3), (3, 5), (5, 4), (8, 8), (20, 20), (30, 20)]
# The worked example of R's effsize (after Hogarty & Kromrey 1999).
TREATMENT = np.array([10, 10, 20, 20, 20, 30, 30, 30, 40, 50]) / 100
CONTROL = np.array([10, 20, 30, 40, 40, 50]) / 100


def _p_of_every_order(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p of U by listing every way to deal the values out."""
    values = np.concatenate([a, b])
    us = []
    for chosen in combinations(range(len(values)), len(a)):
        x, y = values[list(chosen)], np.delete(values, chosen)
        us.append(float((np.sign(x[:, None] - y).sum() + x.size * y.size) / 2))
    seen = us[0]
    return min(1.0, 2 * min(np.mean(np.array(us) <= seen), np.mean(np.array(us) >= seen)))


def _p_of_every_sign(differences: np.ndarray) -> float:
    """Two-sided p of W by listing every way to give the differences a sign; ranks counted one by one."""
    kept = differences[differences != 0]
    sizes = np.abs(kept)
    ranks = np.array([np.sum(sizes < each) + (np.sum(sizes == each) + 1) / 2 for each in sizes])
    ws = np.array([ranks[np.array(signs)].sum() for signs in product((True, False), repeat=len(kept))])
    seen = ranks[kept > 0].sum()
    return float(min(1.0, 2 * min(np.mean(ws <= seen), np.mean(ws >= seen))))


class TestSignedRank:
    @pytest.mark.parametrize("n", [2, 5, 12, 30, EXACT_UP_TO])
    def test_without_ties_it_is_exact_as_scipy_is(self, n: int) -> None:
        rng = np.random.default_rng(n)
        for shift in (0.0, 0.3, 2.0):
            differences = rng.normal(size=n) + shift
            w, p, is_exact = signed_rank(differences)
            expected = wilcoxon(differences, method="exact")
            assert is_exact and p == pytest.approx(expected.pvalue, rel=1e-9)
            assert min(w, n * (n + 1) / 2 - w) == expected.statistic

    @pytest.mark.parametrize("n", [2, 4, 7, 10])
    def test_with_ties_and_zeros_it_is_that_of_every_sign(self, n: int) -> None:
        rng = np.random.default_rng(n)
        for _ in range(20):
            differences = np.append(rng.integers(-3, 4, n) / 4, 0.25)
            _, p, is_exact = signed_rank(differences)
            assert is_exact and p == pytest.approx(_p_of_every_sign(differences), rel=1e-12)

    def test_many_pairs_are_asymptotic_with_ties_corrected(self) -> None:
        differences = np.random.default_rng(0).integers(-3, 6, 90) / 8
        differences = differences[differences != 0]
        assert len(differences) > EXACT_UP_TO
        expected = wilcoxon(differences, method="asymptotic", correction=True)
        _, p, is_exact = signed_rank(differences)
        assert not is_exact and p == pytest.approx(expected.pvalue, rel=1e-9)

    def test_without_a_difference_p_is_one_and_noise_is_none(self) -> None:
        assert signed_rank(np.zeros(5)) == (0.0, 1.0, True)
        assert signed_rank(np.full(5, 6e-8)) == (0.0, 1.0, True)

    def test_the_sides_can_be_swapped(self) -> None:
        differences = np.array([0.25, 0.5, -0.125, 0.75])
        assert signed_rank(differences) == (9.0, pytest.approx(0.25), True)
        assert signed_rank(-differences) == (1.0, pytest.approx(0.25), True)


class TestPairs:
    def test_the_interval_is_that_of_students_t(self) -> None:
        a, b = np.random.default_rng(1).normal(size=(2, 9))
        expected = ttest_rel(a, b).confidence_interval(0.95)
        assert paired_interval(a - b) == pytest.approx((expected.low, expected.high))
        assert paired_interval(np.full(3, 0.5)) == (0.5, 0.5)

    def test_a_pair_without_a_value_is_left_out(self) -> None:
        found = compare_pairs(np.array([0.5, math.nan, 1.0, 0.5]), np.array([0.25, 0.25, 0.5, 0.25]))
        assert (found.n_a, found.n_pairs, found.w, found.u, found.delta_interval) == (3, 3, 6.0, None, None)
        assert compare_pairs(np.array([0.5]), np.array([0.25])).p is None
        assert compare_pairs(np.array([math.nan]), np.array([0.25])).difference is None

    def _data(self, *methods: str, n: int = 6, lacks: str = "") -> StudyData:
        """Seeds differ by far more than methods do; the order of the runs is another for each method."""
        runs = [
            made_run(f"{method}{seed}", 0.5, (seed + 1) / 16 + i / 64, method=method, seed=seed)
            for i, method in enumerate(methods)
            for seed in (range(n) if i % 2 else reversed(range(n)))
        ]
        return study(*(run for run in runs if run.record.run_id != lacks))

    @pytest.mark.parametrize("other", ["wise_ft", "wise_ft:0.25", "ema"])
    def test_groups_of_one_training_are_compared_seed_by_seed(self, other: str) -> None:
        table = comparison_table(self._data("full", other), TableOptions())
        row = dict(zip(table.columns, table.rows[1], strict=True))
        assert (row["mean_difference"], row["mean_difference_low"]) == (-1 / 64, pytest.approx(-1 / 64, abs=1e-6))
        assert (row["p"], row["p_test"], row["n_pairs"]) == (pytest.approx(2 / 2**6), "exact, paired", 6)
        assert (row["wilcoxon_w"], row["mann_whitney_u"], row["cliffs_delta_low"]) == (0.0, None, None)
        assert PAIRED_NOTE in table.notes and UNPAIRED_NOTE not in table.notes
        assert any("p cannot be below 0.0312 with 6 pairs" in note for note in table.notes)

    def test_mixtures_of_one_training_are_pairs_too_and_other_methods_are_not(self) -> None:
        table = comparison_table(self._data("wise_ft", "wise_ft:0.25", "full", "l2_sp"), TableOptions())
        pairs = {(row[1], row[2]): row[table.columns.index("n_pairs")] for row in table.rows}
        assert {names for names, n in pairs.items() if n == 6} == {
            ("wise_ft", "wise_ft:0.25"), ("wise_ft", "full"), ("wise_ft:0.25", "full"),
        }  # fmt: skip
        assert [n for names, n in pairs.items() if "l2_sp" in names] == [None] * 3

    @pytest.mark.parametrize("lacks", ["full3", "wise_ft3"])
    def test_where_a_partner_is_missing_it_is_said(self, lacks: str) -> None:
        table = comparison_table(self._data("full", "wise_ft", lacks=lacks), TableOptions())
        assert set(table.column("n_pairs")) == {None} and set(table.column("p_test")) == {"exact"}
        assert UNPAIRED_NOTE in table.notes and PAIRED_NOTE not in table.notes

    def test_pairs_are_of_one_backbone(self) -> None:
        runs = [
            made_run(f"{backbone}{method}{seed}", 0.5, 0.25 + seed / 16 + shift, method=method, seed=seed,
                     backbone=f"bundled:{backbone}")
            for backbone, shift in (("supervised", 0.0), ("image-text", 0.25))
            for method in ("full", "wise_ft")
            for seed in range(3)
        ]  # fmt: skip
        table = comparison_table(study(*runs), TableOptions(by="method"))
        assert table.column("n_pairs") == (6, 6) and table.column("mean_difference")[1] == 0.0


class TestMannWhitney:
    @pytest.mark.parametrize(("n_a", "n_b"), RNG_SIZES)
    def test_without_ties_it_is_exact_as_scipy_is(self, n_a: int, n_b: int) -> None:
        rng = np.random.default_rng(n_a)
        for shift in (0.0, 0.3, 2.0):
            a, b = rng.uniform(size=n_a), rng.uniform(size=n_b) + shift
            expected = mannwhitneyu(a, b, method="exact")
            u, p, is_exact = mann_whitney(a, b)
            assert (u, is_exact) == (expected.statistic, True)
            assert p == pytest.approx(expected.pvalue, rel=1e-12)

    @pytest.mark.parametrize(("n_a", "n_b"), [(2, 2), (2, 5), (3, 3), (4, 6), (6, 3)])
    def test_with_ties_it_is_that_of_every_order(self, n_a: int, n_b: int) -> None:
        rng = np.random.default_rng(n_b)
        for _ in range(20):
            a, b = rng.integers(0, 4, n_a) / 4, rng.integers(0, 4, n_b) / 4
            u, p, is_exact = mann_whitney(a, b)
            assert is_exact and p == pytest.approx(_p_of_every_order(a, b), rel=1e-12)
            assert u == mannwhitneyu(a, b, method="asymptotic").statistic

    def test_a_frozen_backbone_does_not_reach_a_p_that_its_seeds_cannot(self) -> None:
        """Three different values against three equal ones: scipy's normal p is 0.064."""
        a, b = np.array([0.1, 0.2, 0.3]), np.ones(3)
        assert mann_whitney(a, b) == (0.0, pytest.approx(0.1), True)
        assert mannwhitneyu(a, b, method="asymptotic").pvalue < 0.07

    def test_many_runs_are_asymptotic_with_ties_corrected(self) -> None:
        rng = np.random.default_rng(0)
        n = EXACT_UP_TO // 2
        a, b = rng.integers(0, 9, n + 1) / 9, rng.integers(0, 9, n) / 9
        u, p, is_exact = mann_whitney(a, b)
        expected = mannwhitneyu(a, b, use_continuity=True, method="asymptotic")
        assert (u, p, is_exact) == (expected.statistic, pytest.approx(expected.pvalue, rel=1e-9), False)
        far = mannwhitneyu(a + 1, b, method="asymptotic").pvalue
        assert mann_whitney(a + 1, b)[1] == pytest.approx(far, rel=1e-9) and far < 1e-9
        assert mann_whitney(a[:n], b)[2]

    @pytest.mark.parametrize("n", [3, 40])
    def test_equal_values_are_no_evidence(self, n: int) -> None:
        assert mann_whitney(np.full(n, 0.5), np.full(n, 0.5)) == (n * n / 2, 1.0, n == 3)

    def test_sides_can_be_swapped_and_values_mapped(self) -> None:
        rng = np.random.default_rng(2)
        a, b = rng.integers(1, 9, 7) / 10, rng.integers(1, 9, 9) / 10
        u, p, _ = mann_whitney(a, b)
        assert mann_whitney(b, a) == (63 - u, pytest.approx(p), True)
        assert mann_whitney(np.exp(a), np.exp(b)) == (u, pytest.approx(p), True)

    def test_the_noise_of_single_precision_is_a_tie(self) -> None:
        a = np.array([1.0, 1.0, 1.0])
        assert mann_whitney(a, a - 6e-8) == (4.5, 1.0, True)
        assert cliffs_delta(a, a - 6e-8)[0] == 0


class TestCliffsDelta:
    def test_as_the_r_package_effsize_prints_it(self) -> None:
        assert cliffs_delta(TREATMENT, CONTROL) == (
            pytest.approx(-0.25), pytest.approx((-0.7265846, 0.3890062), abs=5e-8)
        )  # fmt: skip

    def test_the_interval_follows_from_the_unbiased_variance(self) -> None:
        """By loops over all pairs, as Cliff 1993 and Feng & Cliff 2004 write it."""
        rng = np.random.default_rng(4)
        a, b = rng.normal(0.5, 1, 9), rng.normal(0, 2, 7)
        signs = [[int(x > y) - int(x < y) for y in b] for x in a]
        d = sum(map(sum, signs)) / 63
        rows = sum((sum(row) / 7 - d) ** 2 for row in signs)
        columns = sum((sum(row[j] for row in signs) / 9 - d) ** 2 for j in range(7))
        pairs = sum((each - d) ** 2 for row in signs for each in row)
        variance = (49 * rows + 81 * columns - pairs) / (63 * 8 * 6)
        t = 2.1447867  # of 14 degrees of freedom, from a table
        half = t * math.sqrt(variance) * math.sqrt((1 - d**2) ** 2 + t**2 * variance)
        below = 1 - d**2 + t**2 * variance
        delta, (low, high) = cliffs_delta(a, b)
        assert delta == pytest.approx(d)
        assert (low, high) == pytest.approx(((d - d**3 - half) / below, (d - d**3 + half) / below), rel=1e-6)
        assert -1 < low < delta < high < 1

    @pytest.mark.parametrize(("n", "t"), [(2, 4.3026527), (3, 2.7764451)])
    def test_equal_values_say_nothing(self, n: int, t: float) -> None:
        """All signs are 0, so is their variance: its lowest value (1 − d²) / (n² − 1) stands in its place."""
        delta, interval = cliffs_delta(np.ones(n), np.ones(n))
        bound = t * math.sqrt(1 / (n * n - 1)) / math.sqrt(1 + t**2 / (n * n - 1))
        assert (delta, interval) == (0.0, pytest.approx((-bound, bound), rel=1e-6))

    def test_sides_apart_leave_room_where_there_are_few_runs(self) -> None:
        delta, (low, high) = cliffs_delta(np.array([0.7, 0.8, 0.9]), np.array([0.1, 0.2, 0.3]))
        t2 = 2.7764451**2  # of 4 degrees of freedom
        assert (delta, high) == (1.0, 1.0) and low == pytest.approx((3 - t2) / (3 + t2), rel=1e-6)
        assert low < 0  # as p = 0.1 cannot rule chance out
        many = np.linspace(0, 0.1, 20)
        assert cliffs_delta(many + 0.5, many)[1] == pytest.approx((0.6598, 1.0), abs=1e-4)
        assert cliffs_delta(many[:3], many + 0.5)[1] == (-1.0, pytest.approx(-(3 - 2.0796138**2) / (3 + 2.0796138**2)))

    def test_it_is_u_on_another_scale_and_changes_sign_with_the_sides(self) -> None:
        rng = np.random.default_rng(5)
        for n_a, n_b in RNG_SIZES:
            a, b = rng.integers(0, 12, n_a) / 12, rng.integers(3, 15, n_b) / 12
            delta, (low, high) = cliffs_delta(a, b)
            assert delta == pytest.approx(2 * mann_whitney(a, b)[0] / (n_a * n_b) - 1)
            swapped, interval = cliffs_delta(b, a)
            assert (swapped, *interval) == pytest.approx((-delta, -high, -low))
            assert cliffs_delta(a**3, b**3) == (delta, pytest.approx((low, high)))
            assert -1 <= low <= delta <= high <= 1

    def test_it_covers_what_is_true(self) -> None:
        """95 % of intervals, give or take what 400 draws can tell, for unequal spreads."""
        rng = np.random.default_rng(6)
        true = 2 * 0.8413447 - 1  # Φ(1) for a distance of √(1 + 0.25)
        hits = [
            low <= true <= high
            for _ in range(400)
            for low, high in [cliffs_delta(rng.normal(math.sqrt(1.25), 1, 10), rng.normal(0, 0.5, 10))[1]]
        ]
        assert 0.9 <= np.mean(hits) <= 0.99

    @pytest.mark.parametrize(("delta", "word"), [
        (0.0, "negligible"), (0.1469, "negligible"), (0.147, "small"), (-0.3299, "small"), (0.33, "medium"),
        (-0.4739, "medium"), (0.474, "large"), (-1.0, "large"),
    ])  # fmt: skip
    def test_words(self, delta: float, word: str) -> None:
        assert effect_of(delta) == word


class TestWelch:
    @pytest.mark.parametrize(("n_a", "n_b"), RNG_SIZES)
    def test_as_scipy_has_it(self, n_a: int, n_b: int) -> None:
        rng = np.random.default_rng(n_a + n_b)
        a, b = rng.normal(0.8, 0.05, n_a), rng.normal(0.7, 0.01, n_b)
        expected = ttest_ind(a, b, equal_var=False).confidence_interval()
        assert welch_interval(a, b) == pytest.approx((expected.low, expected.high))

    def test_one_side_without_spread(self) -> None:
        a, b = np.array([0.7, 0.8, 0.9]), np.ones(5)
        half = 4.3026527 * 0.1 / math.sqrt(3)  # of 2 degrees of freedom
        assert welch_interval(a, b) == pytest.approx((-0.2 - half, -0.2 + half), rel=1e-6)

    def test_no_side_with_spread(self) -> None:
        assert welch_interval(np.full(3, 0.75), np.full(2, 0.5)) == (0.25, 0.25)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([0.02]) == [0.02]


class TestCompare:
    def test_nan_is_left_out(self) -> None:
        found = compare(np.array([0.5, math.nan, 1.0]), np.array([0.25, 0.25, math.nan, 0.25]))
        assert (found.n_a, found.n_b, found.median_a, found.median_b) == (2, 3, 0.75, 0.25)
        assert (found.difference, found.delta, found.u, found.is_exact) == (0.5, 1.0, 6.0, True)
        assert found.p == pytest.approx(0.2)

    def test_below_two_values_there_is_only_a_difference(self) -> None:
        assert compare(np.array([0.5]), np.array([0.25, 0.75])) == Comparison(1, 2, 0.5, 0.5, 0.0)
        assert compare(np.array([math.nan]), np.array([0.25])) == Comparison(0, 1, None, 0.25, None)


def _three_methods() -> StudyData:
    """`full` ends below `linear` in similarity, and above it in accuracy; `scratch` has one run."""
    return study(
        *(made_run(f"f{i}", 0.5 + i / 16, 0.75 + i / 64, seed=i) for i in range(3)),
        *(made_run(f"l{i}", 1.0, 0.5 + i / 64, seed=i, method="linear") for i in range(3)),
        made_run("s0", 0.25, 0.5, method="scratch"),
        *(made_run(f"o{i}", 0.5, 0.5, backbone="bundled:image-text", paradigm="image-text") for i in range(2)),
    )


class TestTable:
    def test_every_two_methods_of_a_backbone(self) -> None:
        table = comparison_table(_three_methods(), TableOptions())
        assert table.name == "comparison" and table.columns == (
            "backbone", "method_a", "method_b", "quantity", "layer", "n_a", "n_b", "median_a", "median_b",
            "mean_difference", "mean_difference_low", "mean_difference_high", "cliffs_delta", "cliffs_delta_low",
            "cliffs_delta_high", "effect", "mann_whitney_u", "p", "p_test", "p_holm", "n_pairs", "wilcoxon_w",
        )  # fmt: skip
        assert [row[:7] for row in table.rows] == [
            ("bundled:supervised", "full", "linear", COLUMN, "mean of layers", 3, 3),
            ("bundled:supervised", "full", "linear", "test_accuracy", None, 3, 3),
            ("bundled:supervised", "full", "scratch", COLUMN, "mean of layers", 3, 1),
            ("bundled:supervised", "full", "scratch", "test_accuracy", None, 3, 1),
            ("bundled:supervised", "linear", "scratch", COLUMN, "mean of layers", 3, 1),
            ("bundled:supervised", "linear", "scratch", "test_accuracy", None, 3, 1),
        ]
        half = 4.3026527 / 16 / math.sqrt(3)
        nearest = (3 - 2.7764451**2) / (3 + 2.7764451**2)
        assert table.rows[0][7:] == (
            0.5625, 1.0, -0.4375, pytest.approx(-0.4375 - half), pytest.approx(-0.4375 + half),
            -1.0, -1.0, pytest.approx(-nearest), "large", 0.0, pytest.approx(0.1), "exact", pytest.approx(0.2),
            None, None,
        )  # fmt: skip
        assert table.rows[1][12] == 1.0 and table.rows[1][16:18] == (9.0, pytest.approx(0.1))
        assert table.rows[2][7:] == (0.5625, 0.25, 0.3125, *(None,) * 12)

    @pytest.mark.parametrize(("by", "pair", "sizes"), [
        ("backbone", ("bundled:supervised", "bundled:image-text"), (7, 2)),
        ("paradigm", ("supervised", "image-text"), (7, 2)),
    ])  # fmt: skip
    def test_every_two_groups(self, by: str, pair: tuple[str, str], sizes: tuple[int, int]) -> None:
        table = comparison_table(_three_methods(), TableOptions(by=by))  # type: ignore[arg-type]
        assert table.columns[:3] == (f"{by}_a", f"{by}_b", "quantity")
        assert [row[:6] for row in table.rows] == [
            (*pair, COLUMN, "mean of layers", *sizes), (*pair, "test_accuracy", None, *sizes),
        ]  # fmt: skip
        assert any(note.startswith(f"by {by}: runs that differ in more than the seed") for note in table.notes)

    def test_methods_across_backbones(self) -> None:
        table = comparison_table(_three_methods(), TableOptions(by="method"))
        assert [row[:2] for row in table.rows[::2]] == [("full", "linear"), ("full", "scratch"), ("linear", "scratch")]
        assert table.column("n_a")[0] == 5

    def test_holm_counts_every_test_of_the_table(self) -> None:
        data = study(
            *(made_run(f"a{i}", i / 16, 0.5 + i / 64) for i in range(5)),
            *(made_run(f"b{i}", 0.5 + i / 16, 0.5 + (i + 1) / 64, method="linear") for i in range(5)),
            *(made_run(f"c{i}", 0.25 + i / 16, i / 64, method="scratch") for i in range(5)),
        )
        table = comparison_table(data, TableOptions())
        p, corrected = table.column("p"), table.column("p_holm")
        assert len(p) == 6 and list(corrected) == holm(list(p))  # type: ignore[arg-type]
        assert min(corrected) == pytest.approx(6 * min(p))  # type: ignore[operator,type-var]
        assert "p_holm: corrected for the 6 tests of this table (Holm 1979)" in table.notes

    def test_the_lowest_p_that_so_few_runs_can_reach_is_said(self) -> None:
        notes = comparison_table(_three_methods(), TableOptions()).notes
        assert (
            "however far apart the groups are, p cannot be below 0.1 with 3 and 3 runs, before it is corrected" in notes
        )
        assert "4 of 6 rows have fewer than 2 runs on a side, so no interval, delta and p" in notes
        assert "p_holm: corrected for the 2 tests of this table (Holm 1979)" in notes
        four = study(*(made_run(f"{m}{i}", i / 32, i / 32, method=m) for i in range(4) for m in ("full", "linear")))
        assert any(
            "p cannot be below 0.0286 with 4 and 4 runs" in note  # nor, corrected for 2 tests, below 0.057
            for note in comparison_table(four, TableOptions()).notes
        )
        many = study(*(made_run(f"{m}{i}", i / 32, i / 32, method=m) for i in range(10) for m in ("full", "linear")))
        assert not any("cannot be below" in note or "fewer than 2" in note
                       for note in comparison_table(many, TableOptions()).notes)  # fmt: skip

    def test_runs_without_a_value_are_counted_and_said(self) -> None:
        data = study(
            *(made_run(f"f{i}", value, 0.5 + i / 16) for i, value in enumerate((0.5, 0.75, math.nan))),
            *(made_run(f"l{i}", 1.0, 0.5, method="linear") for i in range(2)),
            made_run("late", state=State.STOPPED), made_run("short", n_epochs=2, method="linear"),
        )  # fmt: skip
        table = comparison_table(data, TableOptions())
        assert (table.column("n_a"), table.column("n_b")) == ((2, 3), (2, 2))
        assert f"{COLUMN}: 2 of 6 runs that are done have none (undefined, or not measured)" in table.notes
        assert "left out: 1 of 7 runs, which have not come to their last epoch" in table.notes

    @pytest.mark.parametrize("by", BY)
    @pytest.mark.parametrize(
        "data", [StudyData(()), study(made_run("a")), study(made_run("a", state=State.FAILED))],
        ids=["empty", "one group", "none done"],
    )  # fmt: skip
    def test_without_two_groups_there_are_no_rows(self, data: StudyData, by: str) -> None:
        table = comparison_table(data, TableOptions(by=by))  # type: ignore[arg-type]
        assert table.rows == ()
        assert "p_holm: corrected for the 0 tests of this table (Holm 1979)" in table.notes

    def test_the_estimator_and_its_caution_stand_beside_it(self) -> None:
        origin = SimilarityKey("origin", "cls", "linear_cka")
        sized = Provenance(n_probe=96, n_features=128, n_origin_probe=50)
        notes = comparison_table(
            study(made_run("a", key=origin, provenance=sized)), TableOptions(probe="origin")
        ).notes  # fmt: skip
        assert any(note.startswith("linear_cka: linear CKA (biased)") for note in notes)
        assert "linear CKA (biased) is inflated: n = 50 is not >> d = 128 on the origin images" in notes

    def test_what_no_run_has_is_refused(self) -> None:
        with pytest.raises(StudyError, match="no run has this layer"):
            comparison_table(study(made_run("a")), TableOptions(layer="block 9"))

    def test_names_from_outside_pass_through_untouched(self) -> None:
        name = "bundled:\x1b[31m=x"
        data = study(made_run("a", backbone=name), made_run("b", backbone=name, method="linear"))
        assert comparison_table(data, TableOptions()).rows[0][0] == name
