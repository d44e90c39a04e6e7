"""How close positive pairs lie on the unit sphere, and how evenly all images cover it; knows no model."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from engine.errors import ShapeError
from engine.measures.check import as_layer, check_same_rows
from engine.measures.directions import as_directions

# Pairs held at a time: 32 MB in float64.
_CHUNK_VALUES = 2**22


@torch.no_grad()
def alignment(x: Any, positives: Any, alpha: float = 2) -> float:
    """Mean distance between the two views of an image, to the power of alpha.

    Rows are scaled to length one. Invariant to one orthogonal map of both sides and to the length of each row; not to
    translation, nor to a map of one side. A row of zeros has no direction and keeps length zero.

    Args:
        x: `(n, d)` array or tensor, one row an image; computed in float64.
        positives: `(n, d)`, another view of the same images in the same order: another augmentation, or another image
            that should lie close.
        alpha: power of the distance, above 0.
    Returns:
        Value in [0, 2^alpha], lower is better aligned.
    Raises:
        ShapeError: not (n, d), no images, or other numbers of rows or features.
        NonFiniteError: a feature is NaN or infinite.
        ValueError: an alpha that is not above 0 and finite.
    Source: Wang & Isola 2020, section 4.1.1, alignment loss.
    """
    _check_above_zero("alpha", alpha)
    layers = as_layer(x, "x"), as_layer(positives, "positives")
    n = check_same_rows(layers)
    _check_n("x", n, 1)
    width, other_width = (layer.values.shape[1] for layer in layers)
    if other_width != width:
        raise ShapeError(
            "positives",
            f"have {other_width} features (need {width}, as x)",
            "extract both with the same backbone and layer",
        )
    ours, theirs = (as_directions(layer, torch.float64) for layer in layers)
    distances = torch.linalg.vector_norm(ours - theirs.to(ours.device), dim=1)
    return float(distances.pow(alpha).mean())


@torch.no_grad()
def uniformity(x: Any, t: float = 2) -> float:
    """Logarithm of the mean Gaussian potential exp(-t |x_i - x_j|^2) over all pairs of images.

    Rows are scaled to length one; each pair i < j counts once, no image pairs with itself. Invariant to orthogonal
    maps, to the length of each row and to the order of the images; not to translation. A row of zeros has no direction
    and keeps length zero: 1 from every other.

    Args:
        x: `(n, d)` array or tensor, one row an image; computed in float64, in blocks: memory grows with n, not n^2.
        t: how fast the potential falls, above 0.
    Returns:
        Value in [-4 t, 0], lower is more uniform; 0 where all rows have one direction.
    Raises:
        ShapeError: not (n, d), or n < 2.
        NonFiniteError: a feature is NaN or infinite.
        ValueError: a t that is not above 0 and finite.
    Source: Wang & Isola 2020, section 4.1.2, uniformity loss.
    """
    _check_above_zero("t", t)
    layer = as_layer(x, "x")
    n = len(layer.values)
    _check_n("x", n, 2)
    # float64: where the rows share one direction, float32 keeps nothing of 2 - 2 cos
    rows = as_directions(layer, torch.float64)
    size = max(1, _CHUNK_VALUES // n)
    blocks = torch.stack([_log_potential(rows[start:], size, t) for start in range(0, n, size)])
    return float(blocks.logsumexp(dim=0)) - math.log(n * (n - 1) / 2)


def _log_potential(rows: Tensor, size: int, t: float) -> Tensor:
    """Logarithm of the summed potential of the pairs i < j whose i is among the first `size` rows."""
    first = rows[:size]
    squared_norms = rows.square().sum(dim=1)
    squares = squared_norms[: len(first), None] + squared_norms - 2 * (first @ rows.T)
    potential = squares.clamp_(min=0).mul_(-t)
    not_after = torch.ones(len(first), len(first), dtype=torch.bool, device=rows.device).tril_()
    potential[:, : len(first)].masked_fill_(not_after, -torch.inf)
    return potential.flatten().logsumexp(dim=0)


def _check_above_zero(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: is {value} (need a finite number above 0)")


def _check_n(where: str, n: int, least: int) -> None:
    if n < least:
        raise ShapeError(where, f"has {n} images (need {least} or more)", "pass more images")
