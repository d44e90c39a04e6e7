"""Similarity after matching features: by the best rotation (orthogonal Procrustes), or one by one (row cosine)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from engine.measures.check import Layer, as_layer
from engine.measures.gram import centre_exactly
from engine.measures.neighbours import directions
from engine.measures.pairs import compare_two


def procrustes(x: Any, y: Any) -> Tensor:
    """Similarity of two representations after the best rotation of one onto the other.

    Invariant to orthogonal maps, isotropic scaling and translation of either side; not to general invertible maps.
    Unrelated representations score far above 0 unless n is very much larger than d. Its forms as a distance are
    `procrustes_distance` and `procrustes_angle`.

    Args:
        x: `(n, d_x)` array or tensor of real numbers, one row an image.
        y: `(n, d_y)`, the same images in the same order.
    Returns:
        0-d float64 tensor on the CPU, in [0, 1], higher is more alike; NaN where a side is constant over the images.
    Raises:
        ShapeError: not (n, d), the row counts differ, or n < 2.
        NonFiniteError: a value is NaN or infinite.
    Source: Williams et al. 2021 (the cosine of its angular distance); nuclear norm of xᵀy over the Frobenius norms of x
        and y, columns centred.
    """
    return compare_two(x, y, "procrustes")


def procrustes_distance(x: Any, y: Any) -> Tensor:
    """Smallest |x - y Q| over rotations Q, both centred and scaled to norm one; in [0, √2], lower is more alike.

    √(2 - 2s) with s = `procrustes(x, y)`. Source: Ding et al. 2021, whose value is the square of this one.
    """
    return (2 - 2 * procrustes(x, y)).sqrt()


def procrustes_angle(x: Any, y: Any) -> Tensor:
    """Angle between representations, arccos of `procrustes(x, y)`; radians in [0, π/2], lower is more alike; a metric.

    Source: Williams et al. 2021, "Generalized shape metrics on neural representations".
    """
    return procrustes(x, y).acos()


def row_cosine(x: Any, y: Any) -> Tensor:
    """Mean over the images of the cosine between their two representations, features matched one by one.

    Invariant to isotropic scaling of either side by a positive number; not to rotations or translations of one side. It
    asks how far each image moved, so both sides must have the same features.

    Args:
        x: `(n, d)` array or tensor of real numbers, one row an image.
        y: `(n, d)`, the same images in the same order.
    Returns:
        0-d float64 tensor on the CPU, in [-1, 1], higher is more alike; NaN where a side is constant over the images or
        has a row of zeros (`why_undefined` says which).
    Raises:
        ShapeError: not (n, d), other row or feature counts, or n < 2.
        NonFiniteError: a value is NaN or infinite.
    """
    return compare_two(x, y, "row_cosine")


@dataclass
class Side:
    """One of the two sets of a comparison."""

    layers: Sequence[Layer]

    @cached_property
    def shapes(self) -> list[Tensor]:
        """The layers up to a rotation, centred and scaled to norm one, `(n, min(n, d))` float64."""
        return [_shape(layer) for layer in self.layers]

    @cached_property
    def directions(self) -> list[tuple[Tensor, int | None]]:
        """Rows of length one, and the first row of zeros."""
        return [directions(layer) for layer in self.layers]


def prepare(layers: Sequence[Layer], is_kept: bool) -> Side:
    """What a comparison needs of one set of layers."""
    return Side(layers)


def undefined(side: Side, name: str, is_x: bool) -> list[str | None]:
    """Why a layer that varies has no similarity, for each layer."""
    if name == "procrustes":
        return [None] * len(side.layers)
    zeros = [zero for _, zero in side.directions]
    return [None if row is None else f"image {row} has only zeros, which have no cosine" for row in zeros]


def compare(left: Side, right: Side, names: Sequence[str]) -> dict[str, Tensor]:
    """The named measures of all pairs, `(len(xs), len(ys))` float64."""
    maps = {}
    if "procrustes" in names:
        maps["procrustes"] = _all_pairs(_nuclear_norm, left.shapes, right.shapes)
    if "row_cosine" in names:
        maps["row_cosine"] = _all_pairs(
            _mean_product, *([rows for rows, _ in side.directions] for side in (left, right))
        )
    return maps


def resample(left: Side, right: Side, name: str, weights: Tensor) -> Tensor:
    """Row cosine of all pairs in every resample, `(L, M, B)`; weights `(n, B)`."""
    cosines = _all_pairs(lambda x, y: (x * y).sum(dim=1), *([rows for rows, _ in s.directions] for s in (left, right)))
    return cosines @ weights.to(cosines) / len(weights)


def permuted(side: Side, order: Tensor) -> Side:
    """The side with its images in another order: image i is what `order[i]` was."""
    found = Side([as_layer(layer.values[order], layer.where) for layer in side.layers])
    if "shapes" in vars(side):  # what is there need not be made again
        found.__dict__["shapes"] = [x[order] for x in side.shapes]
    if "directions" in vars(side):
        found.__dict__["directions"] = [
            (rows[order], None if zero is None else int((order == zero).nonzero())) for rows, zero in side.directions
        ]
    return found


def null(left: Side, right: Side, name: str) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of row cosine over all orders of y's images, `(L, M)`; None for Procrustes."""
    if name == "procrustes":
        return None
    n = len(left.layers[0].values)
    means, centred = zip(*(_mean_and_rest(side, left) for side in (left, right)), strict=True)
    mean = torch.stack(means[0]) @ torch.stack(means[1]).T
    # of a sum of C_i,p(i): the squares of C without its row and column means, over n - 1
    squares = _all_pairs(lambda x, y: (x * y).sum(), *([rows.T @ rows for rows in side] for side in centred))
    return mean, (squares / (n - 1)).sqrt() / n


def _mean_and_rest(side: Side, left: Side) -> tuple[list[Tensor], list[Tensor]]:
    """The mean of the unit rows of every layer, and the rows without it."""
    device = left.layers[0].values.device
    rows = [rows.to(device) for rows, _ in side.directions]
    return [x.mean(dim=0) for x in rows], [x - x.mean(dim=0) for x in rows]


def _shape(layer: Layer) -> Tensor:
    n, d = layer.values.shape
    x = torch.zeros(n, d, dtype=torch.float64, device=layer.values.device)
    if layer.constancy:
        return x
    x, _ = centre_exactly(layer, x)
    if d > n:  # rotated into n features, which changes no product with another layer's rotation
        x = torch.linalg.qr(x.T, mode="r").R.T
    return x / torch.linalg.vector_norm(x)


def _nuclear_norm(x: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.svdvals(x.T @ y).sum().clamp(max=1)


def _mean_product(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum() / len(x)


def _all_pairs(function: Any, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
    return torch.stack([torch.stack([function(x, y.to(x.device)) for y in ys]) for x in xs])
