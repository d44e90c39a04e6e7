"""How two quantities go together: Pearson, Spearman and a straight line, with intervals; pure functions of arrays.

Points of one run are not independent draws. Where a run gives several, intervals come from drawing whole runs anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from engine.analysis.bootstrap import resample_counts

N_RESAMPLES = 2000
_LEVEL = 0.95
_SEED = 20250307
MIN_POINTS = 3


@dataclass(frozen=True)
class Coefficient:
    """A correlation in [-1, 1] with its 95 % interval and two-sided p; None for what is undefined or not given."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Line:
    """A least-squares line; `r_squared` is the share of the variance of y that it explains."""

    slope: float
    intercept: float
    r_squared: float

    def at(self, x: float) -> float:
        """Its height at x."""
        return self.intercept + self.slope * x


@dataclass(frozen=True)
class Association:
    """What two quantities have to do with each other over n points of some runs; `why` says what is undefined."""

    n_points: int
    n_runs: int
    pearson: Coefficient = Coefficient()
    spearman: Coefficient = Coefficient()
    line: Line | None = None
    why: str = ""


def associate(x: np.ndarray, y: np.ndarray, runs: np.ndarray, n_groups: int = 1) -> Association:
    """Pearson, Spearman and the least-squares line of y on x.

    Invariant to shifting and scaling of either side; Spearman to any rising map.

    Args:
        x, y: `(n,)` float64, without NaN.
        runs: `(n,)` integers: which run each point belongs to.
        n_groups: how many means were taken out of x and y before, which costs as many degrees of freedom.
    Returns:
        Intervals and p by Fisher's z (Spearman: with the variance of Bonett & Wright 2000) where each run gives one
        point; where runs give several, intervals by a bootstrap of whole runs (percentiles) and no p.
    """
    n, names = len(x), np.unique(runs)
    if n < MIN_POINTS:
        return Association(n, len(names), why=f"{n} points; 3 are the fewest that a correlation can be of")
    for what, values in (("similarity", x), ("metric", y)):
        if _is_constant(values):
            return Association(n, len(names), why=f"the {what} is the same at all {n} points")
    ranks = _ranks(x), _ranks(y)
    r, rho = _pearson(x, y), _pearson(*ranks)
    if len(names) == n:
        pearson, spearman = _by_fisher(r, n, n_groups), _by_fisher(rho, n, n_groups, is_ranked=True)
    else:
        pearson, spearman = _by_bootstrap(r, x, y, runs), _by_bootstrap(rho, *ranks, runs)
    return Association(n, len(names), pearson, spearman, fit(x, y))


def fit(x: np.ndarray, y: np.ndarray) -> Line | None:
    """The least-squares line of y on x; None where x is constant or there are fewer than 2 points.

    `r_squared` is 1 where y is constant: a level line explains everything.
    """
    if len(x) < 2 or _is_constant(x):
        return None
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    r_squared = 1.0 if _is_constant(y) else _pearson(x, y) ** 2
    return Line(slope, float(y.mean() - slope * x.mean()), r_squared)


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    dx, dy = x - x.mean(), y - y.mean()
    return float(np.clip(dx @ dy / math.sqrt((dx @ dx) * (dy @ dy)), -1.0, 1.0))


def _by_fisher(value: float, n: int, n_groups: int, *, is_ranked: bool = False) -> Coefficient:
    """Source: Fisher 1921; Bonett & Wright 2000, eq. 6 for ranks; a mean taken out is a variable held fixed."""
    free = n - (n_groups - 1)
    if free <= 3:
        return Coefficient(value)
    from scipy.special import ndtri, stdtr  # here: an app that shows no correlation need not wait for it

    variance = (1 + value**2 / 2 * is_ranked) / (free - 3)
    half = float(ndtri((1 + _LEVEL) / 2)) * math.sqrt(variance)
    if abs(value) >= 1 - 1e-12:
        return Coefficient(value, value, value, 0.0)
    z = math.atanh(value)
    t = value * math.sqrt((free - 2) / (1 - value**2))
    return Coefficient(value, math.tanh(z - half), math.tanh(z + half), 2 * float(stdtr(free - 2, -abs(t))))


def _by_bootstrap(value: float, x: np.ndarray, y: np.ndarray, runs: np.ndarray) -> Coefficient:
    """Draws whole runs anew; ranks stay those of all points.

    Every sum of a resample is a sum over its runs, so that one product of matrices makes all resamples.
    """
    names, at = np.unique(runs, return_inverse=True)
    if len(names) < MIN_POINTS:
        return Coefficient(value)
    dx, dy = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    parts = np.stack([np.bincount(at, each) for each in (np.ones_like(dx), dx, dy, dx * dx, dy * dy, dx * dy)], axis=1)
    draws = _draws(len(names))
    n, sx, sy, sxx, syy, sxy = (draws @ parts).T
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (sxy - sx * sy / n) / np.sqrt((sxx - sx * sx / n) * (syy - sy * sy / n))
    found = found[np.isfinite(found)]
    if len(found) < N_RESAMPLES / 2:
        return Coefficient(value)
    low, high = np.quantile(found, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Coefficient(value, float(low), float(high))


@lru_cache(maxsize=16)
def _draws(n_runs: int) -> np.ndarray:
    return resample_counts(n_runs, N_RESAMPLES, _SEED)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; ties share the mean of theirs."""
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: np.ndarray = (last - (counts - 1) / 2)[at]
    return ranks


def _is_constant(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= 1e-9 * max(float(np.abs(values).max()), 1e-30))
