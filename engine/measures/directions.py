"""Brings the rows of a representation to length one, without over- or underflow; knows no measure."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.measures.check import Layer, check_finite


def as_directions(layer: Layer, dtype: torch.dtype) -> Tensor:
    """Rows of length one, `(n, d)`; those of zeros stay zeros.

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """
    x = layer.values
    largest = x.to(dtype).abs().amax(dim=1, keepdim=True)
    check_finite(x, largest, layer.where)
    x = x.to(dtype) / torch.where(largest > 0, largest, 1)  # so that no square over- or underflows
    return torch.nn.functional.normalize(x, dim=1)
