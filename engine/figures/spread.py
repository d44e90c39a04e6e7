"""Draws how one quantity is distributed over the runs of several groups; the densities come from `analysis`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine.analysis.distribution import DENSITY_NOTE, Sample
from engine.figures.style import BLACK, Mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT, _STRIP = 0.5, 0.2
NOTES = (
    "distributions: each dot a run (moved up or down so that dots do not hide each other), the curve above it the "
    "density, each drawn to the same height; black: mean with its 95 % interval (bootstrap BCa, 2,000 resamples; too "
    "narrow with few seeds, none with one)",
    DENSITY_NOTE,
)


def draw_spread(axes: Axes, samples: Sequence[tuple[str, Sample, Mark]]) -> None:
    """One row a group, the first on top: its density, its runs as dots, and its mean with the 95 % interval.

    Args:
        samples: label, values and look of each group.
    """
    for row, (_, sample, mark) in enumerate(reversed(samples)):
        values = np.array(sample.values)
        if sample.density is not None:
            at, high = sample.density.at, sample.density.values / sample.density.values.max() * _HEIGHT
            axes.fill_between(at, row, row + high, color=mark.color, alpha=0.3, linewidth=0)
            axes.plot(at, row + high, color=mark.color, linewidth=0.8)
        axes.plot(
            values, row - 0.08 - _offsets(len(values)), linestyle="", marker=mark.marker, markersize=2.4,
            markerfacecolor=mark.color, markeredgewidth=0, alpha=0.75, gid="runs",
        )  # fmt: skip
        spread = sample.spread
        if spread.mean is not None:
            if spread.low is not None and spread.high is not None:
                axes.plot([spread.low, spread.high], [row, row], color=BLACK, linewidth=1.4, gid="interval")
            axes.plot([spread.mean], [row], color=BLACK, marker="|", markersize=6, markeredgewidth=1.2, gid="mean")
    axes.set_yticks(range(len(samples)), [label for label, _, _ in reversed(samples)])
    axes.set_ylim(-0.4, len(samples) - 1 + _HEIGHT + 0.12)
    axes.tick_params(axis="y", length=0)


def _offsets(n: int) -> np.ndarray:
    """How far below its row each dot lies: spread evenly in an order that looks like none, the same every time."""
    golden = 0.6180339887498949
    return _STRIP * ((np.arange(n) * golden) % 1) if n > 1 else np.zeros(n)
