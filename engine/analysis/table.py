"""Owns the plain table that every analysis returns; knows nothing of where it is shown or written."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """Named columns, rows of cells, and the notes without which a figure could mislead."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def column(self, name: str) -> tuple[Cell, ...]:
        """All cells of one column."""
        index = self.columns.index(name)
        return tuple(row[index] for row in self.rows)


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n − 1) of the values that there are; `sd` is None below two values.

    `low` and `high` bound the 95 % interval of the mean, where it was computed.
    """

    mean: float | None
    sd: float | None
    n: int
    low: float | None = None
    high: float | None = None

    def within(self, low: float, high: float) -> Spread:
        """The same with an interval of the mean; NaN for none."""
        return replace(
            self, low=None if math.isnan(low) else float(low), high=None if math.isnan(high) else float(high)
        )

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread:
        """Leaves out None and NaN; `n` says how many were left."""
        kept = [value for value in values if value is not None and math.isfinite(value)]
        if not kept:
            return cls(None, None, 0)
        mean = math.fsum(kept) / len(kept)
        if len(kept) == 1:
            return cls(mean, None, 1)
        return cls(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in kept) / (len(kept) - 1)), len(kept))
