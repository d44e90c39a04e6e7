"""The tail and the quantile of Student's t, and the two of the normal law for arrays; knows nothing of runs.

Not by scipy: for four functions its `special` loads all of linear algebra and numpy's testing tools, 17 MB of the app's
memory and much of the time until a view of intervals first opens. They agree to 1e-11 of their value.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np

_NORMAL = NormalDist()
_ENOUGH = 1e-15  # relative
_TINY = 1e-300  # in place of a zero denominator (Lentz)
_SERIES_FROM = 200.0
_MAX_STEPS = 100_000  # some √degrees are needed


def t_tail(t: float, degrees: float) -> float:
    """How often Student's t lies beyond |t| on one side, in (0, 0.5]; full relative precision however far out.

    Args:
        degrees: of freedom, above 0.
    Source: half the regularised incomplete beta I(ν/2, 1/2) at ν / (ν + t²); Abramowitz & Stegun 26.5.27.
    """
    half, square = degrees / 2, t * t
    if not math.isfinite(square):
        return math.nan if math.isnan(t) else 0.0
    x, rest = degrees / (degrees + square), square / (degrees + square)
    # x^(ν/2) (1 - x)^(1/2) / B(ν/2, 1/2), from 1 + t²/ν: for small t, x itself is rounded to 1.
    factor = math.exp(-half * math.log1p(square / degrees)) * math.sqrt(rest) * _gamma_ratio(half) / math.sqrt(math.pi)
    if x < (half + 1) / (half + 2.5):
        return 0.5 * factor * _beta_fraction(x, half, 0.5) / half
    return 0.5 - factor * _beta_fraction(rest, 0.5, half)


@lru_cache(maxsize=1024)
def t_quantile(level: float, degrees: float) -> float:
    """What Student's t exceeds in a share `1 - level` of draws.

    Args:
        level: in [0.5, 1).
        degrees: of freedom, above 0.
    """
    # The normal quantile lies below, and the distribution is concave there: Newton's steps rise to the root.
    t, share = _NORMAL.inv_cdf(level), 1 - level
    for _ in range(_MAX_STEPS):
        step = (t_tail(t, degrees) - share) / _t_density(t, degrees)
        t += step
        if abs(step) <= 4 * _ENOUGH * abs(t):
            break
    return t


def _t_density(t: float, degrees: float) -> float:
    half = degrees / 2
    return _gamma_ratio(half) / math.sqrt(degrees * math.pi) * math.exp(-(half + 0.5) * math.log1p(t * t / degrees))


def normal_below(z: np.ndarray) -> np.ndarray:
    """The share of the standard normal law below each z; NaN stays NaN."""
    return np.array([0.5 * math.erfc(-each / math.sqrt(2)) for each in z.tolist()])


def normal_quantiles(levels: np.ndarray) -> np.ndarray:
    """The quantile of the standard normal law at each level in [0, 1]; infinite at the ends."""
    ends = {0.0: -math.inf, 1.0: math.inf}
    return np.array([ends[each] if each in ends else _NORMAL.inv_cdf(each) for each in levels.tolist()])


def _gamma_ratio(a: float) -> float:
    """Γ(a + 1/2) / Γ(a): large logarithms lose digits. Source of the series: Tricomi & Erdélyi 1951."""
    if a < _SERIES_FROM:
        return math.exp(math.lgamma(a + 0.5) - math.lgamma(a))
    return math.sqrt(a) * (1 - (1 - (1 + (5 - 21 / (32 * a)) / (8 * a)) / (16 * a)) / (8 * a))


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta, from its front. Source: Press et al. 2007, 6.4, Lentz's way."""
    top, bottom = 1.0, 1 / _no_zero(1 - (a + b) * x / (a + 1))
    found = bottom
    for m in range(1, _MAX_STEPS):
        for part in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            bottom, top = 1 / _no_zero(1 + part * bottom), _no_zero(1 + part / top)
            found *= bottom * top
        if abs(bottom * top - 1) <= _ENOUGH:
            break
    return found


def _no_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
