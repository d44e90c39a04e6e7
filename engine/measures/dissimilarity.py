"""Representational similarity analysis: correlates the dissimilarities of all pairs of images; owns ranks and ties."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from engine.errors import ShapeError
from engine.measures.check import Layer
from engine.measures.gram import tile_places
from engine.measures.pairs import compare_two
from engine.measures.precision import full_precision
from engine.measures.resampling import Kernels, weighted_products

# Dissimilarities within this are equal: the rounding of a float64 product of a few thousand features stays below.
_TIE = 2.0**-40
_CHUNK = 2**20  # pairs of images multiplied at a time


def rsa(x: Any, y: Any, correlation: Literal["spearman", "pearson"] = "spearman") -> Tensor:
    """Correlation of the dissimilarities of all pairs of images in one representation with those in another.

    The dissimilarity of two images is 1 - the Pearson correlation of their features. Invariant to isotropic scaling of
    either side and to a constant added to all features alike; not to rotations, nor to a translation by any other
    vector. Holds n²/2 numbers a layer in float64.

    Args:
        x: `(n, d_x)` array or tensor of real numbers, one row an image.
        y: `(n, d_y)`, the same images in the same order.
        correlation: "spearman" of the ranks, equal ones at their mean rank; "pearson" of the dissimilarities.
    Returns:
        0-d float64 tensor on the CPU, in [-1, 1], higher is more alike; NaN where a side is constant over the images,
        has an image whose features are all equal, or has all images equally dissimilar (`why_undefined` says which).
    Raises:
        ShapeError: not (n, d), the row counts differ, n < 3, or another correlation.
        NonFiniteError: a value is NaN or infinite.
    Source: Kriegeskorte et al. 2008; Spearman as Nili et al. 2014 advise where no linear match can be assumed.
    """
    return compare_two(x, y, "rsa", correlation=correlation)


@dataclass(frozen=True)
class Side:
    """One of the two sets of a comparison: `values` `(L, n (n - 1) / 2)`, dissimilarities or ranks, standardised."""

    layers: Sequence[Layer]
    values: Tensor
    reasons: tuple[str | None, ...]


def prepare(layers: Sequence[Layer], is_kept: bool, correlation: str) -> Side:
    """The dissimilarities of every layer, ready to be correlated."""
    if correlation not in ("spearman", "pearson"):
        raise ShapeError("correlation", f'is {correlation!r} (need "spearman" or "pearson")', "correct it")
    n = len(layers[0].values)
    values = torch.empty(len(layers), n * (n - 1) // 2, dtype=torch.float64, device=layers[0].values.device)
    reasons = tuple(_write(layer, correlation, out) for layer, out in zip(layers, values, strict=True))
    return Side(layers, values, reasons)


def undefined(side: Side, name: str, is_x: bool) -> list[str | None]:
    """Why a layer that varies has no similarity, for each layer."""
    return list(side.reasons)


def compare(left: Side, right: Side, names: Sequence[str]) -> dict[str, Tensor]:
    """The correlation of all pairs, `(len(xs), len(ys))` float64."""
    total = torch.zeros(len(left.layers), len(right.layers), dtype=torch.float64, device=left.values.device)
    for start in range(0, left.values.shape[1], _CHUNK):
        part = slice(start, start + _CHUNK)
        total += left.values[:, part] @ right.values[:, part].to(left.values.device).T
    return {"rsa": total.clamp(-1, 1)}


def resample(left: Side, right: Side, name: str, weights: Tensor) -> Tensor:
    """The correlation of all pairs in every resample, `(L, M, B)`; weights `(n, B)`.

    Each pair of different images counts as often as both were drawn; an image is never paired with its own copy. Ranks
    stay those among all images.
    """
    n, n_left, n_right = len(weights), len(left.layers), len(right.layers)
    device = left.values.device
    values = torch.cat([left.values, right.values.to(device)])
    values *= values.shape[1] ** 0.5  # near one, so that weighted sums are well scaled
    one = len(values)

    def tiles() -> Iterator[tuple[slice, slice, Tensor]]:
        index = torch.zeros(n, n, dtype=torch.int64, device=device)
        rows, columns = torch.triu_indices(n, n, 1, device=device)
        index[rows, columns] = index[columns, rows] = torch.arange(len(rows), device=device)
        for at, of in tile_places(0, n):
            tile = values[:, index[at, of]]
            yield at, of, torch.cat([tile, torch.ones_like(tile[:1])])  # a kernel of ones: sums as products with it

    kernels = Kernels(tiles, torch.zeros(one + 1, n, dtype=torch.float64, device=device), lambda v: v)
    cross = [(i, j) for i in range(n_left) for j in range(n_left, one)]
    pairs = [*((i, i) for i in range(one + 1)), *((i, one) for i in range(one)), *cross]
    sums = weighted_products(kernels, torch.tensor(pairs, device=device), [(weights.to(device), weights.to(device))])
    squares, total, means = sums[:one], sums[one], sums[one + 1 : 2 * one + 1] / sums[one]
    length = (squares / total - means.square()).clamp(min=0).sqrt()
    products = sums[2 * one + 1 :].view(n_left, n_right, -1) / total
    return (products - means[:n_left, None] * means[None, n_left:]) / (length[:n_left, None] * length[None, n_left:])


def null(left: Side, right: Side, name: str) -> tuple[Tensor, Tensor]:
    """Mean (zero) and standard deviation of the correlation over all orders of y's images, `(L, M)` each."""
    n = len(left.layers[0].values)
    row_squares = [_row_sums(side.values.to(left.values.device), n).square().sum(dim=1) for side in (left, right)]
    # Mantel 1967; a matrix without diagonal whose entries sum to zero and their squares, both halves, to two
    x, y = row_squares[0][:, None], row_squares[1][None, :]
    variance = 2 * 4 / (n * (n - 1)) + 4 * (x - 2) * (y - 2) / (n * (n - 1) * (n - 2))
    if n > 3:
        variance = variance + (4 - 4 * x) * (4 - 4 * y) / (n * (n - 1) * (n - 2) * (n - 3))
    return torch.zeros_like(variance), variance.clamp(min=0).sqrt() / 2  # the sum over both halves counts pairs twice


def _row_sums(values: Tensor, n: int) -> Tensor:
    """Row sums of the symmetric matrices whose upper half is given, `(L, n)`."""
    rows, columns = torch.triu_indices(n, n, 1, device=values.device)
    sums = torch.zeros(len(values), n, dtype=torch.float64, device=values.device)
    return sums.index_add_(1, rows, values).index_add_(1, columns, values)


def _write(layer: Layer, correlation: str, out: Tensor) -> str | None:
    """Writes the centred dissimilarities or ranks of a layer, of norm one; returns why there are none."""
    out.zero_()
    if layer.constancy:
        return layer.constancy
    low, high = layer.bounds
    x = layer.values.double() / torch.maximum(low.abs().max(), high.abs().max())  # so that no square overflows
    flat = (x.amax(dim=1) == x.amin(dim=1)).nonzero()
    if len(flat):
        return f"the features of image {int(flat[0])} are all equal, which have no correlation"
    x = x - x.mean(dim=1, keepdim=True)
    x = torch.nn.functional.normalize(x / x.abs().amax(dim=1, keepdim=True), dim=1)
    rows, columns = torch.triu_indices(len(x), len(x), 1, device=x.device)
    with full_precision(x.device):
        found = ((1 - x @ x.T)[rows, columns] / _TIE).round()
    if bool((found == found[0]).all()):
        return "all images are equally dissimilar"
    values = _mean_ranks(found) if correlation == "spearman" else found * _TIE
    values -= values.mean()
    out.copy_(values / torch.linalg.vector_norm(values))
    return None


def _mean_ranks(values: Tensor) -> Tensor:
    """Ranks from 0; equal values have the mean of the ranks that they take up together."""
    order = values.argsort()
    _, counts = values[order].unique_consecutive(return_counts=True)
    last = counts.cumsum(0)
    ranks = torch.empty_like(values)
    ranks[order] = (last - (counts + 1) / 2).to(values.dtype).repeat_interleave(counts)
    return ranks
