"""Intervals of means over seeds by the bootstrap, for many columns at once; the same data give the same interval."""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

import numpy as np

from engine.analysis.student import normal_below, normal_quantiles
from engine.analysis.table import Spread

N_RESAMPLES = 2000
LEVEL = 0.95
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
_SEED = 20250307
_CHUNK = 2048  # columns at a time: 16 MB
_TIE = 1e-6  # of the largest deviation: what rounding leaves between a resample and the mean
NOTE = (
    "_low and _high: 95 % interval of the mean over seeds (bootstrap BCa, 2,000 resamples); with few seeds it is too "
    "narrow, and from one there is none"
)


def spreads(values: np.ndarray, *, with_interval: bool = True) -> tuple[Spread, ...]:
    """Mean, sample sd and interval of each column, as `Spread.of` and `mean_interval` give them.

    Args:
        values: `(n, k)`, one row a run; NaN where a run has no value.
    """
    values = np.asarray(values, np.float64)
    is_there = np.isfinite(values)
    counts = is_there.sum(axis=0)
    kept = np.where(is_there, values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = kept.sum(axis=0) / counts
        deviations = np.where(is_there, values - means, 0.0)
        sds = np.sqrt((deviations**2).sum(axis=0) / (counts - 1))
    ends = mean_interval(values) if with_interval else (np.full(len(means), np.nan),) * 2
    columns = zip(means.tolist(), sds.tolist(), counts.tolist(), ends[0].tolist(), ends[1].tolist(), strict=True)
    return tuple(
        Spread(mean if n else None, sd if n > 1 else None, n, _or_none(low), _or_none(high))
        for mean, sd, n, low, high in columns
    )


def mean_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of each column's mean, bias-corrected and accelerated.

    Args:
        values: `(n, k)`, one row a run; NaN where a run has no value, which is then left out of that column.
    Returns:
        `(k,)` low and `(k,)` high, float64; NaN with fewer than two values, both equal to the mean without spread.
    Source: Efron 1987; the acceleration of a mean is its skewness over 6 √n.
    """
    values = np.asarray(values, np.float64)
    low, high = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    is_there = np.isfinite(values)
    for rows in np.unique(is_there.T, axis=0):
        columns = np.flatnonzero((is_there == rows[:, None]).all(axis=0))
        if rows.sum() < 2:
            continue
        for start in range(0, len(columns), _CHUNK):
            part = columns[start : start + _CHUNK]
            low[part], high[part] = _bca(values[np.ix_(rows, part)].T)
    return low, high


def _bca(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of `(k, n)` values; columns without spread keep their mean."""
    values = np.sort(values, axis=1)  # the same interval in whatever order the runs come
    mean = values.mean(axis=1)
    deviations = np.ascontiguousarray(values - mean[:, None])
    scale = np.abs(values).max(axis=1) * 1e-12
    has_spread = np.abs(deviations).max(axis=1) > scale
    low, high = mean.copy(), mean.copy()
    if not has_spread.any():
        return low, high
    deviations = deviations[has_spread]
    largest = np.abs(deviations).max(axis=1, keepdims=True)
    # In units of the largest deviation seven digits are plenty, and sort in half the time; a row a column, too.
    means = (deviations / largest).astype(np.float32) @ _weights(values.shape[1]).T
    means.sort(axis=1)
    # Ties count by half: with few seeds many resamples equal the mean itself.
    below = ((means < -_TIE).sum(axis=1) + (means <= _TIE).sum(axis=1)) / (2 * N_RESAMPLES)
    bias = normal_quantiles(below)
    acceleration = (deviations**3).sum(axis=1) / (6 * (deviations**2).sum(axis=1) ** 1.5)
    for ends, z in ((low, -_Z), (high, _Z)):
        with np.errstate(invalid="ignore", divide="ignore"):
            level = normal_below(bias + (bias + z) / (1 - acceleration * (bias + z)))
        ends[has_spread] += _quantile(means, level) * largest[:, 0]
    return low, high


def _quantile(ordered: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Quantile `levels[i]` of row i, which is sorted; linear between the two nearest."""
    last = ordered.shape[1] - 1
    place = np.nan_to_num(np.clip(levels, 0, 1)) * last
    lower = np.floor(place).astype(int)
    rows = np.arange(len(ordered))
    part = place - lower
    return ordered[rows, lower] * (1 - part) + ordered[rows, np.minimum(lower + 1, last)] * part


@lru_cache(maxsize=8)  # 8 kB a run of the group
def _weights(n: int) -> np.ndarray:
    """`(n_resamples, n)` float32: the share of each value in each resample."""
    return (resample_counts(n, N_RESAMPLES, _SEED) / n).astype(np.float32)


def resample_counts(n: int, n_resamples: int, seed: int) -> np.ndarray:
    """How often each of n things is drawn in each resample, `(n_resamples, n)` float64; the same for the same seed."""
    drawn = np.random.default_rng((seed, n)).integers(0, n, (n_resamples, n))
    places = (drawn + np.arange(n_resamples)[:, None] * n).ravel()
    return np.bincount(places, minlength=n_resamples * n).reshape(n_resamples, n).astype(np.float64)


def _or_none(value: float) -> float | None:
    return None if value != value else value
