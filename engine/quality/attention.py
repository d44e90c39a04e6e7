"""How alike two attention maps are: pure functions on numpy arrays; imports no torch."""

from __future__ import annotations

import numpy as np


def map_correlation(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Pearson correlation over the patches of each pair of maps: whether the same places stand out.

    Invariant to positive scaling and to shifting of either side.

    Args:
        before, after: `(..., P)`.
    Returns:
        `(...)` float64 in [-1, 1], higher is more alike; NaN where a map is constant.
    Source: "CC" of Bylinskii et al. 2019.
    """
    x, y = (np.asarray(each, np.float64) for each in (before, after))
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.clip((x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1)), -1.0, 1.0)
    # What is left of a constant map is the rounding of its mean, which has no meaning.
    is_constant = (before.max(-1) == before.min(-1)) | (after.max(-1) == after.min(-1))
    return np.where(is_constant, np.nan, found)


def map_overlap(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Histogram intersection of each pair of maps, each made to sum to 1: the share of attention in the same place.

    Invariant to positive scaling of either side; not to shifting.

    Args:
        before, after: `(..., P)`, not negative.
    Returns:
        `(...)` float64 in [0, 1], 1 where they are equal; NaN where a map is zero everywhere.
    Source: "SIM" of Bylinskii et al. 2019.
    """
    x, y = (np.asarray(each, np.float64) for each in (before, after))
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = (each / each.sum(-1, keepdims=True) for each in (x, y))
        return np.minimum(*shares).sum(-1)
