"""Compares representations pair by pair or all with all, by any measure of the table; owns no formula."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from engine.errors import ShapeError, StudyError
from engine.measures.check import Layer, as_layer, check_same_rows
from engine.measures.table import MEASURES


def heatmap(xs: Iterable[Any], ys: Iterable[Any], measure: str = "linear_cka") -> Tensor:
    """Similarity of every representation of one set with every one of another, the work of a layer done once.

    Args:
        xs: arrays or tensors `(n, d_i)` of real numbers, one row an image; numpy or torch, any device. Widths may
            differ. Means and sums are float64, products float32 unless a layer is float64 or there are few images.
        ys: the same images in the same order. The same object as `xs` costs half.
        measure: a name of `MEASURES`.
    Returns:
        `(len(xs), len(ys))` float64 tensor on the CPU; NaN in the rows and columns of layers for which the measure is
        undefined (`why_undefined` gives the reason).
    Raises:
        StudyError: no such measure.
        ShapeError: a side is empty or not (n, d), row counts differ, or n is too small for the measure.
        NonFiniteError: a value is NaN or infinite.
    """
    return heatmaps(xs, ys, [measure])[measure]


def heatmaps(xs: Iterable[Any], ys: Iterable[Any], measures: Sequence[str]) -> dict[str, Tensor]:
    """As `heatmap`, for several measures: those of one family share their work."""
    left = [as_layer(x, f"xs[{i}]") for i, x in enumerate(xs)]
    right = left if ys is xs else [as_layer(y, f"ys[{i}]") for i, y in enumerate(ys)]
    return _compare(left, right, measures)


def compare_two(x: Any, y: Any, measure: str) -> Tensor:
    """One measure of two representations, as a 0-d float64 tensor on the CPU."""
    return _compare([as_layer(x, "x")], [as_layer(y, "y")], [measure])[measure].squeeze()


def why_undefined(x: Any, measure: str = "linear_cka") -> str | None:
    """Why a measure of this representation is NaN, in words for a screen; None where it is not."""
    layer = as_layer(x, "x")
    alone = [layer]
    if not bool(torch.isnan(_compare(alone, alone, [measure])[measure])):
        return None
    if bool((layer.values == layer.values[0]).all()):
        return "constant over the images"
    if bool(torch.isnan(_compare(alone, alone, ["linear_cka"])["linear_cka"])):
        return "constant over the images, up to rounding"
    return "all images are equally far apart"


@torch.no_grad()
def _compare(xs: Sequence[Layer], ys: Sequence[Layer], measures: Sequence[str]) -> dict[str, Tensor]:
    for side, layers in (("xs", xs), ("ys", ys)):
        if not layers:
            raise ShapeError(side, "has no layers (need at least one)", "pass a list of (n, d) arrays")
    n = check_same_rows([*xs, *ys])
    families: dict[str, list[str]] = {}
    for name in measures:
        if name not in MEASURES:
            near = get_close_matches(name, MEASURES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise StudyError(f"measure {name!r}", f"no such measure{hint}", f"use one of {' '.join(MEASURES)}")
        if n < MEASURES[name].min_n:
            raise ShapeError(
                xs[0].where, f"has {n} images (need {MEASURES[name].min_n} for {name})", "compare more images"
            )
        families.setdefault(MEASURES[name].family, []).append(name)
    maps: dict[str, Tensor] = {}
    for family, names in families.items():
        maps |= import_module(f"engine.measures.{family}").all_pairs(xs, ys, names)
    return {name: maps[name].cpu() for name in measures}
