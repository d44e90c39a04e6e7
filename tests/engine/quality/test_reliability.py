"""Bins of confidence, of equal width and of equal mass, and the three norms of the calibration error over them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.quality import expected_calibration_error, reliability_bins

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, n: int = 200, c: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(c, 0.5), n), rng.integers(0, c, n)


def of_two(confidences: Any) -> np.ndarray:
    """Rows of two classes, the first of which is predicted with these confidences of 0.5 and more."""
    return np.stack([np.asarray(confidences), 1 - np.asarray(confidences)], axis=1)


def rounded(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images that share a few confidences, as those of a nearest-neighbour vote or of float16 do."""
    rng = np.random.default_rng(seed)
    return of_two(rng.integers(8, 17, n) / 16), rng.integers(0, 2, n)


def equal_mass_by_loop(probabilities: np.ndarray, labels: np.ndarray, n_bins: int, norm: str) -> float:
    """From ranks rather than bounds: an image goes where the first image of its confidence has its place."""
    n, confidences = len(labels), probabilities.max(axis=1)
    members: dict[int, list[tuple[float, bool]]] = {}
    for row, confidence, label in zip(probabilities, confidences, labels, strict=True):
        place = 1 + sum(confidences < confidence)
        b = next(b for b in range(1, n_bins + 1) if math.ceil(b * n / n_bins) >= place)
        members.setdefault(b, []).append((confidence, bool(np.argmax(row) == label)))
    sizes = [len(bin_) for bin_ in members.values()]
    gaps = [abs(np.mean([c for c, _ in bin_]) - np.mean([r for _, r in bin_])) for bin_ in members.values()]
    if norm == "max":
        return max(gaps)
    power = {"l1": 1, "l2": 2}[norm]
    return float(np.average(np.power(gaps, power), weights=sizes) ** (1 / power))


def test_known_bins() -> None:
    bins = reliability_bins(of_two([0.55, 0.65, 0.75, 0.95, 0.85]), [0, 1, 0, 0, 1], n_bins=4)
    np.testing.assert_array_equal(bins.lower, [0, 0.25, 0.5, 0.75])
    np.testing.assert_array_equal(bins.upper, [0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(bins.n_images, [0, 0, 3, 2])
    np.testing.assert_allclose(bins.confidence, [np.nan, np.nan, 0.65, 0.9])
    np.testing.assert_allclose(bins.accuracy, [np.nan, np.nan, 2 / 3, 1 / 2])
    np.testing.assert_allclose(bins.excess, [0, 0, 1.95 - 2, 1.8 - 1])


def test_known_bins_of_equal_mass() -> None:
    bins = reliability_bins(of_two([0.9, 0.6, 0.8, 0.7, 0.95]), [0, 1, 0, 0, 1], n_bins=2, binning="equal_mass")
    np.testing.assert_array_equal(bins.lower, [0, 0.8])
    np.testing.assert_array_equal(bins.upper, [0.8, 0.95])
    np.testing.assert_array_equal(bins.n_images, [3, 2])
    np.testing.assert_allclose(bins.confidence, [0.7, 0.925])
    np.testing.assert_allclose(bins.accuracy, [2 / 3, 1 / 2])


def test_known_norms() -> None:
    # one bin of three at .8 with two right, one bin of one at .6 that is wrong
    mixed, labels = np.array([[0.8, 0.2]] * 3 + [[0.4, 0.6]]), [0, 0, 1, 0]
    gap = 0.8 - 2 / 3
    for binning in ("equal_width", "equal_mass"):
        error = [expected_calibration_error(mixed, labels, 10, binning=binning, norm=norm) for norm in NORMS]
        assert error == pytest.approx([0.75 * gap + 0.25 * 0.6, math.sqrt(0.75 * gap**2 + 0.25 * 0.6**2), 0.6])


NORMS: tuple[Any, ...] = ("l1", "l2", "max")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("n_bins", [1, 15, 40])
def test_default_is_what_it_was_to_the_last_bit(n_bins: int, dtype: torch.dtype) -> None:
    """Stored results stay comparable: the sums are taken of the signed gaps, in this order."""
    for seed in range(5):
        values, labels = (torch.from_numpy(part) for part in drawn(seed, n=997))
        values = values.to(dtype)
        predictions = values.argmax(dim=1)
        confidences = values.amax(dim=1).double()
        bounds = (torch.arange(1, n_bins + 1, dtype=torch.float64) / n_bins).to(dtype).double()
        bins = torch.searchsorted(bounds, confidences).clamp(max=n_bins - 1)
        gaps = torch.bincount(bins, weights=confidences - (predictions == labels).double(), minlength=n_bins)
        assert expected_calibration_error(values, labels, n_bins) == float(gaps.abs().sum() / 997)


@pytest.mark.parametrize("norm", NORMS)
@given(seed=seeds, n=st.integers(1, 60), n_bins=st.integers(1, 40), with_ties=st.booleans())
@settings(max_examples=25, deadline=None)
def test_equal_mass_agrees_with_a_loop(norm: Any, seed: int, n: int, n_bins: int, with_ties: bool) -> None:
    probabilities, labels = rounded(seed, n) if with_ties else drawn(seed, n)
    expected = equal_mass_by_loop(probabilities, labels, n_bins, norm)
    result = expected_calibration_error(probabilities, labels, n_bins, binning="equal_mass", norm=norm)
    assert result == pytest.approx(expected, abs=1e-12)


@given(seed=seeds, n=st.integers(1, 100), n_bins=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_without_ties_masses_differ_by_one_image_at_most(seed: int, n: int, n_bins: int) -> None:
    n_images = reliability_bins(*drawn(seed, n), n_bins, binning="equal_mass").n_images
    assert n_images.sum() == n
    assert n_images.max() - n_images.min() <= 1


@pytest.mark.parametrize("binning", ["equal_width", "equal_mass"])
@given(seed=seeds, n=st.integers(1, 60), n_bins=st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_ties_share_a_bin_whatever_the_order_of_the_rows(binning: Any, seed: int, n: int, n_bins: int) -> None:
    probabilities, labels = rounded(seed, n)
    order = np.random.default_rng(seed).permutation(n)
    before = reliability_bins(probabilities, labels, n_bins, binning=binning)
    after = reliability_bins(probabilities[order], labels[order], n_bins, binning=binning)
    for left, right in zip(astuple(before), astuple(after), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-12)
    inside = [
        sum(count for value, count in Counter(probabilities.max(axis=1)).items() if low < value <= high)
        for low, high in zip(before.lower, before.upper, strict=True)
    ]
    assert inside == before.n_images.tolist()


def test_one_confidence_fills_the_lowest_of_its_bins() -> None:
    bins = reliability_bins(of_two([0.6, 0.9, 0.9, 0.9, 0.9, 0.9]), [0] * 6, n_bins=6, binning="equal_mass")
    assert bins.n_images.tolist() == [1, 5, 0, 0, 0, 0]
    assert bins.upper.tolist() == [0.6] + [0.9] * 5
    assert np.isnan(bins.accuracy).tolist() == [False, False, True, True, True, True]


def test_fewer_images_than_bins_leave_bins_empty() -> None:
    bins = reliability_bins(of_two([0.9, 0.6]), [0, 1], n_bins=5, binning="equal_mass")
    assert bins.n_images.tolist() == [1, 0, 1, 0, 0]
    assert bins.confidence[[0, 2]].tolist() == [0.6, 0.9]


@pytest.mark.parametrize("binning", ["equal_width", "equal_mass"])
@given(seed=seeds, n_bins=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_norms_are_ordered_and_in_range(binning: Any, seed: int, n_bins: int) -> None:
    l1, l2, largest = (
        expected_calibration_error(*drawn(seed, n=50), n_bins, binning=binning, norm=norm) for norm in NORMS
    )
    assert 0 <= l1 <= l2 + 1e-12 <= largest + 2e-12 <= 1 + 2e-12


def test_equal_mass_finds_what_one_wide_bin_hides() -> None:
    """Too sure at .98, too unsure at .95: one bin of equal width holds them all, and they cancel."""
    probabilities, labels = of_two([0.98] * 50 + [0.95] * 50), [0] * 47 + [1] * 3 + [0] * 50
    assert expected_calibration_error(probabilities, labels, 5) < 0.006
    assert expected_calibration_error(probabilities, labels, 5, binning="equal_mass") == pytest.approx(0.045)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_equal_mass_takes_other_types_as_the_numbers_they_hold(dtype: torch.dtype) -> None:
    probabilities, labels = drawn(3)
    low = torch.from_numpy(probabilities).to(dtype)
    assert len(low.amax(dim=1).unique()) < len(low)
    expected = expected_calibration_error(low.double(), labels, binning="equal_mass")
    assert expected_calibration_error(low, torch.from_numpy(labels), binning="equal_mass") == expected


def test_confidence_a_rounding_above_one_is_in_the_last_bin() -> None:
    rows = torch.tensor([[1.0078125, 0.0], [0.5, 0.5]], dtype=torch.bfloat16)
    assert reliability_bins(rows, [0, 0], n_bins=4).n_images.tolist() == [0, 1, 0, 1]
    assert reliability_bins(rows, [0, 0], n_bins=2, binning="equal_mass").n_images.tolist() == [1, 1]


def test_settings_without_meaning() -> None:
    wrong: Any = "equal"
    with pytest.raises(ValueError, match=r"^binning: is 'equal' \(need equal_width or equal_mass\)"):
        reliability_bins([[1.0, 0.0]], [0], binning=wrong)
    with pytest.raises(ValueError, match=r"^norm: is 'equal' \(need l1, l2 or max\)"):
        expected_calibration_error([[1.0, 0.0]], [0], norm=wrong)
    with pytest.raises(ValueError, match=r"^n_bins: is 0 \(need 1 or more\)"):
        reliability_bins([[1.0, 0.0]], [0], n_bins=0, binning="equal_mass")
