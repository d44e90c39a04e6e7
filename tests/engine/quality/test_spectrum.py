"""Spectra: known values, agreement with a float64 SVD, invariances had and not had, ugly layers, every error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import NonFiniteError, ShapeError
from engine.quality import effective_rank, participation_ratio, spectrum_alpha

Metric = Callable[[Any], float]
ALL = [effective_rank, participation_ratio, spectrum_alpha]
CENTRED = [participation_ratio, spectrum_alpha]
shapes = st.sampled_from([(150, 40), (40, 40), (41, 40), (120, 300)])
seeds = st.integers(0, 2**32 - 1)


def sloped(seed: int, n: int = 150, d: int = 40) -> np.ndarray:
    """Features whose spectrum falls, turned so that no axis is special, with means of their own."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return rng.standard_normal((n, d)) * np.geomspace(1, 0.05, d) @ rotation + rng.standard_normal(d)


def with_spectrum(eigenvalues: np.ndarray, n: int) -> np.ndarray:
    """Centred features of exactly these eigenvalues, up to rounding."""
    rng = np.random.default_rng(0)
    d = len(eigenvalues)
    noise = rng.standard_normal((n, d))
    left = np.linalg.qr(noise - noise.mean(axis=0))[0]
    return left * np.sqrt(eigenvalues) @ np.linalg.qr(rng.standard_normal((d, d)))[0]


def by_svd(metric: Metric, x: np.ndarray) -> float:
    """The definitions, from the singular values of x itself."""
    singular = np.linalg.svd(x if metric is effective_rank else x - x.mean(axis=0), compute_uv=False)
    if metric is effective_rank:
        shares = singular / singular.sum()
        return float(np.exp(-(shares * np.log(shares)).sum()))
    eigenvalues = singular**2
    if metric is participation_ratio:
        return float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    ranks = np.arange(4, min(100, x.shape[1] // 2) + 1)
    # polyfit squares its weights
    return float(-np.polyfit(np.log(ranks), np.log(eigenvalues[ranks - 1]), 1, w=ranks**-0.5)[0])


def test_known_effective_ranks() -> None:
    assert effective_rank(np.eye(4)) == pytest.approx(4)
    assert effective_rank([[3.0, 0.0], [0.0, 1.0]]) == pytest.approx(4 / 3**0.75)
    assert effective_rank([[1.0, 2.0], [2.0, 4.0], [-3.0, -6.0]]) == pytest.approx(1)
    # a mean, orthogonal to two equal directions and as long: three directions, where the centred images have two
    assert effective_rank([[2**0.5, 0, 1], [-(2**0.5), 0, 1], [0, 2**0.5, 1], [0, -(2**0.5), 1]]) == pytest.approx(3)


def test_known_participation_ratios() -> None:
    assert participation_ratio([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]) == pytest.approx(20**2 / (18**2 + 4))
    assert participation_ratio([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]]) == pytest.approx(1)
    assert participation_ratio(np.eye(4)) == pytest.approx(3)  # one direction is the mean
    assert participation_ratio([[0.0, 7.0], [1.0, 9.0]]) == pytest.approx(1)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(("n", "d"), [(300, 160), (101, 200), (20, 26), (150, 400)])
def test_power_law_has_its_own_alpha(n: int, d: int, alpha: float) -> None:
    """Where there are few images, only the ranks that they allow carry anything."""
    spectrum = np.arange(1, min(n - 1, d) + 1) ** -alpha
    x = np.pad(with_spectrum(spectrum, n), ((0, 0), (0, d - len(spectrum))))
    assert spectrum_alpha(x) == pytest.approx(alpha, abs=1e-9)


def test_alpha_is_fitted_to_half_of_fewer_features() -> None:
    """A layer norm leaves features that add up to zero: one direction fewer than there are."""
    law = np.arange(1.0, 61) ** -1.0
    law[30:] = np.pad(law[30:-1] / 1e4, (0, 1))
    assert spectrum_alpha(with_spectrum(law, 300)) == pytest.approx(1, abs=1e-9)
    law[29] *= 0.999
    assert spectrum_alpha(with_spectrum(law, 300)) > 1 + 1e-6


def test_alpha_is_fitted_to_ranks_4_to_100() -> None:
    law = np.arange(1.0, 221) ** -1.0
    changed = law.copy()
    changed[:3], changed[100:] = [50, 40, 30], changed[100:] / 1e4
    assert spectrum_alpha(with_spectrum(changed, 300)) == pytest.approx(1, abs=1e-9)
    for end in (3, 99):
        bent = law.copy()
        bent[end] *= 1.001 if end == 3 else 0.999
        assert spectrum_alpha(with_spectrum(bent, 300)) > 1 + 1e-6


@pytest.mark.parametrize("metric", ALL)
@given(seed=seeds, shape=shapes)
@settings(max_examples=15, deadline=None)
def test_agrees_with_an_svd(metric: Metric, seed: int, shape: tuple[int, int]) -> None:
    x = sloped(seed, *shape)
    result = metric(x)
    assert isinstance(result, float)
    assert result == pytest.approx(by_svd(metric, x), rel=1e-9)
    if metric is not spectrum_alpha:
        assert 1 <= result <= min(shape)


def test_epsilon_of_the_paper_adds_little() -> None:
    for x in (
        np.random.default_rng(0).standard_normal((900, 768)),
        sloped(0, 900, 768),
        with_spectrum(np.ones(5), 900),
    ):
        shares = np.zeros(768)
        shares[: min(x.shape)] = np.linalg.svd(x, compute_uv=False)
        shares = shares / shares.sum() + 1e-7
        published = np.exp(-(shares * np.log(shares)).sum())
        assert effective_rank(x) < published < 1.002 * effective_rank(x)


@pytest.mark.parametrize("metric", ALL)
@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_invariances(metric: Metric, seed: int) -> None:
    rng, x = np.random.default_rng(seed), sloped(seed)
    before = metric(x)
    rotation = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    assert metric(x @ rotation) == pytest.approx(before, rel=1e-9)
    assert metric(x * rng.choice([-1, 1]) * 10.0 ** rng.uniform(-100, 100)) == pytest.approx(before, rel=1e-9)
    assert metric(x[rng.permutation(150)]) == pytest.approx(before, rel=1e-9)
    assert metric(x * np.geomspace(0.1, 10, 40)) != pytest.approx(before, rel=0.01)
    moved = metric(x + 100 * rng.standard_normal(40))
    if metric in CENTRED:
        assert moved == pytest.approx(before, rel=1e-7)
    else:
        assert moved < 0.5 * before


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_scale_of_float32_layers(metric: Metric, scale: float) -> None:
    x = torch.from_numpy(sloped(1)).float()
    assert metric(x * scale) == pytest.approx(metric(x), rel=1e-5)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("scale", [1e-290, 1e290])
def test_scale_of_float64_layers(metric: Metric, scale: float) -> None:
    x = sloped(1)
    assert metric(x * scale) == pytest.approx(metric(x), rel=1e-9)


@pytest.mark.parametrize("metric", ALL)
def test_offset_of_a_thousand(metric: Metric) -> None:
    x = sloped(2)
    assert metric(x + 1000) == pytest.approx(by_svd(metric, x + 1000), rel=1e-6)
    low = (torch.from_numpy(x) + 1000).float()
    assert metric(low) == pytest.approx(by_svd(metric, low.double().numpy()), rel=1e-6)
    if metric in CENTRED:
        assert metric(low) == pytest.approx(metric(x), rel=1e-3)


@pytest.mark.parametrize("metric", ALL)
def test_one_feature_far_from_the_others(metric: Metric) -> None:
    """As in the residual stream of a ViT: one channel of mean 100 and spread 10."""
    x = sloped(3)
    x[:, 7] = 100 + 10 * x[:, 7]
    assert metric(x.astype(np.float32)) == pytest.approx(by_svd(metric, x), rel=1e-5)


@pytest.mark.parametrize("metric", CENTRED)
def test_constant_feature_changes_nothing_however_far_off(metric: Metric) -> None:
    """The mean of 150 times 1e16 / 3 is whole units off."""
    x = sloped(3)
    assert metric(np.hstack([x, np.full((150, 1), 1e16 / 3)])) == pytest.approx(
        metric(np.pad(x, ((0, 0), (0, 1)))), rel=1e-9
    )


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_types_are_taken_as_the_numbers_they_hold(metric: Metric, dtype: torch.dtype) -> None:
    low = torch.from_numpy(sloped(4) * 1000).to(dtype)
    assert metric(low) == metric(low.double())
    assert metric(low.numpy() if dtype != torch.bfloat16 else low.float()) == metric(low)
    assert metric(low.round().to(torch.int64)) == metric(low.round().double())


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("value", [0.0, 1 / 3, -1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_layer_has_no_spectrum(metric: Metric, value: float, dtype: torch.dtype) -> None:
    row = value * torch.linspace(1, 3, 30, dtype=dtype)
    assert math.isnan(metric(row.repeat(150, 1)))
    up_to_rounding = row.repeat(150, 1)
    up_to_rounding[::2] *= 1 + torch.finfo(dtype).eps
    assert math.isnan(metric(up_to_rounding))


@pytest.mark.parametrize("metric", [effective_rank, participation_ratio])
def test_directions_that_are_zero_up_to_rounding_do_not_count(metric: Metric) -> None:
    x = sloped(5, 400, 3) @ np.random.default_rng(0).standard_normal((3, 300))
    assert metric(x) == pytest.approx(metric(x @ np.linalg.svd(x, full_matrices=False)[2][:3].T), rel=1e-12)


def test_alpha_needs_as_many_directions_as_are_fitted() -> None:
    x = sloped(6, 300, 99) @ np.random.default_rng(0).standard_normal((99, 250))
    assert math.isnan(spectrum_alpha(x))
    assert spectrum_alpha(sloped(6, 300, 100) @ np.random.default_rng(0).standard_normal((100, 250))) > 0


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite(metric: Metric, bad: float) -> None:
    x = sloped(7)
    x[6, 3] = bad
    with pytest.raises(NonFiniteError, match=r"^x: 1 of 6000 values are not finite, the first at image 6"):
        metric(x)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("shape", [(5,), (5, 0), (5, 2, 20)])
def test_other_shapes(metric: Metric, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"^x: has shape"):
        metric(np.ones(shape))


@pytest.mark.parametrize(
    ("metric", "shape", "problem"),
    [
        (effective_rank, (1, 5), r"has 1 images \(need 2 or more\)"),
        (participation_ratio, (0, 5), r"has 0 images \(need 2 or more\)"),
        (spectrum_alpha, (100, 768), r"has 100 images \(need 101 or more\)"),
        (spectrum_alpha, (20, 40), r"has 20 images \(need 21 or more\)"),
        (spectrum_alpha, (200, 25), r"has 25 features \(need 26 or more to fit a power law\)"),
    ],
)
def test_too_few_images_or_features(metric: Metric, shape: tuple[int, int], problem: str) -> None:
    with pytest.raises(ShapeError, match=f"^x: {problem}"):
        metric(np.random.default_rng(0).standard_normal(shape))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("metric", ALL)
def test_on_a_gpu_as_on_the_cpu(metric: Metric) -> None:
    x = sloped(8)
    assert metric(torch.from_numpy(x).cuda()) == pytest.approx(metric(x), rel=1e-9)
