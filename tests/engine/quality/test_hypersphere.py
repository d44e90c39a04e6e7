"""Alignment and uniformity: known values, agreement with SciPy, invariances had and not had, blocks, every error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from engine.errors import NonFiniteError, ShapeError
from engine.quality import alignment, hypersphere, uniformity

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, n: int = 60, d: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Two views of the same images, whose rows differ in length."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) + 0.5
    return x * rng.uniform(0.1, 10, (n, 1)), x + 0.3 * rng.standard_normal((n, d))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def by_scipy(x: np.ndarray, t: float = 2) -> float:
    return float(np.log(np.exp(-t * pdist(unit(x), "sqeuclidean")).mean()))


def test_known_alignments() -> None:
    x = [[1.0, 0.0], [0.0, 3.0]]
    assert alignment(x, [[5.0, 0.0], [0.0, 0.1]]) == 0
    assert alignment(x, [[0.0, 2.0], [7.0, 0.0]]) == pytest.approx(2)
    assert alignment(x, [[0.0, 2.0], [7.0, 0.0]], alpha=1) == pytest.approx(math.sqrt(2))
    assert alignment(x, [[-1.0, 0.0], [0.0, 1.0]]) == pytest.approx((4 + 0) / 2)
    assert alignment(x, [[-1.0, 0.0], [0.0, -1.0]], alpha=3) == pytest.approx(2**3)


def test_known_uniformities() -> None:
    assert uniformity([[1.0, 0.0], [0.0, 5.0]]) == pytest.approx(-2 * 2)
    assert uniformity([[1.0, 0.0], [-9.0, 0.0]]) == pytest.approx(-2 * 4)
    assert uniformity([[1.0, 1.0], [2.0, 2.0], [0.5, 0.5]]) == pytest.approx(0, abs=1e-12)
    half_circle = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
    assert uniformity(half_circle) == pytest.approx(math.log((2 * math.exp(-4) + math.exp(-8)) / 3))
    assert uniformity(half_circle, t=0.5) == pytest.approx(math.log((2 * math.exp(-1) + math.exp(-2)) / 3))


@given(seed=seeds, alpha=st.sampled_from([0.5, 1, 2, 4]))
@settings(max_examples=20, deadline=None)
def test_alignment_agrees_with_numpy(seed: int, alpha: float) -> None:
    x, positives = drawn(seed)
    expected = (np.linalg.norm(unit(x) - unit(positives), axis=1) ** alpha).mean()
    result = alignment(x, positives, alpha)
    assert isinstance(result, float)
    assert result == pytest.approx(expected, rel=1e-12)
    assert result == pytest.approx(alignment(positives, x, alpha), rel=1e-12)
    assert 0 <= result <= 2**alpha
    assert alignment(x, positives) == alignment(x, positives, 2)


@given(seed=seeds, t=st.sampled_from([0.1, 2, 20]), n=st.integers(2, 60))
@settings(max_examples=20, deadline=None)
def test_uniformity_agrees_with_scipy(seed: int, t: float, n: int) -> None:
    x, _ = drawn(seed, n)
    result = uniformity(x, t)
    assert isinstance(result, float)
    assert result == pytest.approx(by_scipy(x, t), rel=1e-9)
    assert -4 * t <= result <= 0
    assert uniformity(x) == uniformity(x, 2)


def test_more_images_than_one_block_holds() -> None:
    x, _ = drawn(0, n=3000)
    assert hypersphere._CHUNK_VALUES < 3000**2 / 2
    assert uniformity(x) == pytest.approx(by_scipy(x), rel=1e-10)


@pytest.mark.parametrize("rows", [1, 7, 59, 60])
def test_no_block_is_larger_than_asked_and_none_changes_the_value(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = drawn(1)
    whole, sizes = uniformity(x), []
    block = hypersphere._log_potential

    def watched(rows: torch.Tensor, size: int, t: float) -> torch.Tensor:
        sizes.append(min(size, len(rows)) * len(rows))
        return block(rows, size, t)

    monkeypatch.setattr(hypersphere, "_log_potential", watched)
    monkeypatch.setattr(hypersphere, "_CHUNK_VALUES", rows * 60 + 3)
    assert uniformity(x) == pytest.approx(whole, rel=1e-12)
    assert max(sizes) <= rows * 60 and len(sizes) == math.ceil(60 / rows)


def test_potential_too_small_for_a_float_keeps_its_logarithm() -> None:
    assert uniformity([[1.0, 0.0], [0.0, 1.0]], t=1e6) == pytest.approx(-2e6)
    assert uniformity(np.eye(50), t=1000) == pytest.approx(-2000)


def test_rounding_never_makes_uniformity_positive() -> None:
    """2 - 2 cos of equal directions may come out below zero, and a large t would show it."""
    for seed in range(10):
        row = np.random.default_rng(seed).standard_normal(50)
        assert -1e-8 < uniformity(np.outer(np.geomspace(1, 9, 40), row), t=1e6) < 1e-12


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_invariances(seed: int) -> None:
    rng, (x, positives) = np.random.default_rng(seed), drawn(seed)
    rotation = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    lengths = rng.permutation(np.geomspace(1e-200, 1e200, 60))[:, None]
    order = rng.permutation(60)
    close, even = alignment(x, positives), uniformity(x)
    assert alignment(x @ rotation, positives @ rotation) == pytest.approx(close, rel=1e-9)
    assert alignment(x * lengths, positives / lengths) == pytest.approx(close, rel=1e-9)
    assert alignment(x[order], positives[order]) == pytest.approx(close, rel=1e-9)
    assert uniformity(x @ rotation) == pytest.approx(even, rel=1e-9)
    assert uniformity(x * lengths) == pytest.approx(even, rel=1e-9)
    assert uniformity(x[order]) == pytest.approx(even, rel=1e-9)

    assert alignment(x @ rotation, positives) > 2 * close
    assert alignment(x[order], positives) > 2 * close
    assert alignment(x + 100, positives + 100) < close / 2
    assert uniformity(x + 100) > even / 2
    assert uniformity(x * [10, 1, 1, 1, 1]) != pytest.approx(even, rel=0.01)


def test_offset_of_a_thousand_leaves_the_small_distances_exact() -> None:
    """All rows point one way, up to 1e-3: distances of 1e-6 that float32 products cannot tell from zero."""
    x, positives = drawn(2, n=200)
    low_x, low_positives = (torch.from_numpy(side + 1000).float() for side in (x, positives))
    exact_x, exact_positives = unit(low_x.double().numpy()), unit(low_positives.double().numpy())
    expected = (np.linalg.norm(exact_x - exact_positives, axis=1) ** 2).mean()
    assert alignment(low_x, low_positives) == pytest.approx(expected, rel=1e-8)
    assert uniformity(low_x) == pytest.approx(by_scipy(exact_x), rel=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_types_are_taken_as_the_numbers_they_hold(dtype: torch.dtype) -> None:
    low_x, low_positives = (torch.from_numpy(side).to(dtype) for side in drawn(3))
    assert alignment(low_x, low_positives.double()) == alignment(low_x.double(), low_positives)
    assert uniformity(low_x) == uniformity(low_x.double())
    assert uniformity(low_x * 1e4 if dtype != torch.float16 else low_x) == pytest.approx(uniformity(low_x), rel=1e-2)


def test_row_of_zeros_lies_in_the_middle() -> None:
    assert alignment([[0.0, 0.0]], [[3.0, 4.0]]) == pytest.approx(1)
    assert alignment([[0.0, 0.0]], [[0.0, 0.0]]) == 0
    assert uniformity([[0.0, 0.0], [3.0, 4.0]]) == pytest.approx(-2)


@pytest.mark.parametrize(
    ("x", "positives", "problem"),
    [
        (np.ones(4), np.ones((4, 1)), r"^x: has shape \(4,\)"),
        (np.ones((4, 1)), np.ones(4), r"^positives: has shape \(4,\)"),
        (np.ones((4, 2)), np.ones((3, 2)), r"^positives: has 3 images \(need 4, as x\)"),
        (np.ones((4, 2)), np.ones((4, 1)), r"^positives: have 1 features \(need 2, as x\)"),
        (np.ones((0, 2)), np.ones((0, 2)), r"^x: has 0 images \(need 1 or more\)"),
    ],
)
def test_arrays_that_do_not_fit(x: Any, positives: Any, problem: str) -> None:
    with pytest.raises(ShapeError, match=problem):
        alignment(x, positives)


@pytest.mark.parametrize("n", [0, 1])
def test_no_pairs(n: int) -> None:
    with pytest.raises(ShapeError, match=rf"^x: has {n} images \(need 2 or more\)"):
        uniformity(np.ones((n, 3)))


def test_no_features() -> None:
    with pytest.raises(ShapeError, match=r"^x: has shape \(3, 0\)"):
        uniformity(np.ones((3, 0)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite(bad: float) -> None:
    x = np.ones((4, 3))
    broken = x.copy()
    broken[2, 1] = bad
    for where, sides in (("x", (broken, x)), ("positives", (x, broken))):
        with pytest.raises(NonFiniteError, match=f"^{where}: 1 of 12 values are not finite, the first at image 2"):
            alignment(*sides)
    with pytest.raises(NonFiniteError, match=r"^x: 1 of 12"):
        uniformity(broken)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_settings_without_meaning(value: float) -> None:
    with pytest.raises(ValueError, match=r"^alpha: is .* \(need a finite number above 0\)"):
        alignment([[1.0]], [[1.0]], value)
    with pytest.raises(ValueError, match=r"^t: is .* \(need a finite number above 0\)"):
        uniformity([[1.0], [2.0]], value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_as_on_the_cpu() -> None:
    x, positives = drawn(4)
    assert alignment(torch.from_numpy(x).cuda(), positives) == pytest.approx(alignment(x, positives), rel=1e-9)
    assert uniformity(torch.from_numpy(x).cuda()) == pytest.approx(uniformity(x), rel=1e-9)
