"""Turns class labels into a tensor, or says why they are none; knows no metric."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.errors import ShapeError
from engine.measures.check import as_tensor


def as_labels(value: Any, where: str, n: int, n_classes: int | None = None) -> Tensor:
    """Labels `(n,)` int64 on the CPU, from 0 and, where it is given, below `n_classes`.

    Raises:
        ShapeError: other shape, not integers, out of range, or n = 0.
    """
    labels = as_tensor(value, where).cpu()
    if labels.is_floating_point() or labels.shape != (n,) or n == 0:
        raise ShapeError(
            where,
            f"has shape {tuple(labels.shape)} and type {labels.dtype} (need integers of shape ({n},), at least one)",
            "pass one class index for each row",
        )
    bad = (labels < 0) | (labels >= (n_classes if n_classes is not None else torch.inf))
    if bad.any():
        row = int(bad.nonzero()[0])
        top = f" to {n_classes - 1}" if n_classes is not None else ""
        raise ShapeError(
            where, f"row {row} is {int(labels[row])} (need a class from 0{top})", "number the classes from 0"
        )
    return labels.long()
