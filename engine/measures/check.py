"""Turns what a caller hands over into layers that can be compared, or says why not; knows no measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.errors import NonFiniteError, ShapeError

# Columns whose spread is below so many roundings of their level carry no signal: sums of the same numbers taken in
# another order differ by this much.
_ROUNDINGS = 4


@dataclass(frozen=True)
class Layer:
    """One representation, `(n, d)`, one row an image, and the name by which the caller knows it."""

    where: str
    values: Tensor
    first_row: int = 0  # images that came before, where these are a batch

    @property
    def dtype(self) -> torch.dtype:
        """The type to compute in: float32 for what fits into it exactly, else float64."""
        fits = self.values.is_floating_point() and self.values.itemsize <= 4
        return torch.float32 if fits else torch.float64

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of every column, `(d,)` float64.

        Raises:
            NonFiniteError: a value is NaN or infinite.
        """
        low, high = self.values.amin(dim=0), self.values.amax(dim=0)
        check_finite(self.values, torch.stack([low, high]), self.where, self.first_row)
        return low.double(), high.double()

    @property
    def level(self) -> Tensor:
        """Largest magnitude of every column, `(d,)` float64."""
        low, high = self.bounds
        return torch.maximum(low.abs(), high.abs())

    @property
    def has_moderate_spread(self) -> bool:
        """Whether no square of a difference of its values over- or underflows in float32."""
        low, high = self.bounds
        return 1e-15 < float((high / 2 - low / 2).max()) < 1e15

    @property
    def power_of_two_to_one(self) -> float:
        """What brings the spread of its values to about one without rounding, so that no square over- or underflows."""
        low, high = self.bounds
        return power_of_two_below_one(float((high / 2 - low / 2).max()))

    @cached_property
    def constancy(self) -> str | None:
        """Why the layer has no similarity by any measure, in words for a screen; None where it varies."""
        return why_constant(*self.bounds, self.dtype)


def power_of_two_below_one(size: float) -> float:
    """The power of two that brings `size` to [0.5, 1), which costs no digit; the largest there is for tinier ones."""
    return math.ldexp(1.0, -max(math.frexp(size)[1], -1000))


def why_constant(low: Tensor, high: Tensor, dtype: torch.dtype) -> str | None:
    """In which way columns within these bounds are constant, in words for a screen; None where one varies."""
    if bool((low == high).all()):
        return "constant over the images"
    return "constant over the images, up to rounding" if bool(constant_columns(low, high, dtype).all()) else None


def constant_columns(low: Tensor, high: Tensor, dtype: torch.dtype) -> Tensor:
    """Which columns within these bounds, of this type, do not vary, up to rounding, `(d,)`."""
    half_spread = high / 2 - low / 2  # halved: the difference of two finite values may overflow
    return half_spread <= _ROUNDINGS / 2 * torch.finfo(dtype).eps * torch.maximum(low.abs(), high.abs())


def as_tensor(value: Any, where: str) -> Tensor:
    """A tensor of the same real numbers, on the device where they are; copies only where torch cannot share them."""
    if isinstance(value, Tensor):
        tensor = value.detach()
    else:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{where}: has type {array.dtype} (need real numbers)")
        if array.dtype.kind == "f":
            native = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.dtype(np.float64)
        else:
            native = np.dtype(np.int64)
        # torch warns of arrays that it must not write to (memory maps) and refuses steps below zero
        shares = array.dtype == native and array.flags.writeable and array.flags.c_contiguous
        tensor = torch.from_numpy(array if shares else array.astype(native, order="C"))
    if tensor.is_complex():
        raise TypeError(f"{where}: has type {tensor.dtype} (need real numbers)")
    is_float8 = tensor.is_floating_point() and tensor.itemsize == 1  # torch stores it and computes little with it
    return tensor.float() if is_float8 else tensor


def as_layer(value: Any, where: str, first_row: int = 0) -> Layer:
    """A representation of shape `(n, d)`; raises ShapeError where it is not one."""
    if isinstance(value, Layer):
        return value
    tensor = as_tensor(value, where)
    if tensor.ndim != 2 or tensor.shape[1] == 0:
        raise ShapeError(
            where,
            f"has shape {tuple(tensor.shape)} (need (n, d): one row an image, at least one feature)",
            "pool or flatten each image's activations into one row",
        )
    return Layer(where, tensor, first_row)


def check_same_rows(layers: Sequence[Layer]) -> int:
    """The number of images; raises ShapeError where the layers disagree on it."""
    first = layers[0]
    for layer in layers:
        if len(layer.values) != len(first.values):
            raise ShapeError(
                layer.where,
                f"has {len(layer.values)} images (need {len(first.values)}, as {first.where})",
                "compare representations of the same images in the same order",
            )
    return len(first.values)


def check_finite(values: Tensor, extremes: Tensor, where: str, first_row: int = 0) -> None:
    """Raises NonFiniteError, which names the first row, unless every value of the `(n, d)` matrix is finite.

    `extremes`, its smallest and largest values, carry every NaN and infinity, and the callers need them anyway.
    """
    if torch.isfinite(extremes).all():
        return
    bad = ~torch.isfinite(values)
    row = first_row + int(bad.any(dim=1).nonzero()[0])
    raise NonFiniteError(
        where,
        f"{int(bad.sum())} of {bad.numel()} values are not finite, the first at image {row}",
        "look at that image and at the weights that produced it, or leave the layer out",
    )
