"""Centres layers and takes the inner products of their Gram matrices, in tiles; knows no measure and no caller."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from engine.measures.check import Layer
from engine.measures.precision import full_precision

# Rows of the largest and of the smallest tile. 512 run at the peak of the product, in 25 MB for 24 layers; 128 waste
# less on the diagonal, whose tiles are computed whole.
TILE, SMALLEST_TILE = 512, 128
_FEW_IMAGES = 256
# Most memory for the Gram tiles of one set that is compared again and again: 12 layers of 4,096 images fit.
_KEPT_BYTES = 2**29


@dataclass
class Centred:
    """Layers ready for products, and what a next comparison with the same layers need not compute again.

    Attributes:
        stacks: the features, `(l, n, d)`, neighbours of equal width in one stack; columns have mean zero, rows a mean
            squared norm of one. A layer that is constant over the images is all zeros.
        q: squared row norms `(L, n)`, float64.
        is_kept: whether more comparisons will come, so that Gram tiles are worth their memory.
        own: squared norms of the Gram matrices, `(L,)` float64, once they are known.
        tiles: Gram tiles `(L, rows, columns)` that are kept, by their first row and column.
    """

    stacks: tuple[Tensor, ...]
    q: Tensor
    is_kept: bool = False
    own: Tensor | None = None
    tiles: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    @property
    def layers(self) -> list[Tensor]:
        """The features of each layer, `(n, d)`."""
        return [layer for stack in self.stacks for layer in stack]

    @property
    def widths(self) -> list[int]:
        """The number of features of each layer."""
        return [stack.shape[2] for stack in self.stacks for _ in stack]

    @property
    def keeps_tiles(self) -> bool:
        """Whether more comparisons will come and the tiles fit into the memory that is meant for them."""
        n_layers, n = self.q.shape
        n_bytes = n_layers * n * (n + SMALLEST_TILE) // 2 * self.stacks[0].itemsize
        return self.is_kept and n_bytes <= _KEPT_BYTES

    def write_tile(self, rows: slice, columns: slice, out: Tensor) -> None:
        """Writes this tile of every Gram matrix into `out`, `(L, rows, columns)`."""
        place = (rows.start, columns.start)
        if place in self.tiles:
            out.copy_(self.tiles[place])
            return
        start = 0
        for stack in self.stacks:
            torch.bmm(stack[:, rows], stack[:, columns].transpose(1, 2), out=out[start : start + len(stack)])
            start += len(stack)
        if self.keeps_tiles:
            self.tiles[place] = out.clone()


@dataclass(frozen=True)
class Products:
    """Inner products of Gram matrices: of each layer with itself, `left` `(L,)` and `right` `(M,)`, and of all pairs,
    `cross` `(L, M)`; float64."""

    left: Tensor
    cross: Tensor
    right: Tensor


def type_for(layers: Sequence[Layer]) -> torch.dtype:
    """float64 where a layer is, and for few images: float32 leaves an error of 1e-8 in what debiasing keeps, n / d."""
    in_float64 = len(layers[0].values) <= _FEW_IMAGES or any(layer.dtype == torch.float64 for layer in layers)
    return torch.float64 if in_float64 else torch.float32


def centre_all(layers: Sequence[Layer], dtype: torch.dtype, device: torch.device, is_kept: bool = False) -> Centred:
    """Centres every layer, with means in float64, in the type to compute in.

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """
    n = len(layers[0].values)
    q, stacks = [], []
    for width, run in groupby(layers, key=lambda layer: layer.values.shape[1]):
        members = list(run)
        stack = torch.empty(len(members), n, width, dtype=dtype, device=device)
        q += [_centre(layer, out) for layer, out in zip(members, stack, strict=True)]
        stacks.append(stack)
    return Centred(tuple(stacks), torch.stack(q), is_kept)


def _centre(layer: Layer, out: Tensor) -> Tensor:
    """Writes the centred layer into `out` and returns its squared row norms."""
    if layer.constancy:
        return out.zero_()[:, 0].double()
    if out.dtype == torch.float32 and layer.has_moderate_spread:
        _centre_in_float32(layer, out)
    else:
        out.copy_(centre_exactly(layer, torch.empty_like(out, dtype=torch.float64))[0])
    q = torch.linalg.vector_norm(out, dim=1).double().square()
    per_row = len(q) / q.sum()
    out.mul_(per_row.sqrt().to(out))
    return q * per_row


def _centre_in_float32(layer: Layer, out: Tensor) -> None:
    """As `centre_exactly`, many times faster and as exact: x - c has no rounding error where c is near x.

    What the rounded mean leaves behind, some roundings of the column's level, is taken off once more.
    """
    x = layer.values.to(out)
    torch.sub(x, x.mean(dim=0), out=out)
    out -= out.mean(dim=0)


def centre_exactly(layer: Layer, out: Tensor) -> tuple[Tensor, float]:
    """Writes the layer into `out`, float64, times a power of two and with columns of mean zero; returns both."""
    power = layer.power_of_two_to_one
    out.copy_(layer.values).mul_(power)
    out -= (
        layer.bounds[0].to(out.device) * power
    )  # before the mean: a constant column becomes exactly zero, whatever its level
    out -= out.mean(dim=0)
    return out, power


def inner_products(left: Centred, right: Centred) -> Products:
    """Inner products of the Gram matrices, Σ K_i ∘ K_j = |X_iᵀ X_j|²; takes the form with fewer operations."""
    sides = [left] if right is left else [left, right]
    # what is kept counts as known from the start: the form, and with it the last digit, is then that of every call
    unknown = [width for side in sides if side.own is None and not side.is_kept for width in side.widths]
    n_cross = sum(left.widths) * sum(right.widths) / (2 if right is left else 1)
    by_features = 2 * (n_cross + sum(width**2 for width in unknown))
    fresh = sum(sum(side.widths) for side in sides if not side.keeps_tiles)
    by_tiles = left.q.shape[1] * (fresh + sum(len(side.q) for side in sides) ** 2)
    with full_precision(left.q.device):
        return (_by_features if by_features < by_tiles else _by_tiles)(left, right)


def gram_tiles(sides: Sequence[Centred]) -> Iterator[tuple[slice, slice, Tensor]]:
    """The tiles of the upper half of all Gram matrices, `(L, rows, columns)`, the layers of all sides in one.

    A tile is a view of one buffer, L · tile² whatever n is, and holds until the next one is asked for.
    """
    n, n_layers, first = sides[0].q.shape[1], sum(len(side.q) for side in sides), sides[0].stacks[0]
    buffer = torch.empty(n_layers * TILE * TILE, dtype=first.dtype, device=first.device)
    for rows, columns in tile_places(0, n):
        shape = (n_layers, rows.stop - rows.start, columns.stop - columns.start)
        tile = buffer[: math.prod(shape)].view(shape)
        start = 0
        for side in sides:
            side.write_tile(rows, columns, tile[start : start + len(side.q)])
            start += len(side.q)
        yield rows, columns, tile


def tile_places(start: int, stop: int, size: int = TILE) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of tiles that cover the upper half of a square; those on the diagonal are the smallest."""
    for top in range(start, stop, size):
        bottom = min(top + size, stop)
        if size > SMALLEST_TILE:
            yield from tile_places(top, bottom, size // 2)
        else:
            yield slice(top, bottom), slice(top, bottom)
        for left in range(bottom, stop, size):
            yield slice(top, bottom), slice(left, min(left + size, stop))


def _by_tiles(left: Centred, right: Centred) -> Products:
    """Each tile of all Gram matrices in one batched product, then one product of the tiles."""
    sides, n_left = ([left], 0) if right is left else ([left, right], len(left.q))
    # the diagonals, in float64: the rest of debiased CKA cancels against them
    total = torch.cat([side.q for side in sides]) @ right.q.T
    own = left.q.square().sum(dim=1)
    is_unknown = left.own is None and right is not left
    for rows, columns, tile in gram_tiles(sides):
        weight = 1 if rows == columns else 2
        if rows == columns:
            tile.diagonal(dim1=1, dim2=2).zero_()
        by_row = tile.transpose(0, 1)
        total += weight * _sum_of_products(by_row, by_row[:, n_left:])
        if is_unknown:  # apart from the rest, which is then the same product whether it is known or not
            own += weight * _sum_of_products(by_row[:, :n_left], by_row[:, :n_left]).diagonal()
    right.own = total[n_left:].diagonal()
    if left.own is None:
        left.own = own if is_unknown else right.own
    return Products(left.own, total[: len(left.q)], right.own)


def _sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """Σ a_i b_iᵀ over the rows i of a tile: float32 adds up the 512 numbers of one row and float64 the rest."""
    return torch.bmm(a, b.transpose(1, 2)).sum(dim=0, dtype=torch.float64)


def _by_features(left: Centred, right: Centred) -> Products:
    """One (d_i, d_j) product a pair: cheaper where there are many more images than features."""
    for side in (left, right):
        if side.own is None:
            side.own = torch.stack([_square_norm(layer.T @ layer) for layer in side.layers])
    assert left.own is not None and right.own is not None
    if right is left:
        cross = torch.diag(left.own)
        for i, x in enumerate(left.layers):
            for j, y in enumerate(left.layers[:i]):
                cross[i, j] = cross[j, i] = _square_norm(x.T @ y)
    else:
        cross = torch.stack([torch.stack([_square_norm(x.T @ y) for y in right.layers]) for x in left.layers])
    return Products(left.own, cross, right.own)


def _square_norm(x: Tensor) -> Tensor:
    """Summed in float64: torch's float32 norm of such a matrix is 2e-5 off."""
    return torch.linalg.vector_norm(x, dtype=torch.float64).square()
