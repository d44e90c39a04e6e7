"""How sure a similarity is: intervals over images, and what unrelated representations would score; owns no formula."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from engine.errors import ShapeError, StudyError
from engine.measures.check import Layer, as_layer
from engine.measures.pairs import Comparison
from engine.measures.resampling import draw_weights
from engine.measures.table import MEASURES


@dataclass(frozen=True)
class Interval:
    """A similarity of all pairs with its interval; every tensor `(L, M)` float64 on the CPU.

    `low` and `high` bound it at `level`; `standard_error` is the standard deviation of the `n_resamples` resamples.
    """

    value: Tensor
    low: Tensor
    high: Tensor
    standard_error: Tensor
    level: float
    n_resamples: int


@dataclass(frozen=True)
class Null:
    """What unrelated representations score: mean and standard deviation, `(L, M)` float64 on the CPU.

    `n_permutations` is None where the moments are exact, over all orders of the images. `values` are those of orders
    that were drawn, `(L, M, n)`, where any were.
    """

    mean: Tensor
    sd: Tensor
    n_permutations: int | None
    values: Tensor | None = None


@torch.no_grad()
def bootstrap_interval(
    xs: Iterable[Any],
    ys: Iterable[Any],
    measure: str = "debiased_cka",
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    **options: Any,
) -> Interval:
    """The interval of every cell of a heatmap over resamples of the images, all cells and resamples in one pass.

    The percentiles of the resamples, moved so that their mean lies at the value: a resample repeats images, which
    inflates a biased estimator once more. The inflation of the value itself is not part of the interval. Debiased CKA
    and RSA never pair an image with its own copy; ranks, neighbours and bandwidths stay those among all images.

    Args:
        xs: arrays or tensors `(n, d_i)`, one row an image; one layer for a single cell.
        ys: the same images in the same order.
        measure: one of `MEASURES` that can be resampled: not the measures that need a decomposition a resample.
        level: share of the resamples inside, in (0, 1).
        options: of the measure.
    Returns:
        `Interval`; NaN where the measure is undefined.
    Raises:
        StudyError: the measure does not exist or cannot be resampled.
        ShapeError: as `heatmap`; or n_resamples < 2, or a level outside (0, 1).
    Source: Efron 1979; for U-statistics Arcones and Giné 1992.
    """
    if n_resamples < 2 or not 0 < level < 1:
        raise ShapeError(
            "n_resamples, level",
            f"are {n_resamples}, {level} (need 2 or more, and a share between 0 and 1)",
            "correct them",
        )
    left, right, comparison = _sides(xs, ys, measure, options)
    if not MEASURES[measure].can_be_resampled:
        able = " ".join(name for name, each in MEASURES.items() if each.can_be_resampled)
        raise StudyError(
            f"measure {measure!r}", "has no bootstrap interval: every resample needs decompositions of its own",
            f"use one of {able}",
        )  # fmt: skip
    value = comparison.heatmaps(right)[measure]
    module = import_module(f"engine.measures.{MEASURES[measure].family}")
    weights = draw_weights(len(left[0].values), n_resamples, seed)
    found = module.resample(*comparison.prepared(right, measure), measure, weights).cpu()
    low, high = (found.nanquantile(q, dim=2) for q in ((1 - level) / 2, (1 + level) / 2))
    mean = found.nanmean(dim=2)
    variance = (found - mean[:, :, None]).square().nanmean(dim=2) * n_resamples / (n_resamples - 1)
    least, most = MEASURES[measure].range
    undefined = value.isnan()
    bounds = ((value + end - mean).clamp(least, most) for end in (low, high))
    parts = [each.masked_fill(undefined, torch.nan) for each in (*bounds, variance.sqrt())]
    return Interval(value, parts[0], parts[1], parts[2], level, n_resamples)


@torch.no_grad()
def permutation_null(
    xs: Iterable[Any],
    ys: Iterable[Any],
    measure: str = "linear_cka",
    *,
    n_permutations: int = 100,
    seed: int = 0,
    always_draws: bool = False,
    **options: Any,
) -> Null:
    """What every cell of a heatmap would be if the two representations had nothing to do with each other.

    The images of one side are put into another order, which keeps both representations and breaks their relation. For
    linear, debiased and RBF CKA, mean squared CCA, linear regression, RSA and row cosine the mean and standard
    deviation over all n! orders are computed exactly, and no order is drawn. For the others, `n_permutations` orders
    are drawn; no layer is prepared again, but each order costs a heatmap of products.

    Args:
        xs: arrays or tensors `(n, d_i)`, one row an image; one layer for a single cell.
        ys: the same images in the same order.
        measure: a name of `MEASURES`.
        always_draws: draws orders where the moments are exact too, for quantiles; not of RSA and RBF CKA, which would
            have to be prepared again for every order.
        options: of the measure.
    Returns:
        `Null`; NaN where the measure is undefined.
    Raises:
        StudyError: no such measure or option.
        ShapeError: as `heatmap`; or n_permutations < 2.
    """
    if n_permutations < 2:
        raise ShapeError("n_permutations", f"is {n_permutations} (need 2 or more)", "raise it")
    left, right, comparison = _sides(xs, ys, measure, options)
    undefined = comparison.heatmaps(right)[measure].isnan()
    module = import_module(f"engine.measures.{MEASURES[measure].family}")
    x, y = comparison.prepared(right, measure)
    exact = module.null(x, y, measure) if hasattr(module, "null") else None
    values = None
    if exact is None or (always_draws and hasattr(module, "permuted")):
        n, generator = len(left[0].values), torch.Generator().manual_seed(seed)
        orders = [torch.randperm(n, generator=generator).to(left[0].values.device) for _ in range(n_permutations)]
        module.compare(x, y, [measure])  # makes what all orders have in common
        found = [module.compare(x, module.permuted(y, order), [measure])[measure] for order in orders]
        values = torch.stack(found, dim=2)
    mean, sd = exact or (values.mean(dim=2), values.std(dim=2))  # type: ignore[union-attr]
    mean, sd = (each.cpu().masked_fill(undefined, torch.nan) for each in (mean, sd))
    if values is not None:
        values = values.cpu().masked_fill(undefined[:, :, None], torch.nan)
    return Null(mean, sd, None if exact is not None else n_permutations, values)


def _sides(
    xs: Iterable[Any], ys: Iterable[Any], measure: str, options: dict[str, Any]
) -> tuple[Sequence[Layer], Sequence[Layer], Comparison]:
    left = [as_layer(x, f"xs[{i}]") for i, x in enumerate(xs)]
    right = [as_layer(y, f"ys[{i}]") for i, y in enumerate(ys)]
    return left, right, Comparison(left, [measure], **options)
