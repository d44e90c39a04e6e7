"""Minibatch CKA: unbiased HSICs averaged over batches, then the ratio; owns how images are dealt to batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from engine.errors import ShapeError
from engine.measures.check import Layer
from engine.measures.cka import LEAST_SHARE
from engine.measures.gram import centre_all
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


@dataclass(frozen=True)
class Side:
    """One of the two sets of a comparison: for every batch its rows and the layers `(l, b, d)`, neighbours of one width
    together."""

    layers: Sequence[Layer]
    rows: tuple[Tensor, ...]
    batches: tuple[tuple[Tensor, ...], ...]


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
    """Centres every layer over all images and deals the rows to the batches."""
    n, device = len(layers[0].values), layers[0].values.device
    # the HSIC of a batch is blind to where its centre lies: centring once keeps float32 exact enough
    float64 = any(layer.dtype == torch.float64 for layer in layers) or min(batch_size, n) <= 64
    centred = centre_all(layers, torch.float64 if float64 else torch.float32, device)
    rows = tuple(batch.to(device) for batch in batches_of(n, batch_size, seed))
    return Side(layers, rows, tuple(tuple(stack[:, batch] for stack in centred.stacks) for batch in rows))


def undefined(side: Side, name: str, is_x: bool) -> list[str | None]:
    """Why a layer that varies has no similarity, for each layer."""
    own = compare(side, side, [name])[name].diagonal()
    return [
        "its HSIC with itself is not positive over these batches" if each else None for each in own.isnan().tolist()
    ]


def permuted(side: Side, order: Tensor) -> Side:
    """The side with its images in another order: image i is what `order[i]` was."""
    dealt = torch.cat(side.rows)
    place = torch.empty_like(dealt)
    place[dealt] = torch.arange(len(dealt), device=dealt.device)
    whole = [torch.cat(parts, dim=1) for parts in zip(*side.batches, strict=True)]
    return replace(side, batches=tuple(tuple(stack[:, place[order[rows]]] for stack in whole) for rows in side.rows))


def compare(left: Side, right: Side, names: Sequence[str]) -> dict[str, Tensor]:
    """Minibatch CKA of all pairs, `(len(xs), len(ys))` float64."""
    n_left, first_right = len(left.layers), 0 if right is left else len(left.layers)
    hsics, plain = [], []
    for theirs, ours in zip(left.batches, right.batches, strict=True):
        hsic, square = _batch_hsic(theirs if right is left else (*theirs, *(stack.to(theirs[0]) for stack in ours)))
        hsics.append(hsic)
        plain.append(square)
    total = torch.stack(hsics).sum(dim=0)
    own = total.diagonal()
    own = torch.where(own > LEAST_SHARE * torch.stack(plain).sum(dim=0), own, torch.nan).sqrt()
    return {"minibatch_cka": total[:n_left, first_right:] / torch.outer(own[:n_left], own[first_right:])}


def _batch_hsic(stacks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The unbiased HSIC of every pair of layers over one batch, `(L, L)` (Song et al. 2012, eq. 5), float64.

    Also what the HSIC of each layer with itself would be were nothing taken off it, `(L,)`.
    """
    b = stacks[0].shape[1]
    with full_precision(stacks[0].device):
        grams = torch.cat([torch.bmm(stack, stack.transpose(1, 2)) for stack in stacks])
        plain = torch.linalg.vector_norm(grams, dim=(1, 2)).double().square()
        grams.diagonal(dim1=1, dim2=2).zero_()
        sums = grams.sum(dim=2, dtype=torch.float64)
        shift = sums.sum(dim=1) / ((b - 1) * (b - 2))
        # U-centred, so that the sum of products does not cancel
        grams += (shift[:, None, None] - (sums[:, :, None] + sums[:, None, :]) / (b - 2)).to(grams)
        grams.diagonal(dim1=1, dim2=2).zero_()
        by_row = grams.transpose(0, 1)
        hsic = torch.bmm(by_row, by_row.transpose(1, 2)).sum(dim=0, dtype=torch.float64)
    return hsic / (b * (b - 3)), plain / (b * (b - 3))
