"""Overlap of nearest neighbours; owns how neighbours are found exactly, ties settled by the order of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from engine.errors import ShapeError
from engine.measures.check import Layer
from engine.measures.directions import as_directions
from engine.measures.pairs import compare_two
from engine.measures.precision import full_precision

# Cosines within this are equal: the rounding of a float64 product of a few thousand features stays below.
_TIE = 2.0**-40
# A float32 cosine is off by less: a few dozen roundings, since products add up many partial sums.
_ERROR = 5e-6
_CHUNK_VALUES = 2**24  # similarities held at a time: 64 MB in float32


def mutual_knn(x: Any, y: Any, k: int = 10) -> Tensor:
    """Mean share of an image's k nearest neighbours in one representation that are so in the other too.

    Neighbours are by cosine, an image is not its own; equally near ones are taken in the order of the images. Invariant
    to orthogonal maps and isotropic scaling of either side, not to translation. Unrelated representations score
    k / (n - 1) on average.

    Args:
        x: `(n, d_x)` array or tensor of real numbers, one row an image.
        y: `(n, d_y)`, the same images in the same order.
        k: number of neighbours.
    Returns:
        0-d float64 tensor on the CPU, in [0, 1], higher is more alike; NaN where a side is constant over the images or
        has a row of zeros, which has no cosine (`why_undefined` says which).
    Raises:
        ShapeError: not (n, d), the row counts differ, or n < k + 2.
        NonFiniteError: a value is NaN or infinite.
    Source: Huh et al. 2024, "The Platonic representation hypothesis", mutual nearest-neighbour metric.
    """
    return compare_two(x, y, "mutual_knn", k=k)


def mutual_knn_jaccard(x: Any, y: Any, k: int = 10) -> Tensor:
    """Mean Jaccard index of an image's k nearest neighbours in the two representations: shared over all of both.

    As `mutual_knn` in everything else; for each image, s shared neighbours give s / (2k - s).

    Source: Klabunde et al. 2023, survey of similarity measures, k-NN Jaccard similarity.
    """
    return compare_two(x, y, "mutual_knn_jaccard", k=k)


@dataclass(frozen=True)
class Side:
    """One of the two sets of a comparison: `nearest` `(L, n, k)`, the neighbours of every image in every layer."""

    layers: Sequence[Layer]
    nearest: Tensor
    k: int
    zero_rows: tuple[int | None, ...]


def prepare(layers: Sequence[Layer], is_kept: bool, k: int) -> Side:
    """Finds the neighbours in every layer."""
    n = len(layers[0].values)
    if not 1 <= k <= n - 2:
        raise ShapeError("k", f"is {k} (need 1 to {n - 2}: {n} images)", "lower k or compare more images")
    found = [directions(layer) for layer in layers]
    nearest = torch.stack([nearest_rows(rows, k) for rows, _ in found])
    return Side(layers, nearest.to(layers[0].values.device), k, tuple(zero for _, zero in found))


def undefined(side: Side, name: str, is_x: bool) -> list[str | None]:
    """Why a layer that varies has no similarity, for each layer."""
    return [None if row is None else f"image {row} has only zeros, which have no cosine" for row in side.zero_rows]


def compare(left: Side, right: Side, names: Sequence[str]) -> dict[str, Tensor]:
    """The named measures of all pairs, `(len(xs), len(ys))` float64."""
    return {name: _by_image(left, right, name).mean(dim=2) for name in names}


def resample(left: Side, right: Side, name: str, weights: Tensor) -> Tensor:
    """The named measure of all pairs in every resample, `(L, M, B)`, the neighbours those among all images."""
    values = _by_image(left, right, name)
    return values @ weights.to(values) / len(weights)


def permuted(side: Side, order: Tensor) -> Side:
    """The side with its images in another order: image i is what `order[i]` was."""
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return replace(side, nearest=place[side.nearest[:, order]])


def _by_image(left: Side, right: Side, name: str) -> Tensor:
    """The named measure of each image, `(L, M, n)` float64."""
    shared = _shared_neighbours(left, right)
    return shared / left.k if name == "mutual_knn" else shared / (2 * left.k - shared)


def _shared_neighbours(left: Side, right: Side) -> Tensor:
    """How many neighbours each image has in common, `(L, M, n)` float64."""
    n = left.nearest.shape[1]
    rights = right.nearest.to(left.nearest.device)
    shared = torch.zeros(len(left.nearest), len(rights), n, dtype=torch.float64, device=rights.device)
    member = torch.zeros(n, n, dtype=torch.bool, device=rights.device)
    for j, theirs in enumerate(rights):
        member.zero_().scatter_(1, theirs, True)
        for i, ours in enumerate(left.nearest):
            shared[i, j] = member.gather(1, ours).sum(dim=1)
    return shared


def directions(layer: Layer) -> tuple[Tensor, int | None]:
    """Rows of length one in float64, and the first row that has none (it stays zero)."""
    rows = as_directions(layer, torch.float64)
    zero = (rows == 0).all(dim=1)
    return rows, int(zero.nonzero()[0]) if bool(zero.any()) else None


def nearest_rows(rows: Tensor, k: int) -> Tensor:
    """The k nearest other rows of every row by cosine, `(n, k)` int64: those of float64 at the speed of float32.

    Only the set counts, so a row is looked at in float64 just where float32 cannot tell the k-th from the next.
    """
    low, size = rows.float(), max(1, _CHUNK_VALUES // len(rows))
    found = torch.empty(len(rows), k, dtype=torch.int64, device=rows.device)
    for start in range(0, len(rows), size):
        with full_precision(rows.device):
            cosines = low[start : start + size] @ low.T
        cosines.diagonal(start).fill_(-torch.inf)
        best = cosines.topk(k + 1, dim=1)
        found[start : start + size] = best.indices[:, :k]
        unsure = (best.values[:, k - 1] - best.values[:, k] < 2 * _ERROR).nonzero().squeeze(1) + start
        for part in unsure.split(size):
            exact = rows[part] @ rows.T
            exact[torch.arange(len(part), device=part.device), part] = -torch.inf
            found[part] = _first_k(exact, k)
    return found


def _first_k(cosines: Tensor, k: int) -> Tensor:
    """Columns of the k largest values of every row; equal ones in the order of the columns."""
    rounded = (cosines / _TIE).round()  # of minus infinity it is minus infinity
    return rounded.sort(dim=1, descending=True, stable=True).indices[:, :k]
