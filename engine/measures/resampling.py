"""HSICs of all pairs of layers for many weightings of the images at once; knows neither intervals nor callers.

A bootstrap resample is a weight for every image: how often it was drawn. Nothing is computed once a resample: the
products of the Gram matrices of all pairs meet the products of the weights of all resamples in one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.measures.precision import full_precision

_ROWS = 4  # rows of a tile whose weights are multiplied out at a time: 8 MB for 1,000 resamples
_RESAMPLES = 128  # resamples whose n weighted row sums are held at a time

Tiles = Callable[[], Iterator[tuple[slice, slice, Tensor]]]


@dataclass(frozen=True)
class Kernels:
    """Symmetric kernel matrices of `L` layers, never whole.

    Attributes:
        tiles: yields the tiles of the upper half, `(L, rows, columns)`.
        diagonal: `(L, n)` float64.
        times: the kernels times `(n, b)`, `(L, n, b)`.
    """

    tiles: Tiles
    diagonal: Tensor
    times: Callable[[Tensor], Tensor]


def draw_weights(n: int, n_resamples: int, seed: int) -> Tensor:
    """How often each of `n` images is drawn in each resample of size n, `(n, n_resamples)` float64."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n, (n, n_resamples), generator=generator)
    return torch.zeros(n, n_resamples, dtype=torch.float64).scatter_add_(
        0, drawn, torch.ones(1, dtype=torch.float64).expand_as(drawn)
    )


def resampled_cka(kernels: Kernels, n_left: int, weights: Tensor, debiased: bool) -> Tensor:
    """CKA of the first `n_left` kernels with the others in every resample, `(L, M, B)`; NaN where it is undefined."""
    n_layers = len(kernels.diagonal)
    n_right = n_layers - n_left
    own = [(i, i) for i in range(n_layers)]
    cross = [(i, j) for i in range(n_left) for j in range(n_left, n_layers)]
    hsic = weighted_hsic(kernels, torch.tensor([*own, *cross], device=kernels.diagonal.device), weights, debiased)
    length = torch.where(hsic[:n_layers] > 0, hsic[:n_layers], torch.nan).sqrt()
    return hsic[n_layers:].view(n_left, n_right, -1) / (length[:n_left, None] * length[None, n_left:])


def weighted_hsic(kernels: Kernels, pairs: Tensor, weights: Tensor, debiased: bool) -> Tensor:
    """The HSIC of pairs of kernels in every resample, `(P, B)` float64.

    Biased: that of the resample itself. Debiased: the U-statistic of order 4 over distinct images, each image weighted
    by how often it was drawn; an image is never paired with its own copy, which would count as perfect agreement. With
    all weights 1 it is the estimator of Song et al. 2012, eq. 5.

    Args:
        pairs: `(P, 2)` indices of kernels.
        weights: `(n, B)` float64, see `draw_weights`.
    """
    w = weights.to(kernels.diagonal.device)
    n_all, w2 = w.sum(dim=0), w.square()
    if not debiased:
        plain = weighted_products(kernels, pairs, [(w, w)]) + _pair_rows(kernels.diagonal, pairs) @ w2
        sums, inner = _row_sums(kernels, pairs, w, lambda k, _, v: [(k * v, k)])
        return plain - 2 / n_all * inner + _pair_rows(sums, pairs) / n_all**2
    # the sum over distinct (i, j, q, r) of w_i w_j w_q w_r (K_ij L_ij + K_ij L_qr - 2 K_ij L_iq), with what is not
    # distinct taken out; all that multiplies K_ij L_ij is one weight of the pair (i, j)
    factors = [(w, (n_all**2 - w2.sum(dim=0)) * w - n_all * w2), (w2, 2 * w2 - n_all * w)]
    hollow = Kernels(kernels.tiles, kernels.diagonal, lambda v: kernels.times(v) - kernels.diagonal[:, :, None] * v)

    def terms(k: Tensor, k2: Tensor, v: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(2 * v * k2 - 2 * (v.sum(dim=0) + v) * v * k, k), (2 * v * k, k2)]

    sums, inner = _row_sums(hollow, pairs, w, terms)
    return weighted_products(kernels, pairs, factors) + inner + _pair_rows(sums, pairs)


def weighted_products(kernels: Kernels, pairs: Tensor, factors: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Σ_{i≠j} K_ij L_ij Σ_f a_fi b_fj for every pair of kernels and resample, `(P, B)`; Σ_f is symmetric in (i, j)."""
    n_resamples = factors[0][0].shape[1]
    total = torch.zeros(len(pairs), n_resamples, dtype=torch.float64, device=kernels.diagonal.device)
    typed: list[tuple[Tensor, Tensor]] = []
    scratch = torch.empty(0)
    for rows, columns, tile in kernels.tiles():
        if not typed:
            typed = [(a.to(tile), b.to(tile)) for a, b in factors]
        if rows == columns:
            tile.diagonal(dim1=1, dim2=2).zero_()
        part = torch.zeros(len(pairs), n_resamples, dtype=tile.dtype, device=tile.device)
        for start in range(0, tile.shape[1], _ROWS):
            block = tile[:, start : start + _ROWS].flatten(1)
            at = slice(rows.start + start, min(rows.start + start + _ROWS, rows.stop))
            size = (at.stop - at.start, tile.shape[2], n_resamples)
            if scratch.numel() < size[0] * size[1] * size[2]:
                scratch = tile.new_empty(size).flatten()
            z = scratch[: size[0] * size[1] * size[2]].view(size)
            for f, (a, b) in enumerate(typed):
                left, right = a[at, None], b[None, columns]
                torch.mul(left, right, out=z) if f == 0 else z.addcmul_(left, right)
            with full_precision(tile.device):
                part.addmm_(block[pairs[:, 0]] * block[pairs[:, 1]], z.view(-1, n_resamples))
        total += part if rows == columns else 2 * part
    return total


def _row_sums(
    kernels: Kernels, pairs: Tensor, w: Tensor, terms: Callable[[Tensor, Tensor, Tensor], list[tuple[Tensor, Tensor]]]
) -> tuple[Tensor, Tensor]:
    """wᵀKw of every kernel, `(L, B)`, and Σ_i a_i b_i of every pair over the terms (a, b) of both, `(P, B)`.

    `terms` makes the `(L, n, b)` factors of Kw, Kw² and w.
    """
    sums, inner = [], []
    for start in range(0, w.shape[1], _RESAMPLES):
        v = w[:, start : start + _RESAMPLES]
        with full_precision(w.device):
            k, k2 = kernels.times(torch.cat([v, v.square()], dim=1)).tensor_split(2, dim=2)
            sums.append((k * v).sum(dim=1))
            parts = [torch.bmm(left.permute(2, 0, 1), right.permute(2, 1, 0)) for left, right in terms(k, k2, v)]
        inner.append(torch.stack(parts).sum(dim=0)[:, pairs[:, 0], pairs[:, 1]].T)
    return torch.cat(sums, dim=1), torch.cat(inner, dim=1)


def _pair_rows(values: Tensor, pairs: Tensor) -> Tensor:
    """The products of the rows of every pair."""
    return values[pairs[:, 0]] * values[pairs[:, 1]]
