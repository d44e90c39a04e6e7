"""Intervals of means: against scipy's BCa, and where there is little or nothing to resample."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from engine.analysis.bootstrap import mean_interval


@pytest.mark.parametrize("n", [5, 20])
@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_it_agrees_with_scipy(n: int, shape: str) -> None:
    rng = np.random.default_rng(n)
    values = rng.normal(size=(n, 1)) if shape == "normal" else rng.exponential(size=(n, 1)) ** 2
    low, high = mean_interval(values)
    expected = scipy_bootstrap(
        (values[:, 0],), np.mean, method="BCa", n_resamples=100_000, rng=np.random.default_rng(1), vectorized=True
    ).confidence_interval
    width = expected.high - expected.low
    # 2,000 resamples place the ends to within some hundredths of the width; of 5 values there are 126 means.
    tolerance = (0.1 if n == 5 else 0.05) * width
    assert low[0] == pytest.approx(expected.low, abs=tolerance)
    assert high[0] == pytest.approx(expected.high, abs=tolerance)


def test_it_covers_the_mean_about_as_often_as_it_says() -> None:
    values = np.random.default_rng(3).normal(loc=2.0, size=(20, 2000))
    low, high = mean_interval(values)
    assert 0.90 < np.mean((low <= 2.0) & (high >= 2.0)) < 0.96  # 0.92 to 0.93: a bootstrap of 20 is a little narrow


def test_columns_do_not_depend_on_each_other_nor_on_rows_without_a_value() -> None:
    values = np.random.default_rng(0).normal(size=(6, 3))
    low, high = mean_interval(values)
    holed = np.vstack([values, np.full((1, 3), np.nan)])
    for column in range(3):
        alone = mean_interval(holed[:, [column]])
        assert (alone[0][0], alone[1][0]) == pytest.approx((low[column], high[column]), rel=1e-12)


def test_holes_in_one_column_leave_the_others_as_they_are() -> None:
    values = np.random.default_rng(0).normal(size=(6, 2))
    whole = mean_interval(values)
    values[2, 1] = np.nan
    low, high = mean_interval(values)
    assert (low[0], high[0]) == pytest.approx((whole[0][0], whole[1][0]), rel=1e-12)
    expected = mean_interval(np.delete(values[:, [1]], 2, axis=0))
    assert (low[1], high[1]) == pytest.approx((expected[0][0], expected[1][0]), rel=1e-12)


def test_shifting_and_scaling_the_values_shifts_and_scales_the_interval() -> None:
    values = np.random.default_rng(5).exponential(size=(8, 1))
    low, high = mean_interval(values)
    moved_low, moved_high = mean_interval(1000 + 2 * values)
    assert moved_low[0] == pytest.approx(1000 + 2 * low[0])
    assert moved_high[0] == pytest.approx(1000 + 2 * high[0])


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e6])
def test_equal_values_have_an_interval_without_width(value: float) -> None:
    low, high = mean_interval(np.full((5, 1), value))
    assert low[0] == high[0] == pytest.approx(value)


def test_below_two_values_there_is_none() -> None:
    low, high = mean_interval(np.array([[1.0, np.nan], [np.nan, np.nan]]))
    assert np.isnan([*low, *high]).all()
    assert mean_interval(np.empty((0, 2)))[0].shape == (2,)


def test_the_same_values_give_the_same_interval() -> None:
    values = np.random.default_rng(7).normal(size=(5, 4))
    assert np.array_equal(mean_interval(values), mean_interval(values))


def test_two_values_lie_inside_their_own_range() -> None:
    low, high = mean_interval(np.array([[0.0], [1.0]]))
    assert 0.0 <= low[0] < 0.5 < high[0] <= 1.0


def test_the_order_of_the_runs_does_not_matter() -> None:
    values = np.random.default_rng(8).exponential(size=(7, 3))
    assert np.array_equal(mean_interval(values), mean_interval(values[::-1]))
