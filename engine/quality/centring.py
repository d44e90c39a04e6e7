"""Brings features to mean zero and a size of about one, in float64, without over- or underflow; knows no metric."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.measures.check import Layer, constant_columns


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
    low, high = layer.bounds
    power = layer.power_of_two_to_one
    is_constant = constant_columns(low, high, layer.dtype)
    without_mean = Centring(low, torch.zeros_like(low), power, is_constant)
    return Centring(low, without_mean.apply(layer.values).mean(dim=0), power, is_constant)
