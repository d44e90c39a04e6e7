"""Canonical correlations and linear regression: what two representations share up to any linear map.

Owns the orthonormal bases of layers, one decomposition a layer, and what counts as a direction. All in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from engine.errors import ShapeError
from engine.measures.check import Layer
from engine.measures.gram import centre_exactly
from engine.measures.pairs import compare_two
from engine.measures.permutation import Symmetric, permutation_moments


def mean_cca(x: Any, y: Any) -> Tensor:
    """Mean canonical correlation of two representations of the same images.

    Invariant to every invertible linear map and translation of either side; so it counts directions that hardly vary
    like those that carry the representation. The mean is over the smaller of the two ranks. Unrelated representations
    score far above 0 unless n is very much larger than d.

    Args:
        x: `(n, d_x)` array or tensor of real numbers, one row an image.
        y: `(n, d_y)`, the same images in the same order.
    Returns:
        0-d float64 tensor on the CPU, in [0, 1], higher is more alike; NaN where a side is constant over the images, or
        has as many directions as n images allow, so that any other fits it perfectly (`why_undefined` says which).
    Raises:
        ShapeError: not (n, d), the row counts differ, or n < 3.
        NonFiniteError: a value is NaN or infinite.
    Source: Raghu et al. 2017; Kornblith et al. 2019, table 1. Columns are centred; directions whose variation lies
        below the rounding of the given type are left out.
    """
    return compare_two(x, y, "mean_cca")


def mean_squared_cca(x: Any, y: Any) -> Tensor:
    """Mean squared canonical correlation, R²_CCA; in everything else as `mean_cca`.

    Unrelated representations score max(d_x, d_y) / (n - 1) on average.

    Source: Kornblith et al. 2019, table 1. Their published numbers are without centring.
    """
    return compare_two(x, y, "mean_squared_cca")


def svcca(x: Any, y: Any, variance: float = 0.99) -> Tensor:
    """Mean canonical correlation of the leading principal components of two representations.

    Invariant to orthogonal maps, isotropic scaling and translation of either side; not to general invertible maps,
    which change the components. In everything else as `mean_cca`.

    Args:
        x: `(n, d_x)` array or tensor of real numbers, one row an image.
        y: `(n, d_y)`, the same images in the same order.
        variance: share of the variance, Σ s² of the singular values s, that the components kept must reach; in (0, 1].
    Source: Raghu et al. 2017, who keep 99 % of the variance.
    """
    return compare_two(x, y, "svcca", variance=variance)


def pwcca(x: Any, y: Any) -> Tensor:
    """Canonical correlations of x and y, each weighted by how much of x it accounts for.

    The weights are Σ_j |⟨h_i, x_j⟩| with h_i the orthonormal canonical variables of x and x_j its features, so the
    value is not symmetric, and not even invariant to rotations of x: only to its scale and translation. It is invariant
    to every invertible linear map of y. In everything else as `mean_cca`.

    Source: Morcos et al. 2018; the weights of x's side, with canonical variables, not their coefficients.
    """
    return compare_two(x, y, "pwcca")


def linear_regression(x: Any, y: Any) -> Tensor:
    """Share of the variance of x that a linear map of y explains, R².

    Not symmetric. Invariant to orthogonal maps, isotropic scaling and translation of x, to every invertible linear map
    of y. Unrelated representations score d_y / (n - 1) on average. In everything else as `mean_cca`, but for x nothing
    is undefined except being constant.

    Source: Kornblith et al. 2019, table 1, R²_LR: |Q_yᵀ x|² / |x|², columns centred.
    """
    return compare_two(x, y, "linear_regression")


@dataclass(frozen=True)
class Basis:
    """The directions in which a centred layer varies, x = u · diag(s) · vᵀ: `u` `(n, r)`, `s` `(r,)`, `v` `(d, r)`."""

    u: Tensor
    s: Tensor
    v: Tensor

    def leading(self, variance: float) -> Tensor:
        """The first columns of `u` that together reach this share of Σ s²."""
        share = self.s.square().cumsum(0) / self.s.square().sum()
        return self.u[:, : int((share < variance - 1e-12).sum()) + 1]


@dataclass(frozen=True)
class Side:
    """One of the two sets of a comparison."""

    layers: Sequence[Layer]
    bases: tuple[Basis, ...]
    variance: float


def prepare(layers: Sequence[Layer], is_kept: bool, variance: float) -> Side:
    """Decomposes every layer once."""
    if not 0 < variance <= 1:
        raise ShapeError("variance", f"is {variance} (need a share in (0, 1])", "pass a share such as 0.99")
    return Side(layers, tuple(basis(layer) for layer in layers), variance)


def undefined(side: Side, name: str, is_x: bool) -> list[str | None]:
    """Why a layer that varies has no similarity, for each layer."""
    if name == "linear_regression" and is_x:
        return [None] * len(side.layers)
    n = len(side.layers[0].values)
    ranks = [each.leading(side.variance).shape[1] if name == "svcca" else len(each.s) for each in side.bases]
    return [f"varies in {rank} directions over {n} images: any other fits it perfectly" if rank >= n - 1 else None
            for rank in ranks]  # fmt: skip


def compare(left: Side, right: Side, names: Sequence[str]) -> dict[str, Tensor]:
    """The named measures of all pairs, `(len(xs), len(ys))` float64."""
    rows = [[_pair(x, y, left.variance, names) for y in right.bases] for x in left.bases]
    return {name: torch.tensor([[pair[name] for pair in row] for row in rows], dtype=torch.float64) for name in names}


def permuted(side: Side, order: Tensor) -> Side:
    """The side with its images in another order: image i is what `order[i]` was."""
    return replace(side, bases=tuple(replace(each, u=each.u[order]) for each in side.bases))


def null(left: Side, right: Side, name: str) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation over all orders of y's images, `(L, M)` each; None where no formula is known."""
    if name not in ("mean_squared_cca", "linear_regression"):
        return None
    x, y = (_projections(side.bases, left) for side in (left, right))
    if name == "linear_regression":  # of the Gram matrix of x with the projection onto y
        u = [each.u.square() @ each.s.square() for each in left.bases]
        x = Symmetric(
            torch.stack([q.sum() for q in u]),
            torch.stack([each.s.pow(4).sum() for each in left.bases]),
            torch.stack([q.square().sum() for q in u]),
        )
    mean, sd = permutation_moments(x, y, len(left.layers[0].values), normalise=False)
    scale = (
        x.trace[:, None].expand_as(mean) if name == "linear_regression" else torch.minimum(x.trace[:, None], y.trace)
    )
    return mean / scale, sd / scale


def _projections(bases: Sequence[Basis], left: Side) -> Symmetric:
    """What permutations need of the projections u uᵀ."""
    leverages = [each.u.square().sum(dim=1).to(left.layers[0].values.device) for each in bases]
    ranks = torch.stack([each.sum() for each in leverages])
    return Symmetric(ranks, ranks, torch.stack([each.square().sum() for each in leverages]))


def basis(layer: Layer) -> Basis:
    """The directions in which a layer varies by more than the rounding of the type it came in."""
    n, d = layer.values.shape
    x = torch.zeros(n, d, dtype=torch.float64, device=layer.values.device)
    power = 1.0
    if not layer.constancy:
        x, power = centre_exactly(layer, x)
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    stored = layer.values.dtype if layer.values.is_floating_point() else torch.float64
    # half a rounding of each column's level in every row: what the direction would have if the layer did not vary in it
    noise = torch.linalg.vector_norm(vh * (layer.level * power), dim=1) * torch.finfo(stored).eps / 2 * math.sqrt(n)
    kept = s > torch.maximum(noise, torch.finfo(torch.float64).eps * max(n, d) * s[0])
    return Basis(u[:, kept], s[kept], vh[kept].T)


def _pair(x: Basis, y: Basis, variance: float, names: Sequence[str]) -> dict[str, float]:
    """The named measures of one pair; NaN where a side has no directions."""
    if not len(x.s) or not len(y.s):
        return dict.fromkeys(names, math.nan)
    y_u = y.u.to(x.u.device)
    both = x.u.T @ y_u
    found: dict[str, float] = {}
    if "mean_squared_cca" in names:
        found["mean_squared_cca"] = both.square().sum().item() / min(both.shape)
    if "linear_regression" in names:
        found["linear_regression"] = ((both * x.s[:, None]).square().sum() / x.s.square().sum()).item()
    if "svcca" in names:
        found["svcca"] = _correlations(x.leading(variance).T @ y.leading(variance).to(x.u.device)).mean().item()
    if "pwcca" in names:
        correlations, variables = _canonical_variables(both)
        weights = (x.v * x.s @ variables).abs().sum(dim=0)  # |xᵀ h| over the features of x, for every variable h
        found["pwcca"] = (weights @ correlations / weights.sum()).item()
    if "mean_cca" in names:
        found["mean_cca"] = _correlations(both).mean().item()
    return found


def _correlations(both: Tensor) -> Tensor:
    """Canonical correlations: the singular values of the product of two orthonormal bases, `(min(r_x, r_y),)`."""
    return torch.linalg.svdvals(both).clamp(max=1)


def _canonical_variables(both: Tensor) -> tuple[Tensor, Tensor]:
    """Canonical correlations and the variables of x in the basis of x, as columns.

    From the eigenvectors of the square, in half the time of a singular value decomposition: a correlation of zero may
    come out as 1e-8, which is as much as it adds to the mean.
    """
    squares, u = torch.linalg.eigh(both @ both.T)
    n_pairs = min(both.shape)
    return squares[-n_pairs:].clamp(0, 1).sqrt(), u[:, -n_pairs:]
