"""Intervals and nulls against re-runs, full enumeration and coverage; the measures that have none say so."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from engine.errors import NonFiniteError, ShapeError, StudyError
from engine.measures import MEASURES, bootstrap_interval, debiased_cka, heatmap, permutation_null
from engine.measures.check import as_layer
from engine.measures.resampling import draw_weights
from tests.engine.measures import reference

RESAMPLED = [name for name, measure in MEASURES.items() if measure.can_be_resampled]
EXACT = ["linear_cka", "debiased_cka", "rbf_cka", "mean_squared_cca", "linear_regression", "row_cosine", "rsa"]


def related(seed: int, n: int = 40, d: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * np.linspace(0.5, 2, d) + 0.3
    return x, x @ rng.standard_normal((d, d)) / np.sqrt(d) + rng.standard_normal((n, d))


def resampled(x: np.ndarray, y: np.ndarray, name: str, weights: torch.Tensor) -> np.ndarray:
    """The measure in every resample, as the engine's families give it, `(B,)`."""
    from importlib import import_module

    module = import_module(f"engine.measures.{MEASURES[name].family}")
    options = {key: value for each in MEASURES.values() if each.family == MEASURES[name].family
               for key, value in each.options.items()}  # fmt: skip
    sides = [module.prepare([as_layer(z, "z")], False, **options) for z in (x, y)]
    return module.resample(*sides, name, weights)[0, 0].numpy()


# --- resamples against re-runs --------------------------------------------------------------------------------------


def copies(x: np.ndarray, weights: torch.Tensor, b: int) -> np.ndarray:
    return np.repeat(x, weights[:, b].long().numpy(), axis=0)


@pytest.mark.parametrize("n", [40, 300])
def test_biased_cka_of_a_resample_is_that_of_its_rows(n: int) -> None:
    x, y = related(0, n)
    weights = draw_weights(n, 12, seed=3)
    expected = [reference.similarity(copies(x, weights, b), copies(y, weights, b), "linear_cka") for b in range(12)]
    assert resampled(x, y, "linear_cka", weights) == pytest.approx(expected, abs=1e-10)
    single = resampled(x.astype(np.float32), y.astype(np.float32), "linear_cka", weights)
    assert single == pytest.approx(expected, abs=1e-5)


def weighted_u_statistic(k: np.ndarray, l: np.ndarray, w: np.ndarray) -> float:  # noqa: E741
    """Σ over four distinct images, each by its weight: the definition, all n (n-1) (n-2) (n-3) terms."""
    return sum(
        w[i] * w[j] * w[q] * w[r] * (k[i, j] * l[i, j] + k[i, j] * l[q, r] - 2 * k[i, j] * l[i, q])
        for i, j, q, r in itertools.permutations(range(len(k)), 4)
    )


def test_debiased_cka_of_a_resample_is_the_weighted_u_statistic() -> None:
    x, y = related(1, 8)
    weights = torch.cat([draw_weights(8, 3, seed=0), torch.ones(8, 1, dtype=torch.float64)], dim=1)
    k, l = x @ x.T, y @ y.T  # noqa: E741  (not centred: the statistic is blind to it)
    values = resampled(x, y, "debiased_cka", weights)
    for b, w in enumerate(weights.T.numpy()):
        xy, xx, yy = (weighted_u_statistic(*pair, w) for pair in ((k, l), (k, k), (l, l)))
        expected = xy / np.sqrt(xx * yy) if xx > 0 and yy > 0 else np.nan
        assert values[b] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert values[-1] == pytest.approx(debiased_cka(x, y).item(), abs=1e-12)


def test_debiased_cka_of_many_images_in_float32() -> None:
    x, y = related(1, 600)
    weights = draw_weights(600, 8, seed=0)
    exact = resampled(x, y, "debiased_cka", weights)
    assert resampled(x.astype(np.float32), y.astype(np.float32), "debiased_cka", weights) == pytest.approx(
        exact, abs=1e-5
    )


def test_rbf_cka_of_a_resample_keeps_the_bandwidth() -> None:
    for n in (40, 300):
        x, y = related(2, n)
        weights = draw_weights(n, 6, seed=1)

        def kernel(z: np.ndarray) -> np.ndarray:
            squares = reference.squareform(reference.pdist(z, "sqeuclidean"))
            return np.exp(-squares / (0.5 * np.median(squares)))

        for b, value in enumerate(resampled(x, y, "rbf_cka", weights)):
            rows = np.repeat(np.arange(n), weights[:, b].long().numpy())
            k, l = (kernel(z)[np.ix_(rows, rows)] for z in (x, y))  # noqa: E741
            assert value == pytest.approx(reference._alignment(reference._biased_hsic, k, l), abs=1e-9)


@pytest.mark.parametrize("name", ["row_cosine", "mutual_knn", "mutual_knn_jaccard"])
def test_means_over_images_are_weighted_means(name: str) -> None:
    x, y = related(3)
    single = np.eye(40) * 40  # a resample of one image 40 times gives the value of that image
    by_image = resampled(x, y, name, torch.from_numpy(single))
    assert by_image.mean() == pytest.approx(MEASURES[name].function(x, y).item())
    weights = draw_weights(40, 5, seed=0)
    assert resampled(x, y, name, weights) == pytest.approx(by_image @ weights.numpy() / 40)


def test_rsa_of_a_resample_weighs_pairs_of_different_images() -> None:
    for n in (40, 300):
        x, y = related(4, n)
        weights = draw_weights(n, 5, seed=0)
        ranks = [reference.scipy.stats.rankdata(reference.pdist(z, "correlation").round(12)) for z in (x, y)]
        for b, value in enumerate(resampled(x, y, "rsa", weights)):
            w = weights[:, b].numpy()
            both = np.outer(w, w)[np.triu_indices(n, 1)]
            covariance = np.cov(*ranks, aweights=both, ddof=0)
            assert value == pytest.approx(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]), abs=1e-9)


@pytest.mark.parametrize("name", RESAMPLED)
def test_weights_of_one_give_the_measure_itself(name: str) -> None:
    x, y = related(5, 300)
    values = resampled(x, y, name, torch.ones(300, 2, dtype=torch.float64))
    assert values == pytest.approx(np.full(2, MEASURES[name].function(x, y).item()), abs=1e-9)


# --- intervals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RESAMPLED)
def test_interval_of_every_cell(name: str) -> None:
    xs, ys = zip(*(related(seed, 60) for seed in (1, 2)), strict=True)
    found = bootstrap_interval(xs, ys, name, n_resamples=200)
    assert found.value.numpy() == pytest.approx(heatmap(xs, ys, name).numpy(), abs=1e-12)
    assert found.low.shape == found.high.shape == found.standard_error.shape == (2, 2)
    assert bool((found.low < found.value).all()) and bool((found.value < found.high).all())
    width = (found.high - found.low) / found.standard_error
    assert bool((width > 3).all()) and bool((width < 5).all())  # 3.92 for a normal distribution
    single = bootstrap_interval(xs[:1], ys[1:], name, n_resamples=200)
    assert single.low.item() == pytest.approx(found.low[0, 1].item(), abs=1e-9)
    again = bootstrap_interval(xs, ys, name, n_resamples=200)
    assert torch.equal(found.low, again.low)
    assert not torch.equal(found.low, bootstrap_interval(xs, ys, name, n_resamples=200, seed=1).low)
    assert bool((bootstrap_interval(xs, ys, name, n_resamples=200, level=0.5).low > found.low).all())


def test_debiased_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Gaussians whose CKA over the whole population is known."""
    rng = np.random.default_rng(0)
    d, n, n_draws = 6, 80, 200
    mix = rng.standard_normal((d, d)) / np.sqrt(d)
    cross, own_x, own_y = mix, np.eye(d), mix.T @ mix + np.eye(d)
    truth = np.linalg.norm(cross) ** 2 / (np.linalg.norm(own_x) * np.linalg.norm(own_y))
    covered = 0
    for _ in range(n_draws):
        x = rng.standard_normal((n, d))
        found = bootstrap_interval([x], [x @ mix + rng.standard_normal((n, d))], n_resamples=200)
        covered += bool(found.low.item() <= truth <= found.high.item())
    assert 0.90 <= covered / n_draws <= 0.98


def test_interval_of_an_undefined_cell() -> None:
    x, y = related(0)
    found = bootstrap_interval([np.ones((40, 3)), x], [y], n_resamples=50)
    assert found.low.isnan().tolist() == found.standard_error.isnan().tolist() == [[True], [False]]


# --- nulls ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXACT)
def test_exact_null_is_that_of_all_orders(name: str) -> None:
    n = 6
    rng = np.random.default_rng(0)
    d = 2 if name in ("mean_squared_cca", "linear_regression") else 4
    x, y = rng.standard_normal((n, d)), rng.standard_normal((n, d + (name != "row_cosine")))
    function = MEASURES[name].function
    values = [function(x, y[list(order)]).item() for order in itertools.permutations(range(n))]
    found = permutation_null([x], [y], name)
    assert found.n_permutations is None
    assert (found.mean.item(), found.sd.item()) == pytest.approx((np.mean(values), np.std(values)), abs=1e-9)


@pytest.mark.parametrize("n", [4, 5])
def test_exact_null_of_the_fewest_images(n: int) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, n, 3))
    for name in ("linear_cka", "debiased_cka", "rsa"):
        values = [MEASURES[name].function(x, y[list(order)]).item() for order in itertools.permutations(range(n))]
        found = permutation_null([x], [y], name)
        assert (found.mean.item(), found.sd.item()) == pytest.approx((np.mean(values), np.std(values)), abs=1e-9)


@pytest.mark.parametrize("name", [name for name in MEASURES if name not in EXACT])
def test_drawn_null_is_that_of_drawn_orders(name: str) -> None:
    x, y = related(0, 60)
    found = permutation_null([x, y], [y], name, n_permutations=20, seed=4)
    assert found.n_permutations == 20
    generator = torch.Generator().manual_seed(4)
    orders = [torch.randperm(60, generator=generator).numpy() for _ in range(20)]
    values = [MEASURES[name].function(x, y[order]).item() for order in orders]
    assert (found.mean[0, 0].item(), found.sd[0, 0].item()) == pytest.approx(
        (np.mean(values), np.std(values, ddof=1)), abs=1e-9
    )


@pytest.mark.parametrize("name", [name for name in EXACT if name not in ("rsa", "rbf_cka")])
@pytest.mark.parametrize("n", [60, 300])
def test_orders_can_be_drawn_where_the_moments_are_exact(name: str, n: int) -> None:
    x, y = related(0, n)
    for other in (y, y.astype(np.float32)):
        found = permutation_null([x, y], [other], name, n_permutations=20, seed=4, always_draws=True)
        generator = torch.Generator().manual_seed(4)
        orders = [torch.randperm(n, generator=generator).numpy() for _ in range(20)]
        values = [MEASURES[name].function(x, other[order]).item() for order in orders]
        assert found.values is not None and found.values.shape == (2, 1, 20)
        assert found.values[0, 0].numpy() == pytest.approx(values, abs=1e-9)
        plain = permutation_null([x, y], [other], name)
        assert torch.equal(found.mean, plain.mean) and torch.equal(found.sd, plain.sd)
        assert plain.values is None and found.n_permutations is None


@pytest.mark.parametrize("name", ["rsa", "rbf_cka"])
def test_what_would_have_to_be_prepared_for_every_order_is_not_drawn(name: str) -> None:
    x, y = related(0)
    assert permutation_null([x], [y], name, always_draws=True).values is None


def test_null_of_debiased_cka_is_zero_and_that_of_biased_cka_is_not() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 32, 768)).astype(np.float32)
    assert permutation_null([x], [y], "debiased_cka").mean.item() == pytest.approx(0, abs=1e-12)
    assert permutation_null([x], [y], "linear_cka").mean.item() == pytest.approx(0.96, abs=0.005)


def test_null_of_an_undefined_cell() -> None:
    x, y = related(0)
    for name in ("linear_cka", "mutual_knn"):
        found = permutation_null([np.ones((40, 3)), x], [y], name, n_permutations=3)
        assert found.mean.isnan().tolist() == found.sd.isnan().tolist() == [[True], [False]]
        drawn = permutation_null([np.ones((40, 3)), x], [y], name, n_permutations=3, always_draws=True).values
        assert drawn is not None and drawn.isnan().all(dim=2).tolist() == [[True], [False]]


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MEASURES if name not in RESAMPLED])
def test_measures_without_an_interval_name_those_with_one(name: str) -> None:
    x, y = related(0)
    with pytest.raises(
        StudyError, match=rf"^measure '{name}': has no bootstrap interval.*\n  fix: use one of linear_cka "
    ):
        bootstrap_interval([x], [y], name)


@pytest.mark.parametrize("wrong", [{"n_resamples": 1}, {"level": 0.0}, {"level": 1.0}])
def test_wrong_settings_of_an_interval(wrong: dict[str, float]) -> None:
    x, y = related(0)
    with pytest.raises(ShapeError, match=r"^n_resamples, level: are "):
        bootstrap_interval([x], [y], **wrong)


def test_wrong_settings_of_a_null_and_wrong_input() -> None:
    x, y = related(0)
    with pytest.raises(ShapeError, match=r"^n_permutations: is 1 \(need 2 or more\)"):
        permutation_null([x], [y], n_permutations=1)
    with pytest.raises(StudyError, match="no such measure"):
        permutation_null([x], [y], "cka")
    y[3, 1] = np.nan
    for function in (bootstrap_interval, permutation_null):
        with pytest.raises(NonFiniteError, match=r"^ys\[0\]: 1 of 160"):
            function([x], [y])
        with pytest.raises(ShapeError, match=r"^ys\[0\]: has 39 images"):
            function([x], [x[:-1]])
