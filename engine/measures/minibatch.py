"""Minibatch CKA: unbiased HSICs averaged over batches, then the ratio; owns how images are dealt to batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from engine.errors import ShapeError
from engine.measures.check import Layer
from engine.measures.cka import LEAST_SHARE
from engine.measures.pairs import compare_two
from engine.measures.precision import full_precision

MIN_BATCH = 4  # images that the unbiased HSIC needs


def minibatch_cka(x: Any, y: Any, batch_size: int = 256, seed: int | None = 0) -> Tensor:
    """Similarity of two representations of the same images, blind to rotation, from batches of images.

    Invariant to orthogonal maps, isotropic scaling and translation of either side. The value depends on the batches, so
    they are part of it: the images are shuffled by the seed and dealt to the fewest batches of at most `batch_size`;
    their sizes differ by at most one, so that no short last batch is left out or counts like a whole one. One batch is
    `debiased_cka`.

    Args:
        x: `(n, d_x)` array or tensor of real numbers, one row an image.
        y: `(n, d_y)`, the same images in the same order.
        batch_size: largest number of images in a batch, at least 8.
        seed: of the shuffle; None keeps the order.
    Returns:
        0-d float64 tensor on the CPU, in [-1, 1] up to rounding, higher is more alike; NaN where a side is constant
        over the images or its HSIC with itself is not positive (`why_undefined` says which).
    Raises:
        ShapeError: not (n, d), the row counts differ, n < 4, or batch_size < 8.
        NonFiniteError: a value is NaN or infinite.
    Source: Nguyen, Raghu, Kornblith 2021, "Do wide and deep networks learn the same things?", minibatch CKA.
    """
    return compare_two(x, y, "minibatch_cka", batch_size=batch_size, seed=seed)


@dataclass
class Side:
    """One of the two sets of a comparison: the layers and the rows of every batch.

    `own` is the root of each layer's HSIC with itself, NaN where it is not positive, once a comparison has found it.
    """

    layers: Sequence[Layer]
    batches: tuple[Tensor, ...]
    own: Tensor | None = None


def batches_of(n: int, batch_size: int, seed: int | None) -> tuple[Tensor, ...]:
    """The rows of every batch: `n` images in the fewest batches of at most `batch_size`, as even as can be."""
    if batch_size < 2 * MIN_BATCH:
        raise ShapeError(
            "batch_size",
            f"is {batch_size} (need {2 * MIN_BATCH} or more: a batch of under {MIN_BATCH} has no unbiased HSIC)",
            "raise batch_size",
        )
    order = torch.arange(n) if seed is None else torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order.tensor_split(-(-n // batch_size))


def prepare(layers: Sequence[Layer], is_kept: bool, batch_size: int, seed: int | None) -> Side:
    """Deals the images to the batches; their products are taken when two sides meet, and held for one batch only."""
    return Side(layers, batches_of(len(layers[0].values), batch_size, seed))


def undefined(side: Side, name: str, is_x: bool) -> list[str | None]:
    """Why a layer that varies has no similarity, for each layer."""
    if side.own is None:
        compare(side, side, [name])
    assert side.own is not None
    why = "its HSIC with itself is not positive over these batches"
    return [why if each else None for each in side.own.isnan().tolist()]


def permuted(side: Side, order: Tensor) -> Side:
    """The side with its images in another order: image i is what `order[i]` was."""
    return replace(side, batches=tuple(order[rows.to(order.device)] for rows in side.batches))


def compare(left: Side, right: Side, names: Sequence[str]) -> dict[str, Tensor]:
    """Minibatch CKA of all pairs, `(len(xs), len(ys))` float64."""
    sides = [left] if right is left else [left, right]
    layers = [layer for side in sides for layer in side.layers]
    device = layers[0].values.device
    in_float64 = len(left.batches[0]) <= 64 or any(layer.dtype == torch.float64 for layer in layers)
    dtype = torch.float64 if in_float64 else torch.float32
    total = torch.zeros(len(layers), len(layers), dtype=torch.float64, device=device)
    plain = torch.zeros(len(layers), dtype=torch.float64, device=device)
    buffers: dict[tuple[int, int], Tensor] = {}
    for batches in zip(*(side.batches for side in sides), strict=True):
        grams = torch.empty(len(layers), len(batches[0]), len(batches[0]), dtype=dtype, device=device)
        rows_of = [rows for side, rows in zip(sides, batches, strict=True) for _ in side.layers]
        start = 0
        with full_precision(device):
            for _, run in groupby(zip(layers, rows_of, strict=True), key=lambda each: each[0].values.shape[1]):
                x = _centred_batch(list(run), dtype, device, buffers)
                torch.bmm(x, x.transpose(1, 2), out=grams[start : start + len(x)])
                start += len(x)
            hsic, square = _batch_hsic(grams)
        total += hsic
        plain += square
    own = torch.where(total.diagonal() > LEAST_SHARE * plain, total.diagonal(), torch.nan).sqrt()
    n_left, first_right = len(left.layers), 0 if right is left else len(left.layers)
    left.own, right.own = own[:n_left], own[first_right:]
    return {"minibatch_cka": total[:n_left, first_right:] / torch.outer(left.own, right.own)}


def _centred_batch(
    members: Sequence[tuple[Layer, Tensor]],
    dtype: torch.dtype,
    device: torch.device,
    buffers: dict[tuple[int, int], Tensor],
) -> Tensor:
    """The rows of one batch of neighbouring layers of one width, `(l, b, d)`, columns of mean zero.

    Written into a buffer of that shape, which the next batch uses again: fresh memory costs more than the sums.
    """
    (first, rows), n_layers = members[0], len(members)
    shape = (n_layers, len(rows), first.values.shape[1])
    key = (shape[0] * shape[1], shape[2])
    x = buffers.setdefault(key, torch.empty(shape, dtype=dtype, device=device))
    for (layer, of), out in zip(members, x, strict=True):
        of = of.to(layer.values.device)
        if layer.values.dtype == dtype and layer.values.device == device:
            torch.index_select(layer.values, 0, of, out=out)
        else:
            out.copy_(layer.values[of])
        if not layer.has_moderate_spread:
            out.sub_(layer.bounds[0].to(out)).mul_(layer.power_of_two_to_one)
    # twice: what the rounded mean leaves behind, some roundings of the column's level, is taken off once more
    for _ in range(2):
        x -= x.mean(dim=1, keepdim=True)
    return x


def _batch_hsic(grams: Tensor) -> tuple[Tensor, Tensor]:
    """The unbiased HSIC of every pair of centred Gram matrices `(L, b, b)` (Song et al. 2012, eq. 5), `(L, L)` float64.

    Also what that of each with itself would be were nothing taken off it, `(L,)`. Overwrites the diagonals.
    """
    b = grams.shape[1]
    diagonal = grams.diagonal(dim1=1, dim2=2)
    q = diagonal.to(torch.float64, copy=True)
    diagonal.zero_()
    by_row = grams.transpose(0, 1)
    products = torch.bmm(by_row, by_row.transpose(1, 2)).sum(dim=0, dtype=torch.float64)
    norms, q_products = q.sum(dim=1), q @ q.T
    # rows of a centred Gram matrix sum to zero, so that without the diagonal they sum to its negative
    hsic = products - 2 / (b - 2) * q_products + torch.outer(norms, norms) / ((b - 1) * (b - 2))
    return hsic / (b * (b - 3)), (products + q_products).diagonal() / (b * (b - 3))
