"""How alike attention maps are: known values, what the figures do not see, and where there is no answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from engine.quality.attention import map_correlation, map_overlap

Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]
BOTH = pytest.mark.parametrize("measure", [map_correlation, map_overlap])


def maps(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).gamma(0.5, size=shape)


def test_known_values() -> None:
    before, after = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 1.0, 4.0, 3.0])
    assert map_correlation(before, after) == pytest.approx(0.6)
    assert map_overlap(before, after) == pytest.approx(0.8)  # .1 + .1 + .3 + .3
    assert map_correlation(before, -before) == pytest.approx(-1)
    apart = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.0, 0.0, 0.5, 0.5])
    assert map_overlap(*apart) == 0 and map_correlation(*apart) == pytest.approx(-1)


def test_correlation_is_that_of_numpy() -> None:
    before, after = maps(0, 5, 3, 49), maps(1, 5, 3, 49)
    found = map_correlation(before, after)
    assert found.shape == (5, 3) and found.dtype == np.float64
    for place in np.ndindex(5, 3):
        assert found[place] == pytest.approx(np.corrcoef(before[place], after[place])[0, 1], abs=1e-12)


def test_overlap_is_one_minus_half_the_sum_of_differences() -> None:
    before, after = maps(0, 5, 3, 49), maps(1, 5, 3, 49)
    shares = [each / each.sum(-1, keepdims=True) for each in (before, after)]
    np.testing.assert_allclose(map_overlap(before, after), 1 - np.abs(shares[0] - shares[1]).sum(-1) / 2, atol=1e-12)


@BOTH
def test_equal_maps_agree_wholly_and_order_does_not_matter(measure: Measure) -> None:
    before, after = maps(0, 7, 64), maps(1, 7, 64)
    np.testing.assert_allclose(measure(before, before), 1, atol=1e-12)
    np.testing.assert_allclose(measure(before, after), measure(after, before), atol=1e-12)
    assert (measure(before, after) < 0.9).all()


@BOTH
def test_only_where_attention_goes_counts_not_how_much_of_it(measure: Measure) -> None:
    before, after = maps(0, 7, 64), maps(1, 7, 64)
    np.testing.assert_allclose(measure(3.5 * before, 0.01 * after), measure(before, after), atol=1e-12)
    shuffled = np.random.default_rng(2).permutation(64)
    np.testing.assert_allclose(measure(before[:, shuffled], after[:, shuffled]), measure(before, after), atol=1e-12)
    assert np.abs(measure(before[:, shuffled], after) - measure(before, after)).max() > 0.01


def test_an_even_share_more_is_seen_by_overlap_alone() -> None:
    before, after = maps(0, 7, 64), maps(1, 7, 64)
    np.testing.assert_allclose(map_correlation(before + 1, after), map_correlation(before, after), atol=1e-12)
    assert np.abs(map_overlap(before + 1, after) - map_overlap(before, after)).max() > 0.01


@pytest.mark.parametrize("level", [0.1, 1 / 3, 0.0, np.float16(0.0154)])
def test_a_constant_map_has_no_correlation(level: float) -> None:
    constant = np.full((2, 49), level)
    for pair in ((constant, maps(0, 2, 49)), (maps(0, 2, 49), constant), (constant, constant)):
        assert np.isnan(map_correlation(*pair)).all()


def test_a_map_of_nothing_has_no_overlap_and_an_even_one_has() -> None:
    nothing, even = np.zeros((2, 49)), np.full((2, 49), 0.3)
    assert np.isnan(map_overlap(nothing, even)).all() and np.isnan(map_overlap(even, nothing)).all()
    np.testing.assert_allclose(map_overlap(even, 2 * even), 1)


def test_one_undefined_map_does_not_spoil_the_others() -> None:
    before, after = maps(0, 3, 49), maps(1, 3, 49)
    before[1] = 0
    for measure in (map_correlation, map_overlap):
        assert np.isnan(measure(before, after)).tolist() == [False, True, False]


@BOTH
def test_maps_of_half_precision_are_compared_in_double(measure: Measure) -> None:
    before, after = (each.astype(np.float16) for each in (maps(0, 4, 196), maps(1, 4, 196)))
    np.testing.assert_array_equal(measure(before, after), measure(before.astype(float), after.astype(float)))
