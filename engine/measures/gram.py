"""Centres layers and takes the inner products of their Gram matrices, in tiles; knows no measure and no caller."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from engine.measures.check import Layer, check_finite
from engine.measures.precision import full_precision

# Rows of a tile. 256 to 512 run at the peak of the product; the smaller one wastes less on the diagonal, whose tiles
# are computed whole, and 24 of them take 6 MB.
_TILE = 256
# Columns whose spread is below so many roundings of their level carry no signal: sums of the same numbers taken in
# another order differ by this much.
_ROUNDINGS = 4


@dataclass(frozen=True)
class Centred:
    """Layers ready for products.

    Attributes:
        stacks: the features, `(l, n, d)`, neighbours of equal width in one stack; columns have mean zero, rows a mean
            squared norm of one. A layer that is constant over the images is all zeros.
        q: squared row norms `(L, n)`, float64.
    """

    stacks: tuple[Tensor, ...]
    q: Tensor


def centre_all(layers: Sequence[Layer]) -> Centred:
    """Centres every layer in float64, then rounds it to the type to compute in, on the device of the first layer.

    That is float64 for few images too: float32 products leave an error of 1e-8 in what debiasing keeps, n / d.

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """
    device, n = layers[0].values.device, len(layers[0].values)
    in_float64 = n <= _TILE or any(layer.dtype == torch.float64 for layer in layers)
    dtype = torch.float64 if in_float64 else torch.float32
    q, stacks = [], []
    for width, run in groupby(layers, key=lambda layer: layer.values.shape[1]):
        members = list(run)
        stack = torch.empty(len(members), n, width, dtype=dtype, device=device)
        # one for all of them: fresh memory costs more than the sums
        scratch = torch.empty(stack.shape[1:], dtype=torch.float64, device=device)
        q += [_centre(layer, out, scratch) for layer, out in zip(members, stack, strict=True)]
        stacks.append(stack)
    return Centred(tuple(stacks), torch.stack(q))


def _centre(layer: Layer, out: Tensor, scratch: Tensor) -> Tensor:
    """Writes the centred layer into `out` and returns its squared row norms."""
    x = layer.values.to(out.device)
    low, high = x.amin(dim=0), x.amax(dim=0)
    check_finite(x, torch.stack([low, high]), layer.where)
    low, high = low.double(), high.double()
    spread = high / 2 - low / 2  # halved: the difference of two finite values may overflow
    level = torch.maximum(low.abs(), high.abs())
    if bool((spread <= _ROUNDINGS / 2 * torch.finfo(layer.dtype).eps * level).all()):
        return out.zero_()[:, 0].double()
    # a power of two brings the spread to about one without rounding, so that no square over- or underflows
    power = math.ldexp(1.0, -max(math.frexp(spread.max().item())[1], -1000))
    x = scratch.copy_(x).mul_(power)
    x -= low * power  # before the mean: a constant column becomes exactly zero, whatever its level
    x -= x.mean(dim=0)
    q = torch.linalg.vector_norm(x, dim=1).square()
    per_row = len(q) / q.sum()
    torch.mul(x, per_row.sqrt(), out=out)
    return q * per_row


def inner_products(centred: Centred, n_left: int, first_right: int) -> Tensor:
    """Inner products of the Gram matrices, `(L, L)` float64: entry (i, j) is Σ K_i ∘ K_j = |X_iᵀ X_j|².

    Takes whichever of the two forms needs fewer operations. The feature form fills in only what a heatmap needs: the
    diagonal, and the pairs of the first `n_left` layers with those from `first_right` on.
    """
    widths = [stack.shape[2] for stack in centred.stacks for _ in stack]
    n_layers = len(widths)
    pairs = [(i, i) for i in range(n_layers)]
    pairs += [(i, j) for i in range(n_left) for j in range(max(i + 1, first_right), n_layers)]
    by_features = 2 * sum(widths[i] * widths[j] for i, j in pairs)
    by_gram_tiles = centred.q.shape[1] * (sum(widths) + n_layers**2)
    with full_precision(centred.q.device):
        return _by_features(centred, pairs) if by_features < by_gram_tiles else _by_gram_tiles(centred)


def _by_gram_tiles(centred: Centred) -> Tensor:
    """Each tile of all Gram matrices in one batched product, then one product of the tiles: L · tile² of memory."""
    first, (n_layers, n) = centred.stacks[0], centred.q.shape
    total = centred.q @ centred.q.T  # the diagonals, in float64: the rest of debiased CKA cancels against them
    buffer = torch.empty(n_layers * _TILE * _TILE, dtype=first.dtype, device=first.device)
    for top in range(0, n, _TILE):
        for left in range(top, n, _TILE):
            height, width = min(_TILE, n - top), min(_TILE, n - left)
            tile = buffer[: n_layers * height * width].view(n_layers, height, width)
            start = 0
            for stack in centred.stacks:
                rows, columns = stack[:, top : top + height], stack[:, left : left + width]
                torch.bmm(rows, columns.transpose(1, 2), out=tile[start : start + len(stack)])
                start += len(stack)
            if left == top:
                tile.diagonal(dim1=1, dim2=2).zero_()
            # one row of the tile at a time, so that float32 adds up 256 numbers and float64 the rest
            by_row = tile.transpose(0, 1)
            part = torch.bmm(by_row, by_row.transpose(1, 2)).sum(dim=0, dtype=torch.float64)
            total += part if left == top else 2 * part
    return total


def _by_features(centred: Centred, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """One (d_i, d_j) product a pair: cheaper where there are many more images than features."""
    layers = [layer for stack in centred.stacks for layer in stack]
    total = torch.zeros(len(layers), len(layers), dtype=torch.float64, device=centred.q.device)
    for i, j in pairs:
        # summed in float64: torch's float32 norm of such a matrix is 2e-5 off
        norm = torch.linalg.vector_norm(layers[i].T @ layers[j], dtype=torch.float64)
        total[i, j] = total[j, i] = norm.square()
    return total
