"""Brings features to mean zero and a size of about one, in float64, without over- or underflow; knows no metric."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.measures.check import Layer, check_finite

# Columns whose spread is below so many roundings of their level carry no signal.
_ROUNDINGS = 4


@dataclass(frozen=True)
class Centring:
    """What takes the mean of some rows from these and from others; one entry a feature.

    Attributes:
        low: smallest value, `(d,)` float64.
        mean: mean of what is left without `low`, times `power`, `(d,)` float64.
        power: a power of two that brings the widest feature to a spread of about one.
        is_constant: whether the rows do not differ, up to rounding, `(d,)`.
    """

    low: Tensor
    mean: Tensor
    power: float
    is_constant: Tensor

    def apply(self, values: Tensor) -> Tensor:
        """The rows, centred and scaled, as a new float64 tensor on the device of the centring."""
        # scaled before the difference, which may overflow; without `low` first, the mean would cost a far-off column
        # its last digits, and a constant one would not become exactly zero
        x = values.to(self.low.device, torch.float64) * self.power
        x -= self.low * self.power
        x -= self.mean
        return x


def find_centring(layer: Layer) -> Centring:
    """The centring of a layer's own rows, of which there must be one at least.

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """
    x = layer.values
    low, high = x.amin(dim=0), x.amax(dim=0)
    check_finite(x, torch.stack([low, high]), layer.where)
    low, high = low.double(), high.double()
    half_spread = high / 2 - low / 2  # halved: the difference of two finite values may overflow
    level = torch.maximum(low.abs(), high.abs())
    is_constant = half_spread <= _ROUNDINGS / 2 * torch.finfo(layer.dtype).eps * level
    power = power_of_two_below_one(float(half_spread.max()))
    without_mean = Centring(low, torch.zeros_like(low), power, is_constant)
    return Centring(low, without_mean.apply(x).mean(dim=0), power, is_constant)


def power_of_two_below_one(size: float) -> float:
    """The power of two that brings `size` to [0.5, 1), which costs no digit; the largest there is for tinier ones."""
    return math.ldexp(1.0, -max(math.frexp(size)[1], -1000))
