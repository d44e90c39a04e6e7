"""Linear centred kernel alignment (CKA), biased and debiased; owns the formulas, not the products behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engine.measures.check import Layer
from engine.measures.gram import centre_all, inner_products
from engine.measures.pairs import compare_two

# Share of a layer's HSIC with itself that debiasing must leave. It leaves about n / d of it; where all images are
# equally far apart, nothing, and rounding makes 1e-8 of that.
_LEAST_SHARE = 1e-7


def linear_cka(x: Any, y: Any) -> Tensor:
    """Similarity of two representations of the same images, blind to rotation.

    Invariant to orthogonal maps, isotropic scaling and translation of either side; not to general invertible maps.
    Biased upwards when n is not much larger than d: see `debiased_cka`.

    Args:
        x: `(n, d_x)` array or tensor of real numbers, one row an image.
        y: `(n, d_y)`, the same images in the same order.
    Returns:
        0-d float64 tensor on the CPU, in [0, 1] up to rounding, higher is more alike; NaN where a side is constant over
        the images (`why_undefined` says so).
    Raises:
        ShapeError: not (n, d), the row counts differ, or n < 2.
        NonFiniteError: a value is NaN or infinite.
    Source: Kornblith et al. 2019, eq. 4, linear kernel, biased estimator.
    """
    return compare_two(x, y, "linear_cka")


def debiased_cka(x: Any, y: Any) -> Tensor:
    """Similarity of two representations of the same images, blind to rotation and right for few images too.

    Invariant to orthogonal maps, isotropic scaling and translation of either side; not to general invertible maps.
    Unrelated representations score 0 on average whatever n and d, so single values may be slightly negative.

    Args:
        x: `(n, d_x)` array or tensor of real numbers, one row an image.
        y: `(n, d_y)`, the same images in the same order.
    Returns:
        0-d float64 tensor on the CPU, in [-1, 1] up to rounding, higher is more alike; NaN where a side is constant
        over the images or holds them all equally far apart (`why_undefined` says which).
    Raises:
        ShapeError: not (n, d), the row counts differ, or n < 4.
        NonFiniteError: a value is NaN or infinite.
    Source: Kornblith et al. 2019, eq. 4, linear kernel, each HSIC by the unbiased estimator of Song et al. 2012, eq. 5.
    """
    return compare_two(x, y, "debiased_cka")


def all_pairs(xs: Sequence[Layer], ys: Sequence[Layer], names: Sequence[str]) -> dict[str, Tensor]:
    """The named estimators for all pairs, `(len(xs), len(ys))` float64 each, from one pass over the products."""
    layers, first_right = (xs, 0) if ys is xs else ([*xs, *ys], len(xs))
    centred = centre_all(layers)
    biased = inner_products(centred, len(xs), first_right)
    maps = {}
    for name in names:
        hsic = biased if name == "linear_cka" else _debiased(biased, centred.q)
        own = hsic.diagonal()
        own = torch.where(own > _LEAST_SHARE * biased.diagonal(), own, torch.nan).sqrt()
        maps[name] = hsic[: len(xs), first_right:] / torch.outer(own[: len(xs)], own[first_right:])
    return maps


def _debiased(biased: Tensor, q: Tensor) -> Tensor:
    """Song's unbiased HSIC times n(n-3), from centred features: `q` are their squared row norms, `(L, n)`."""
    n, norms = q.shape[1], q.sum(dim=1)
    return biased - n / (n - 2) * (q @ q.T) + torch.outer(norms, norms) / ((n - 1) * (n - 2))
