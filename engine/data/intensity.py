"""Turns intensities deeper than 8 bits into grey levels; knows no file format and no dataset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.data.options import Window

AUTO_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Decoding:
    """What a user decides about the decoding of images, because no header says it: see `DataOptions`."""

    window: Window | None = None
    frame: int | None = None


AS_STORED = Decoding()


def grey_levels(values: NDArray[np.generic], window: Window) -> NDArray[np.uint8]:
    """Intensities as grey levels: from black at the low end of the window to white at its high end.

    Args:
        values: finite numbers of any shape.
        window: `(low, high)`, low below high; "auto" takes percentiles of these values, or their ends where those are
            equal.
    Returns:
        uint8 of the same shape; 0 everywhere where all values are equal and the window is "auto".
    """
    exact = values.astype(np.float64)
    if window == "auto":
        low, high = np.percentile(exact, AUTO_PERCENTILES)
        if low == high:
            low, high = exact.min(), exact.max()
        if low == high:
            return np.zeros(values.shape, np.uint8)
    else:
        low, high = window
    share = np.clip((exact - low) / (high - low), 0.0, 1.0)
    return np.rint(share * 255.0).astype(np.uint8)
