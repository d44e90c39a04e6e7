"""Brier score and negative log-likelihood: known values, agreement with scikit-learn, properness, every error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from engine.errors import NonFiniteError, ShapeError
from engine.quality import brier_score, negative_log_likelihood

Score = Callable[[Any, Any], float]
BOTH = pytest.mark.parametrize("score", [brier_score, negative_log_likelihood])
seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, n: int = 200, c: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(c, 0.5), n), rng.integers(0, c, n)


def test_known_brier_scores() -> None:
    assert brier_score([[0.8, 0.2]], [0]) == pytest.approx(0.2**2 + 0.2**2)
    assert brier_score([[0.8, 0.2]], [1]) == pytest.approx(0.8**2 + 0.8**2)
    assert brier_score([[0.5, 0.3, 0.2], [0.8, 0.2, 0.0]], [1, 0]) == pytest.approx((0.25 + 0.49 + 0.04 + 0.08) / 2)
    assert brier_score(np.eye(3), [0, 1, 2]) == 0
    assert brier_score(np.eye(3), [1, 2, 0]) == 2
    assert brier_score(np.full((1, 5), 0.2), [3]) == pytest.approx(1 - 1 / 5)


def test_known_likelihoods() -> None:
    assert negative_log_likelihood([[0.8, 0.2]], [0]) == pytest.approx(-math.log(0.8))
    assert negative_log_likelihood([[0.8, 0.2], [0.5, 0.5]], [1, 0]) == pytest.approx(math.log(5 * 2) / 2)
    assert negative_log_likelihood(np.full((1, 7), 1 / 7), [3]) == pytest.approx(math.log(7))
    assert str(negative_log_likelihood(np.eye(3), [0, 1, 2])) == "0.0"


def test_class_that_was_ruled_out_makes_the_likelihood_infinite() -> None:
    assert negative_log_likelihood([[1.0, 0.0], [0.5, 0.5]], [1, 0]) == math.inf
    assert negative_log_likelihood([[1.0, 0.0], [0.5, 0.5]], [0, 0]) == pytest.approx(math.log(2) / 2)
    assert negative_log_likelihood([[1.0, 1e-300]], [1]) == pytest.approx(300 * math.log(10))
    tiny = torch.tensor([[1.0, 1e-8]])
    assert negative_log_likelihood(tiny, [1]) == pytest.approx(8 * math.log(10))
    assert negative_log_likelihood(tiny.half(), [1]) == math.inf


@given(seed=seeds, c=st.integers(2, 12))
@settings(max_examples=25, deadline=None)
def test_agree_with_scikit_learn_and_lie_in_range(seed: int, c: int) -> None:
    probabilities, labels = drawn(seed, c=c)
    probabilities = np.clip(probabilities, 1e-12, None)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    likelihood = negative_log_likelihood(probabilities, labels)
    assert likelihood == pytest.approx(log_loss(labels, probabilities, labels=range(c)), rel=1e-10)
    a_class = sum(brier_score_loss(labels == k, probabilities[:, k]) for k in range(c))
    assert brier_score(probabilities, labels) == pytest.approx(a_class, rel=1e-10)
    assert 0 <= a_class <= 2 and likelihood >= 0


@BOTH
def test_best_at_the_true_probabilities(score: Score) -> None:
    labels = [0] * 7 + [1] * 3
    honest, timid, bold = (score([[p, 1 - p]] * 10, labels) for p in (0.7, 0.65, 0.75))
    assert honest < min(timid, bold)


@BOTH
@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_blind_to_the_order_of_images_and_classes(score: Score, seed: int) -> None:
    probabilities, labels = drawn(seed)
    rows, columns = np.random.default_rng(seed).permutation(200), np.array([2, 0, 3, 1])
    moved = score(probabilities[rows][:, columns], np.argsort(columns)[labels[rows]])
    assert moved == pytest.approx(score(probabilities, labels), rel=1e-12)
    assert score(probabilities, (labels + 1) % 4) != pytest.approx(score(probabilities, labels), rel=1e-6)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_types_are_taken_as_the_numbers_they_hold(score: Score, dtype: torch.dtype) -> None:
    low = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]], dtype=dtype)
    result = score(low, torch.tensor([0, 1]))
    assert isinstance(result, float)
    assert result == score(low.double(), [0, 1])
    assert score(np.eye(2, dtype=int), [0, 1]) == 0


@BOTH
@pytest.mark.parametrize("rows", [[[2.0, -1.0]], [[0.4, 0.4]], [[3.1, 0.2]]])
def test_logits_are_refused(score: Score, rows: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="pass softmax outputs, not logits"):
        score(rows, [0])


@BOTH
def test_non_finite(score: Score) -> None:
    with pytest.raises(NonFiniteError, match=r"^probabilities: 1 of 4 values are not finite, the first at image 1"):
        score([[0.5, 0.5], [0.5, np.nan]], [0, 0])


@BOTH
@pytest.mark.parametrize(
    ("probabilities", "labels", "problem"),
    [
        ([0.5, 0.5], [0, 1], r"^probabilities: has shape \(2,\)"),
        ([[0.5, 0.5]], [0, 1], r"^labels: has shape \(2,\)"),
        ([[0.5, 0.5]], [2], r"^labels: row 0 is 2 \(need a class from 0 to 1\)"),
        (np.zeros((0, 2)), np.zeros(0, int), "at least one"),
    ],
)
def test_arrays_that_do_not_fit(score: Score, probabilities: Any, labels: Any, problem: str) -> None:
    with pytest.raises(ShapeError, match=problem):
        score(probabilities, labels)
