"""How two quantities go together: Pearson, Spearman and a straight line, with intervals; pure functions of arrays.

Points of one run are not independent draws. Where a run gives several, a run counts as one draw: the influences of its
points on the estimate are added up before they are squared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from statistics import NormalDist

import numpy as np

from engine.analysis import student

MIN_POINTS = 3
EXACT_UP_TO = 8  # points: 40,320 orders, some milliseconds
_LEVEL = 0.95
NOISE = 1e-6  # of the largest value: results are float32
_ONE = 1 - 1e-12


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
    """What two quantities have to do with each other over n points of some runs.

    `why` says why all is undefined, `why_no_interval` why a coefficient has no interval.
    """

    n_points: int
    n_runs: int
    pearson: Coefficient = Coefficient()
    spearman: Coefficient = Coefficient()
    line: Line | None = None
    why: str = ""
    why_no_interval: str = ""


def associate(x: np.ndarray, y: np.ndarray, runs: np.ndarray, n_groups: int = 1) -> Association:
    """Pearson, Spearman and the least-squares line of y on x.

    Invariant to shifting and scaling of either side; Spearman to any rising map.

    Args:
        x, y: `(n,)` float64, without NaN.
        runs: `(n,)` integers: which run each point belongs to.
        n_groups: how many means were taken out of x and y before, which costs as many degrees of freedom.
    Returns:
        Intervals on Fisher's z scale: of independent points, where each run gives one; else with a run as one draw, and
        no p. A coefficient of ±1 has none, as z is infinite there.
    Source: Fisher 1921; Bonett & Wright 2000 (Spearman's variance); runs of several points: Cameron & Miller 2015, sums
        of influences by cluster, with R / (R − n_groups) and Student's t for few runs.
    """
    n, n_runs = len(x), len(np.unique(runs))
    if n < MIN_POINTS:
        return Association(n, n_runs, why=f"{n} points; 3 are the fewest that a correlation can be of")
    for what, values in (("similarity", x), ("metric", y)):
        if is_constant(values):
            return Association(n, n_runs, why=f"the {what} is the same at all {n} points")
    found = _of_points(x, y, n_groups) if n_runs == n else _of_runs(x, y, runs, n_runs, n_groups)
    return Association(n, n_runs, *found, fit(x, y), why_no_interval=_why_no_interval(found, n, n_runs, n_groups))


def fit(x: np.ndarray, y: np.ndarray) -> Line | None:
    """The least-squares line of y on x; None where x is constant or there are fewer than 2 points.

    `r_squared` is 1 where y is constant: a level line explains everything.
    """
    if len(x) < 2 or is_constant(x):
        return None
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    r_squared = 1.0 if is_constant(y) else _pearson(x, y) ** 2
    return Line(slope, float(y.mean() - slope * x.mean()), r_squared)


def error_over_runs(influence: np.ndarray, runs: np.ndarray, n_groups: int = 1) -> float:
    """Standard error of an estimate from the influence of each point, where a run counts as one draw.

    With one point a run and deviations from the mean as influences it is sd / √n.

    Args:
        influence: `(n,)` float64, mean 0.
        runs: `(n,)` integers, of more than `n_groups` runs.
    Source: Liang & Zeger 1986; the factor for few runs: Cameron & Miller 2015.
    """
    _, at = np.unique(runs, return_inverse=True)
    of_runs = np.bincount(at, influence)
    return float(math.sqrt(len(of_runs) / (len(of_runs) - n_groups) * (of_runs @ of_runs)) / len(influence))


def pearson_influence(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What each point adds to Pearson's correlation, `(n,)`, mean 0. Source: Devlin et al. 1975."""
    zx, zy = ((each - each.mean()) / each.std() for each in (x, y))
    influence: np.ndarray = zx * zy - _pearson(x, y) / 2 * (zx**2 + zy**2)
    return influence


def spearman_influence(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What each point adds to Spearman's correlation, through the ranks of all others too, `(n,)`, mean 0.

    With F, G the shares of values below (ties by half): that of the covariance E[FG] − 1/4 is
    F(x)G(y) + E[G; X above x] + E[F; Y above y], and that of a variance (1 − Σ p³) / 12 is −(p(x)² − Σ p³) / 4, where p
    are the shares of equal values. Source: Croux & Dehon 2010, here with ties.
    """
    n = len(x)
    (f, at_f, p_f), (g, at_g, p_g) = (_shares(each) for each in (x, y))
    of_covariance = f * g + _sum_above(at_f, g) / n + _sum_above(at_g, f) / n
    variances = [float(each @ each / n - 0.25) for each in (f, g)]
    of_variances = sum(-(p**2 - (p**2).mean()) / 4 / each for p, each in zip((p_f, p_g), variances, strict=True))
    scale = math.sqrt(variances[0] * variances[1])
    rho = float(f @ g / n - 0.25) / scale
    influence: np.ndarray = (of_covariance - of_covariance.mean()) / scale - rho / 2 * of_variances
    return influence


def t_quantile(degrees: int) -> float:
    """Of Student's t: what bounds the middle 95 %; NaN below 1 degree of freedom."""
    return student.t_quantile((1 + _LEVEL) / 2, degrees) if degrees >= 1 else math.nan


def is_constant(values: np.ndarray) -> bool:
    """Whether the values differ by no more than rounding, as results have single precision."""
    return bool(np.ptp(values) <= NOISE * float(np.abs(values).max()))


def _of_points(x: np.ndarray, y: np.ndarray, n_groups: int) -> tuple[Coefficient, Coefficient]:
    """Each point is a draw; a mean taken out is a variable held fixed."""
    ranks, free = (_ranks(x), _ranks(y)), len(x) - (n_groups - 1)
    r, rho = _pearson(x, y), _pearson(*ranks)
    errors = [math.sqrt(each / (free - 3)) if free > 3 else None for each in (1.0, 1 + rho**2 / 2)]
    factor = NormalDist().inv_cdf((1 + _LEVEL) / 2)
    return (
        _coefficient(r, errors[0], factor, _p_of_t(r, free)),
        _coefficient(rho, errors[1], factor, _p_of_ranks(rho, *ranks, free, n_groups)),
    )


def _of_runs(
    x: np.ndarray, y: np.ndarray, runs: np.ndarray, n_runs: int, n_groups: int
) -> tuple[Coefficient, Coefficient]:
    """Each run is a draw, however many points it gives."""
    found = []
    for value, influence in (
        (_pearson(x, y), pearson_influence(x, y)),
        (_pearson(_ranks(x), _ranks(y)), spearman_influence(x, y)),
    ):
        room = max(1 - value**2, 1e-12)  # how much narrower z is than the coefficient
        error = error_over_runs(influence, runs, n_groups) / room if n_runs - n_groups > 1 else None
        found.append(_coefficient(value, error, t_quantile(n_runs - n_groups)))
    return found[0], found[1]


def _why_no_interval(found: tuple[Coefficient, Coefficient], n: int, n_runs: int, n_groups: int) -> str:
    lacking = [name for name, each in zip(("Pearson", "Spearman"), found, strict=True) if each.low is None]
    if not lacking:
        return ""
    if all(abs(each.value or 0.0) >= _ONE for each in found if each.low is None):
        return f"{' and '.join(lacking)}: a coefficient of ±1 has none"
    many = f"{n} points" if n_runs == n else f"{n_runs} runs"
    return f"{' and '.join(lacking)}: {many}{f' in {n_groups} groups' if n_groups > 1 else ''} are too few"


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    dx, dy = x - x.mean(), y - y.mean()
    return float(np.clip(dx @ dy / math.sqrt((dx @ dx) * (dy @ dy)), -1.0, 1.0))


def _coefficient(value: float, error: float | None, factor: float, p: float | None = None) -> Coefficient:
    if error is None or abs(value) >= _ONE:
        return Coefficient(value, p=p)
    z = math.atanh(value)
    return Coefficient(value, math.tanh(z - factor * error), math.tanh(z + factor * error), p)


def _p_of_t(value: float, free: int) -> float | None:
    if free < 3:
        return None
    room = 1 - value**2
    return 2 * student.t_tail(value * math.sqrt((free - 2) / room), free - 2) if room > 1e-12 else 0.0


def _p_of_ranks(rho: float, x: np.ndarray, y: np.ndarray, free: int, n_groups: int) -> float | None:
    """Of all orders of y where they are few; else by Student's t, but never less than one order and its reverse have.

    By t, five runs of ρ = 0.9 have p = 0.037, and four of ρ = 1 have 0; of all orders it is 0.083 both times.
    """
    n = len(x)
    if n_groups > 1 or n > EXACT_UP_TO:
        p = _p_of_t(rho, free)
        return None if p is None else max(p, 2 / math.factorial(min(n, 100)))
    dx, dy = x - x.mean(), y - y.mean()
    found, seen, least = dy[_orders(n)] @ dx, dx @ dy, 1e-9 * (dx @ dx)
    tails = (found >= seen - least).mean(), (found <= seen + least).mean()  # not alike, where there are ties
    return min(1.0, 2 * float(min(tails)))


@lru_cache(maxsize=EXACT_UP_TO)
def _orders(n: int) -> np.ndarray:
    """`(n!, n)`: every order of n things."""
    return np.array(list(permutations(range(n))), np.int8)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; ties share the mean of theirs."""
    ranks: np.ndarray = _shares(values)[0] * len(values) + 0.5
    return ranks


def _shares(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each value, `(n,)`: the share of those below (ties by half), its place, and the share of those equal."""
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    shares = counts / len(values)
    return (shares.cumsum() - shares / 2)[at], at, shares[at]


def _sum_above(at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum of the values of all points whose place is higher, those of the same place by half."""
    of_places = np.bincount(at, values)
    above: np.ndarray = (of_places.sum() - of_places.cumsum() + of_places / 2)[at]
    return above
