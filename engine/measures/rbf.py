"""CKA with a Gaussian kernel, biased estimator; owns the bandwidth and the kernel, not the products behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.errors import ShapeError
from engine.measures.check import Layer
from engine.measures.gram import Centred, centre_all, gram_tiles, type_for
from engine.measures.pairs import compare_two
from engine.measures.permutation import Symmetric, permutation_moments
from engine.measures.precision import full_precision
from engine.measures.resampling import Kernels, resampled_cka


def rbf_cka(x: Any, y: Any, threshold: float = 0.5) -> Tensor:
    """Similarity of two representations of the same images by which images are near each other.

    Invariant to orthogonal maps, isotropic scaling and translation of either side; not to general invertible maps. The
    kernel is exp(-|x_i - x_j|² / (2 σ²)) with σ² = threshold² · the median of all n² squared distances, the zeros of
    each image with itself among them. Biased upwards when n is not much larger than d.

    Args:
        x: `(n, d_x)` array or tensor of real numbers, one row an image.
        y: `(n, d_y)`, the same images in the same order.
        threshold: bandwidth as a share of the median distance, above 0.
    Returns:
        0-d float64 tensor on the CPU, in [0, 1] up to rounding, higher is more alike; NaN where a side is constant over
        the images or its median distance is zero (`why_undefined` says which).
    Raises:
        ShapeError: not (n, d), the row counts differ, n < 2, or a threshold that is not above 0.
        NonFiniteError: a value is NaN or infinite.
    Source: Kornblith et al. 2019, eq. 4 and section 4 ("we select the bandwidth σ as a fraction of the median
        distance"), biased estimator.
    """
    return compare_two(x, y, "rbf_cka", threshold=threshold)


@dataclass
class Side:
    """One of the two sets of a comparison: its centred layers and the median squared distance of each, `(L,)`."""

    layers: Sequence[Layer]
    centred: Centred
    medians: Tensor
    threshold: float


def prepare(layers: Sequence[Layer], is_kept: bool, threshold: float) -> Side:
    """Centres every layer and finds its median squared distance."""
    if not threshold > 0:
        raise ShapeError("threshold", f"is {threshold} (need a number above 0)", "pass a share such as 0.5")
    centred = centre_all(layers, type_for(layers), layers[0].values.device)
    with full_precision(centred.q.device):
        medians = [_median(_squared_distances(x, q)) for x, q in zip(centred.layers, centred.q, strict=True)]
    return Side(layers, centred, torch.stack(medians), threshold)


def undefined(side: Side, name: str, is_x: bool) -> list[str | None]:
    """Why a layer that varies has no similarity, for each layer."""
    zero = "half of the images or more are one and the same: the median distance is zero"
    return [zero if each else None for each in (side.medians <= 1e-12).tolist()]


def compare(left: Side, right: Side, names: Sequence[str]) -> dict[str, Tensor]:
    """RBF CKA of all pairs, `(len(xs), len(ys))` float64, tile by tile."""
    hsic = _hsic([left] if right is left else [left, right])[0]
    own = hsic.diagonal().clamp(min=0).sqrt()
    n_left, first_right = len(left.layers), 0 if right is left else len(left.layers)
    return {"rbf_cka": hsic[:n_left, first_right:] / torch.outer(own[:n_left], own[first_right:])}


def resample(left: Side, right: Side, name: str, weights: Tensor) -> Tensor:
    """RBF CKA of all pairs in every resample, `(L, M, B)`, the bandwidths those of all images; weights `(n, B)`."""
    sides = [left, right]
    diagonal = torch.cat([torch.ones_like(side.centred.q) for side in sides]).to(left.centred.q.device)

    def times(v: Tensor) -> Tensor:
        total = torch.zeros(*diagonal.shape, v.shape[1], dtype=torch.float64, device=v.device)
        for rows, columns, tile in _kernel_tiles(sides):
            total[:, rows] += tile @ v[columns].to(tile)
            if rows != columns:
                total[:, columns] += tile.transpose(1, 2) @ v[rows].to(tile)
        return total

    return resampled_cka(Kernels(lambda: _kernel_tiles(sides), diagonal, times), len(left.layers), weights, False)


def null(left: Side, right: Side, name: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of RBF CKA over all orders of y's images, `(L, M)` each."""
    n, found = len(left.layers[0].values), []
    for side in (left, right):
        hsic, sums = _hsic([side])
        diagonal = 1 - 2 / n * sums + sums.sum(dim=1, keepdim=True) / n**2  # of the centred kernel
        found.append(Symmetric(diagonal.sum(dim=1), hsic.diagonal(), diagonal.square().sum(dim=1)))
    return permutation_moments(found[0], found[1], n)


def _hsic(sides: Sequence[Side]) -> tuple[Tensor, Tensor]:
    """The biased HSIC of every pair of layers of all sides, `(L, L)`, and the row sums of their kernels, `(L, n)`."""
    n_layers, n = sum(len(side.layers) for side in sides), len(sides[0].layers[0].values)
    total = torch.zeros(n_layers, n_layers, dtype=torch.float64, device=sides[0].centred.q.device)
    sums = torch.zeros(n_layers, n, dtype=torch.float64, device=total.device)
    for rows, columns, kernel in _kernel_tiles(sides):
        if rows != columns:
            sums[:, columns] += kernel.sum(dim=1, dtype=torch.float64)
        sums[:, rows] += kernel.sum(dim=2, dtype=torch.float64)
        by_row = kernel.transpose(0, 1)
        part = torch.bmm(by_row, by_row.transpose(1, 2)).sum(dim=0, dtype=torch.float64)
        total += part if rows == columns else 2 * part
    whole = sums.sum(dim=1)
    return total - 2 / n * (sums @ sums.T) + torch.outer(whole, whole) / n**2, sums


def _kernel_tiles(sides: Sequence[Side]) -> Iterator[tuple[slice, slice, Tensor]]:
    """The tiles of the upper half of all kernels, the layers of all sides in one; see `gram_tiles`."""
    device = sides[0].centred.q.device
    dtype = sides[0].centred.stacks[0].dtype
    for side in sides[1:]:
        dtype = torch.promote_types(dtype, side.centred.stacks[0].dtype)
    centred = [_converted(side.centred, dtype, device) for side in sides]
    q = torch.cat([each.q for each in centred]).to(dtype)
    widths = torch.cat([2 * side.threshold**2 * side.medians.to(device).clamp(min=1e-300) for side in sides])
    for rows, columns, tile in gram_tiles(centred):
        tile.mul_(-2).add_(q[:, rows, None]).add_(q[:, None, columns]).clamp_(min=0)
        if rows == columns:
            tile.diagonal(dim1=1, dim2=2).zero_()
        yield rows, columns, tile.div_(-widths.to(dtype)[:, None, None]).exp_()


def _squared_distances(x: Tensor, q: Tensor) -> Tensor:
    """All n² squared distances of one layer's rows."""
    gram = x @ x.T
    gram.mul_(-2).add_(q.to(gram)[:, None]).add_(q.to(gram)[None, :]).clamp_(min=0)
    gram.fill_diagonal_(0)
    return gram


def _median(values: Tensor) -> Tensor:
    """The middle value, or the mean of the two middle ones, as numpy's."""
    flat = values.flatten()
    low = flat.kthvalue((len(flat) + 1) // 2).values.double()
    if len(flat) % 2:
        return low
    return (low + flat.kthvalue(len(flat) // 2 + 1).values.double()) / 2


def _converted(centred: Centred, dtype: torch.dtype, device: torch.device) -> Centred:
    return Centred(tuple(stack.to(device, dtype) for stack in centred.stacks), centred.q.to(device))
