"""Linear centred kernel alignment (CKA), biased and debiased; owns the formulas, not the products behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.measures.check import Layer, as_layer
from engine.measures.gram import Centred, Products, centre_all, gram_tiles, inner_products, type_for
from engine.measures.pairs import compare_two
from engine.measures.permutation import Symmetric, permutation_moments
from engine.measures.resampling import Kernels, resampled_cka

# Share of a layer's HSIC with itself that debiasing must leave. It leaves about n / d of it; where all images are
# equally far apart, nothing, and rounding makes 1e-8 of that.
LEAST_SHARE = 1e-7


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


def undefined(side: Side, name: str, is_x: bool) -> list[str | None]:
    """Why a layer that varies has no similarity, for each layer: debiasing may leave nothing."""
    made = list(side._centred.values())
    x = made[0] if made else side.centred(type_for(side.layers), side.layers[0].values.device)
    own = inner_products(x, x).left if x.own is None else x.own
    lengths = _lengths(own, x.q.square().sum(dim=1), x.q.sum(dim=1), x.q.shape[1], name)
    return ["all images are equally far apart" if each else None for each in lengths.isnan().tolist()]


def compare(left: Side, right: Side, names: Sequence[str]) -> dict[str, Tensor]:
    """The named estimators for all pairs, `(len(xs), len(ys))` float64 each, from one pass over the products."""
    moments = _moments(*both_centred(left, right))
    return {name: ratio(moments, name) for name in names}


def both_centred(left: Side, right: Side) -> tuple[Centred, Centred]:
    """Both sides in the type that they need together, on the device of the left one."""
    dtype = torch.promote_types(type_for(left.layers), type_for(right.layers))
    device = left.layers[0].values.device
    x = left.centred(dtype, device)
    return x, x if right is left else right.centred(dtype, device)


def resample(left: Side, right: Side, name: str, weights: Tensor) -> Tensor:
    """The named estimator of all pairs in every resample, `(L, M, B)`; weights `(n, B)`."""
    x, y = both_centred(left, right)
    both = [x, y]

    def times(v: Tensor) -> Tensor:
        products = [stack @ (stack.transpose(1, 2) @ v.to(stack)) for side in both for stack in side.stacks]
        return torch.cat(products).double()

    kernels = Kernels(lambda: gram_tiles(both), torch.cat([x.q, y.q]), times)
    return resampled_cka(kernels, len(x.q), weights, name == "debiased_cka")


def permuted(side: Side, order: Tensor) -> Side:
    """The side with its images in another order: image i is what `order[i]` was."""
    centred = {
        dtype: Centred(tuple(stack[:, order] for stack in each.stacks), each.q[:, order], own=each.own)
        for dtype, each in side._centred.items()
    }
    # The layers too: the other side may yet ask for another type.
    return Side([as_layer(layer.values[order], layer.where) for layer in side.layers], False, centred)


def null(left: Side, right: Side, name: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the named estimator over all orders of y's images, `(L, M)` each."""
    x, y = both_centred(left, right)
    moments, n = _moments(x, y), x.q.shape[1]
    sides = []
    for plain, q_product, norm in ((moments.products.left, moments.q_products.left, moments.norms[0]),
                                   (moments.products.right, moments.q_products.right, moments.norms[1])):  # fmt: skip
        if name == "linear_cka":
            sides.append(Symmetric(norm, plain, q_product))
        else:  # of the U-centred matrices, whose diagonal is zero
            zero = torch.zeros_like(norm)
            sides.append(Symmetric(zero, _debiased(plain, q_product, norm.square(), n), zero))
    return permutation_moments(sides[0], sides[1], n)


@dataclass(frozen=True)
class Moments:
    """All that CKA takes from `n` images, float64, centred.

    Attributes:
        products: of the Gram matrices.
        q_products: sums over the images of products of squared row norms, in the same three parts.
        norms: sums of squared row norms, `(L,)` and `(M,)`.
    """

    n: int
    products: Products
    q_products: Products
    norms: tuple[Tensor, Tensor]


def ratio(moments: Moments, name: str) -> Tensor:
    """The named estimator for all pairs, `(L, M)`; NaN where it is undefined."""
    cross = moments.products.cross
    if name == "debiased_cka":
        cross = _debiased(cross, moments.q_products.cross, torch.outer(*moments.norms), moments.n)
    own = (
        _lengths(plain, q_product, norms, moments.n, name)
        for plain, q_product, norms in (
            (moments.products.left, moments.q_products.left, moments.norms[0]),
            (moments.products.right, moments.q_products.right, moments.norms[1]),
        )
    )
    return cross / torch.outer(*own)


def _moments(x: Centred, y: Centred) -> Moments:
    q_products = Products(x.q.square().sum(dim=1), x.q @ y.q.T, y.q.square().sum(dim=1))
    return Moments(x.q.shape[1], inner_products(x, y), q_products, (x.q.sum(dim=1), y.q.sum(dim=1)))


def _lengths(plain: Tensor, q_product: Tensor, norms: Tensor, n: int, name: str) -> Tensor:
    """The root of each layer's HSIC with itself; NaN where nothing is left of it."""
    own = plain if name == "linear_cka" else _debiased(plain, q_product, norms.square(), n)
    return torch.where(own > LEAST_SHARE * plain, own, torch.nan).sqrt()


def _debiased(biased: Tensor, q_products: Tensor, norm_products: Tensor, n: int) -> Tensor:
    """Song's unbiased HSIC times n(n-3), from centred features: products of squared row norms, and of their sums."""
    return biased - n / (n - 2) * q_products + norm_products / ((n - 1) * (n - 2))
