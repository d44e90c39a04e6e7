"""Linear centred kernel alignment (CKA), biased and debiased; owns the formulas, not the products behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.measures.check import Layer
from engine.measures.gram import Centred, centre_all, inner_products, type_for
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


@dataclass
class Side:
    """One of the two sets of a comparison, centred in the type that the other needs."""

    layers: Sequence[Layer]
    is_kept: bool
    _centred: dict[torch.dtype, Centred] = field(default_factory=dict)

    def centred(self, dtype: torch.dtype, device: torch.device) -> Centred:
        """The centred layers, made once for each type."""
        if dtype not in self._centred:
            self._centred[dtype] = centre_all(self.layers, dtype, device, self.is_kept)
        return self._centred[dtype]


def prepare(layers: Sequence[Layer], is_kept: bool) -> Side:
    """What a comparison needs of one set of layers."""
    return Side(layers, is_kept)


def undefined(side: Side, name: str) -> list[str | None]:
    """Why a layer that varies has no similarity, for each layer: debiasing may leave nothing."""
    if name == "linear_cka":
        return [None] * len(side.layers)
    made = list(side._centred.values())
    centred = made[0] if made else side.centred(type_for(side.layers), side.layers[0].values.device)
    own = inner_products(centred, centred).left if centred.own is None else centred.own
    left = _debiased(own, centred.q.square().sum(dim=1), centred.q.sum(dim=1).square(), centred.q.shape[1])
    return [None if each else "all images are equally far apart" for each in (left > _LEAST_SHARE * own).tolist()]


def compare(left: Side, right: Side, names: Sequence[str]) -> dict[str, Tensor]:
    """The named estimators for all pairs, `(len(xs), len(ys))` float64 each, from one pass over the products."""
    dtype = torch.promote_types(type_for(left.layers), type_for(right.layers))
    device = left.layers[0].values.device
    x = left.centred(dtype, device)
    y = x if right is left else right.centred(dtype, device)
    products = inner_products(x, y)
    maps = {}
    for name in names:
        hsic = [products.left, products.cross, products.right]
        if name == "debiased_cka":
            n, x_norms, y_norms = x.q.shape[1], x.q.sum(dim=1), y.q.sum(dim=1)
            hsic = [
                _debiased(products.left, x.q.square().sum(dim=1), x_norms.square(), n),
                _debiased(products.cross, x.q @ y.q.T, torch.outer(x_norms, y_norms), n),
                _debiased(products.right, y.q.square().sum(dim=1), y_norms.square(), n),
            ]
        lengths = [
            torch.where(own > _LEAST_SHARE * plain, own, torch.nan).sqrt()
            for own, plain in ((hsic[0], products.left), (hsic[2], products.right))
        ]
        maps[name] = hsic[1] / torch.outer(*lengths)
    return maps


def _debiased(biased: Tensor, q_products: Tensor, norm_products: Tensor, n: int) -> Tensor:
    """Song's unbiased HSIC times n(n-3), from centred features: products of squared row norms, and of their sums."""
    return biased - n / (n - 2) * q_products + norm_products / ((n - 1) * (n - 2))
