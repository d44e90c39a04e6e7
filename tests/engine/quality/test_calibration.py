"""Expected calibration error: known values, agreement with a plain loop, bounds of the bins, every error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import NonFiniteError, ShapeError
from engine.quality import expected_calibration_error


def by_loop(probabilities: np.ndarray, labels: np.ndarray, n_bins: int) -> float:
    error = 0.0
    for b in range(n_bins):
        inside = []
        for row, label in zip(probabilities, labels, strict=True):
            confidence = max(row)
            low, high = b / n_bins, (b + 1) / n_bins
            if low < confidence <= high or (b == 0 and confidence == 0):
                inside.append((confidence, float(list(row).index(confidence) == label)))
        if inside:
            confidences, right = zip(*inside, strict=True)
            error += len(inside) / len(labels) * abs(np.mean(confidences) - np.mean(right))
    return error


def drawn(seed: int, n: int = 200, c: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(c, 0.5), n), rng.integers(0, c, n)


@given(seed=st.integers(0, 2**32 - 1), n_bins=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_agrees_with_a_loop(seed: int, n_bins: int) -> None:
    probabilities, labels = drawn(seed)
    expected = by_loop(probabilities, labels, n_bins)
    assert expected_calibration_error(probabilities, labels, n_bins) == pytest.approx(expected, abs=1e-12)


def test_fifteen_bins_by_default() -> None:
    probabilities, labels = drawn(1)
    result = expected_calibration_error(probabilities, labels)
    assert isinstance(result, float)
    assert result == pytest.approx(by_loop(probabilities, labels, 15), abs=1e-12)


def test_known_values() -> None:
    sure = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert expected_calibration_error(sure, [0, 0, 1, 0]) == 0
    assert expected_calibration_error(sure, [0, 0, 1, 1]) == pytest.approx(0.25)
    assert expected_calibration_error(sure, [1, 1, 0, 1]) == 1
    # one bin of three at .8 with two right, one bin of one at .6 that is wrong
    mixed = np.array([[0.8, 0.2]] * 3 + [[0.4, 0.6]])
    assert expected_calibration_error(mixed, [0, 0, 1, 0], n_bins=10) == pytest.approx(
        0.75 * (0.8 - 2 / 3) + 0.25 * 0.6
    )


def test_bins_are_not_merged_nor_signs_lost() -> None:
    """Too sure in one bin and too unsure in another cancel only where a single bin holds both."""
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4]])
    assert expected_calibration_error(probabilities, [1, 0], n_bins=1) == pytest.approx(0.25)
    assert expected_calibration_error(probabilities, [1, 0], n_bins=10) == pytest.approx(0.65)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_bound_belongs_to_the_bin_below_it_and_one_to_the_last(dtype: torch.dtype) -> None:
    """0.6 is the upper bound of bin 3 of 5: beside 0.5 it shares that bin, in every type."""
    rows = torch.tensor([[0.6, 0.4], [0.5, 0.5], [1.0, 0.0], [0.9, 0.1]], dtype=torch.float64).to(dtype)
    top = rows.double().amax(dim=1)
    labels = torch.tensor([1, 0, 0, 1])
    expected = (abs((top[0] - 0) + (top[1] - 1)) + abs((top[2] - 1) + (top[3] - 0))) / 4
    assert expected_calibration_error(rows, labels, n_bins=5) == pytest.approx(expected.item(), abs=1e-12)


def test_first_class_wins_a_draw() -> None:
    assert expected_calibration_error([[0.5, 0.5]], [0]) == pytest.approx(0.5)
    assert expected_calibration_error([[0.25, 0.5, 0.25]], [1]) == pytest.approx(0.5)
    assert expected_calibration_error([[0.4, 0.2, 0.4]], [0]) == pytest.approx(0.6)
    assert expected_calibration_error([[0.4, 0.2, 0.4]], [2]) == pytest.approx(0.4)


def test_whole_numbers_are_probabilities_too() -> None:
    assert expected_calibration_error(np.eye(3, dtype=int), [0, 1, 0]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("rows", [[[2.0, -1.0]], [[0.4, 0.4]], [[3.1, 0.2]]])
def test_logits_are_refused(rows: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="pass softmax outputs, not logits"):
        expected_calibration_error(rows, [0])


def test_bins_below_one() -> None:
    with pytest.raises(ValueError, match=r"n_bins: is 0 \(need 1 or more\)"):
        expected_calibration_error([[1.0, 0.0]], [0], n_bins=0)


def test_non_finite() -> None:
    with pytest.raises(NonFiniteError, match=r"^probabilities: 1 of 4 values are not finite, the first at image 1"):
        expected_calibration_error([[0.5, 0.5], [0.5, np.nan]], [0, 0])


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ([0, 1, 0], r"has shape \(3,\)"),
        ([[0], [1]], r"has shape \(2, 1\)"),
        ([0.0, 1.0], r"has shape \(2,\) and type torch.float64"),
        ([0, 2], r"row 1 is 2 \(need a class from 0 to 1\)"),
        ([-1, 0], "row 0 is -1"),
    ],
)
def test_labels_that_do_not_fit(labels: list[object], problem: str) -> None:
    with pytest.raises(ShapeError, match=f"^labels: {problem}"):
        expected_calibration_error([[0.5, 0.5], [0.5, 0.5]], labels)


def test_no_images() -> None:
    with pytest.raises(ShapeError, match="at least one"):
        expected_calibration_error(np.zeros((0, 3)), np.zeros(0, int))


def test_probabilities_of_another_shape() -> None:
    with pytest.raises(ShapeError, match=r"^probabilities: has shape \(2,\)"):
        expected_calibration_error([0.5, 0.5], [0, 1])
