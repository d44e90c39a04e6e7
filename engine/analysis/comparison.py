"""Owns the comparison of groups of runs, two at a time: how far apart they end, and whether that could be chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from engine.analysis.distribution import DECIMALS, as_compared, finals, rows_by_group
from engine.analysis.estimators import notes_on
from engine.analysis.options import TableOptions
from engine.analysis.student import t_quantile
from engine.analysis.study_data import RunData, StudyData, group_columns
from engine.analysis.table import Cell, Table
from engine.finetune.methods import are_of_one_training

EXACT_UP_TO = 50  # runs of both sides: the counts of all orders are then exact in float64
EFFECTS = ((0.147, "negligible"), (0.33, "small"), (0.474, "medium"))
_LEVEL = 0.95
_ALPHA = 0.05
_NOTES = (
    "mean_difference: a − b at the last epoch, over the runs that are done; its interval: 95 %, Welch's t",
    "cliffs_delta: P(a > b) − P(a < b); its interval: 95 %, asymmetric, Student's t (Feng & Cliff 2004)",
    "effect: |cliffs_delta| below 0.147 negligible, below 0.33 small, below 0.474 medium, else large (Romano et al. "
    "2006)",
    f"p: Mann–Whitney U, two-sided; exact (of all orders of the values, ties at mid-ranks) up to {EXACT_UP_TO} runs of "
    "both sides, beyond them asymptotic (normal, corrected for ties and continuity)",
    f"values that agree to {DECIMALS} decimals are ties, as results have single precision",
    "runs are compared as independent draws, not in pairs: the same seed of two groups shares the order of the images "
    "and the start of the head, and its outcomes need not go together",
)

PAIRED_NOTE = (
    "paired: wise_ft is made from the runs of full, its mixtures from the same, and ema looks at the training of full: "
    "these are compared seed by seed; mean_difference_low and _high: Student's t of the differences; p: Wilcoxon "
    f"signed-rank, two-sided, exact (of all signs, ties at mid-ranks, pairs without a difference left out) up to "
    f"{EXACT_UP_TO} pairs; cliffs_delta describes the groups and has no interval"
)
UNPAIRED_NOTE = (
    "groups that come from one training (wise_ft, ema and full) but of which a seed lacks its partner are compared as "
    "if they were independent draws: their intervals and p are a rough guide"
)


@dataclass(frozen=True)
class Comparison:
    """Two groups of values, a and b; differences are a − b, and None where a side has too few values.

    Attributes:
        difference: of the means.
        difference_interval: its 95 % interval; None below 2 values on a side, like all that follows.
        delta: Cliff's delta in [-1, 1]: 1 where every value of a is above every value of b.
        delta_interval: its 95 % interval.
        u: Mann–Whitney U of a: how many pairs have a above b, ties by half.
        p: two-sided, not corrected for several tests.
        is_exact: whether p is of all orders of the values, or all signs, not of a normal distribution.
        n_pairs: how many pairs the interval and p are of; None where the sides are independent draws.
        w: of pairs, the sum of the ranks of those in which a is above b; u is None then, and so is `delta_interval`.
    """

    n_a: int
    n_b: int
    median_a: float | None
    median_b: float | None
    difference: float | None
    difference_interval: tuple[float, float] | None = None
    delta: float | None = None
    delta_interval: tuple[float, float] | None = None
    u: float | None = None
    p: float | None = None
    is_exact: bool = False
    n_pairs: int | None = None
    w: float | None = None


def compare_groups(runs: Sequence[RunData], values: np.ndarray, a: np.ndarray, b: np.ndarray) -> Comparison:
    """Compares two groups of runs: in pairs where they come from one training and no run lacks its partner.

    Args:
        values: `(n_runs,)`, in the order of `runs`.
        a, b: the places of the runs of each group.
    """
    pairs = _pairs(runs, a, b)
    if pairs is None or (np.isfinite(values[pairs[0]]) != np.isfinite(values[pairs[1]])).any():
        return compare(values[a], values[b])
    return compare_pairs(values[pairs[0]], values[pairs[1]])


def are_dependent(runs: Sequence[RunData], a: np.ndarray, b: np.ndarray) -> bool:
    """Whether each group is of one method, and both come from one training."""
    methods = [{runs[place].record.spec.method for place in places.tolist()} for places in (a, b)]
    return all(len(each) == 1 for each in methods) and are_of_one_training(*(each.pop() for each in methods))


def _pairs(runs: Sequence[RunData], a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The places of two dependent groups, pair by pair; None where a run has no partner or several."""
    if not are_dependent(runs, a, b):
        return None
    keyed = []
    for places in (a, b):
        specs = [runs[place].record.spec for place in places.tolist()]
        keyed.append(dict(zip(((each.backbone, each.dataset, each.seed) for each in specs), places, strict=True)))
    if len(keyed[0]) < len(a) or len(keyed[1]) < len(b) or keyed[0].keys() != keyed[1].keys():
        return None
    return np.array(list(keyed[0].values())), np.array([keyed[1][key] for key in keyed[0]])


def compare_pairs(a: np.ndarray, b: np.ndarray) -> Comparison:
    """Compares two samples whose values belong together, one to one.

    Args:
        a, b: `(n,)` each; a pair with a NaN is left out.
    """
    is_there = np.isfinite(a) & np.isfinite(b)
    a, b = a[is_there], b[is_there]
    n = len(a)
    median_a, median_b = (float(np.median(side)) if n else None for side in (a, b))
    difference = float((a - b).mean()) if n else None
    if n < 2:
        return Comparison(n, n, median_a, median_b, difference)
    delta, _ = cliffs_delta(a, b)
    w, p, is_exact = signed_rank(a - b)
    return Comparison(
        n, n, median_a, median_b, difference, paired_interval(a - b), delta, None, None, p, is_exact, n, w
    )  # fmt: skip


def paired_interval(differences: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean of differences, by Student's t; without width where they have no spread.

    Args:
        differences: `(n,)`, n ≥ 2.
    """
    mean, n = float(differences.mean()), len(differences)
    if not np.ptp(as_compared(differences)):
        return mean, mean
    half = _t_quantile(n - 1) * float(differences.std(ddof=1)) / math.sqrt(n)
    return mean - half, mean + half


def signed_rank(differences: np.ndarray) -> tuple[float, float, bool]:
    """W (the sum of the ranks of the positive differences), its two-sided p and whether this is exact.

    Differences of 0 are left out, as Wilcoxon did; where nothing is left, p is 1.

    Args:
        differences: `(n,)`, n ≥ 1.
    Source: Wilcoxon 1945; all signs, ties as they are. Not by scipy (1.17): its exact p ignores ties and zeros.
    """
    kept = as_compared(differences)
    kept = kept[kept != 0]
    if not len(kept):
        return 0.0, 1.0, True
    doubled, counts = _doubled_ranks(np.abs(kept))
    w = float(doubled[kept > 0].sum()) / 2
    n, total = len(kept), int(doubled.sum())
    if n <= EXACT_UP_TO:
        ways = np.zeros(total + 1)
        ways[0] = 1
        for rank in doubled.tolist():
            ways[rank:] += ways[:-rank].copy()
        seen = round(2 * w)
        tail = min(ways[: seen + 1].sum(), ways[seen:].sum())
        return w, min(1.0, 2 * float(tail / ways.sum())), True
    deviation = math.sqrt(n * (n + 1) * (2 * n + 1) / 24 - float((counts**3 - counts).sum()) / 48)
    z = max(abs(w - n * (n + 1) / 4) - 0.5, 0.0) / deviation  # 0.5: for continuity
    return w, min(1.0, math.erfc(z / math.sqrt(2))), False


def _doubled_ranks(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Twice the mid-rank of each value, a whole number; and how many are alike in each rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (2 * np.cumsum(counts) - counts + 1)[place], counts


def compare(a: np.ndarray, b: np.ndarray) -> Comparison:
    """Compares two independent samples.

    Args:
        a: `(n_a,)`; NaN is left out.
        b: `(n_b,)`; NaN is left out.
    """
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    median_a, median_b = (float(np.median(side)) if len(side) else None for side in (a, b))
    difference = float(a.mean() - b.mean()) if len(a) and len(b) else None
    if min(len(a), len(b)) < 2:
        return Comparison(len(a), len(b), median_a, median_b, difference)
    delta, delta_interval = cliffs_delta(a, b)
    return Comparison(
        len(a), len(b), median_a, median_b, difference, welch_interval(a, b), delta, delta_interval, *mann_whitney(a, b)
    )


def welch_interval(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of mean(a) − mean(b), variances not taken as equal; without width where no side has spread.

    Args:
        a: `(n_a,)`, n_a ≥ 2.
        b: `(n_b,)`, n_b ≥ 2.
    Source: Welch 1947.
    """
    difference = float(a.mean() - b.mean())
    shares = np.array([side.var(ddof=1) / len(side) for side in (a, b)])
    if not (np.ptp(a) or np.ptp(b)):
        return difference, difference
    degrees = shares.sum() ** 2 / (shares**2 / [len(a) - 1, len(b) - 1]).sum()
    half = _t_quantile(float(degrees)) * math.sqrt(shares.sum())
    return difference - half, difference + half


def cliffs_delta(a: np.ndarray, b: np.ndarray) -> tuple[float, tuple[float, float]]:
    """P(a > b) − P(a < b), in [-1, 1], and its 95 % interval; invariant to any rising map of the values.

    Where the sides do not overlap the variance is 0, and the interval follows from the smaller side alone.

    Args:
        a: `(n_a,)`, n_a ≥ 2.
        b: `(n_b,)`, n_b ≥ 2.
    Source: Cliff 1993 (delta, unbiased variance); Feng & Cliff 2004, pp. 323-324 (the rest).
    """
    n_a, n_b = len(a), len(b)
    signs = np.sign(as_compared(a)[:, None] - as_compared(b))
    delta = float(signs.mean())
    t = _t_quantile(n_a + n_b - 2)
    if abs(delta) == 1:
        nearest = (min(n_a, n_b) - t * t) / (min(n_a, n_b) + t * t)
        return delta, ((nearest, 1.0) if delta > 0 else (-1.0, -nearest))
    of_a, of_b = ((signs.mean(axis=axis) - delta) ** 2 for axis in (1, 0))
    of_pairs = float(((signs - delta) ** 2).sum())
    variance = (n_b**2 * of_a.sum() + n_a**2 * of_b.sum() - of_pairs) / (n_a * n_b * (n_a - 1) * (n_b - 1))
    return delta, _asymmetric_interval(delta, max(float(variance), (1 - delta**2) / (n_a * n_b - 1)), t)


def _asymmetric_interval(delta: float, variance: float, t: float) -> tuple[float, float]:
    """The interval of a Cliff's delta within (-1, 1), from its variance. Source: Feng & Cliff 2004, p. 323."""
    room, spread = 1 - delta**2, t * t * variance
    half = math.sqrt(spread * (room**2 + spread))
    return (delta * room - half) / (room + spread), (delta * room + half) / (room + spread)


def _t_quantile(degrees: float) -> float:
    """What |t| exceeds in 5 % of draws."""
    return t_quantile((1 + _LEVEL) / 2, degrees)


def mann_whitney(a: np.ndarray, b: np.ndarray) -> tuple[float, float, bool]:
    """U of a, its two-sided p and whether this is exact; invariant to any rising map of the values.

    Args:
        a: `(n_a,)`, n_a ≥ 1.
        b: `(n_b,)`, n_b ≥ 1.
    Source: Mann & Whitney 1947; all orders, ties as they are: Streitberg & Röhmel 1986. Not by scipy (1.17): its
        exact p ignores ties, and its asymptotic p of a few tied values lies below any that they can reach.
    """
    n_a, n = len(a), len(a) + len(b)
    both = as_compared(np.concatenate([a, b]))
    doubled, counts = _doubled_ranks(both)
    total = int(doubled[:n_a].sum())
    u = total / 2 - n_a * (n_a + 1) / 2
    if n <= EXACT_UP_TO:
        ways = _ways(n_a, tuple(np.sort(doubled).tolist()))
        tail = min(ways[: total + 1].sum(), ways[total:].sum())
        return u, min(1.0, 2 * float(tail / ways.sum())), True
    ties = float((counts**3 - counts).sum()) / (n * (n - 1))
    deviation = math.sqrt(n_a * len(b) / 12 * (n + 1 - ties))
    if not deviation:
        return u, 1.0, False
    z = (abs(u - n_a * len(b) / 2) - 0.5) / deviation  # 0.5: for continuity
    return u, min(1.0, math.erfc(z / math.sqrt(2))), False


@lru_cache(maxsize=256)
def _ways(n_chosen: int, ranks: tuple[int, ...]) -> np.ndarray:
    """In how many ways `n_chosen` of the ranks have each sum, `(sum(ranks) + 1,)`."""
    ways = np.zeros((n_chosen + 1, sum(ranks) + 1))
    ways[0, 0] = 1
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, :-rank]
    return ways[n_chosen]


def holm(ps: Sequence[float]) -> list[float]:
    """Each p corrected for all of them, so that the chance of any false rejection stays below a level; at most 1.

    Source: Holm 1979.
    """
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda place: ps[place])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = highest
    return corrected


def effect_of(delta: float) -> str:
    """A word for a Cliff's delta. Source: Romano et al. 2006."""
    return next((word for below, word in EFFECTS if abs(delta) < below), "large")


def comparison_table(data: StudyData, options: TableOptions) -> Table:
    """Every two methods of a backbone, or every two groups of another `options.by`: one row a quantity.

    Raises:
        StudyError: no run has this similarity or this layer.
    """
    found = finals(data, options)
    groups = rows_by_group(found.runs, options.by)
    pairs = [(a, b) for a, b in combinations(groups, 2) if a[:-1] == b[:-1]]
    quantities = tuple(zip(found.columns, (options.layer, None), (found.similarity, found.score), strict=True))
    compared = [
        ((*a, b[-1], column, layer), compare_groups(found.runs, values, groups[a], groups[b]))
        for a, b in pairs
        for column, layer, values in quantities
    ]
    tested = [each.p for _, each in compared if each.p is not None]
    corrected = iter(holm(tested))
    rows = tuple(
        (*head, *_cells(each, None if each.p is None else next(corrected)), each.n_pairs, each.w)
        for head, each in compared
    )
    *shared, last = group_columns(options.by)
    columns = (
        *shared, f"{last}_a", f"{last}_b", "quantity", "layer", "n_a", "n_b", "median_a", "median_b",
        "mean_difference", "mean_difference_low", "mean_difference_high", "cliffs_delta", "cliffs_delta_low",
        "cliffs_delta_high", "effect", "mann_whitney_u", "p", "p_test", "p_holm", "n_pairs", "wilcoxon_w",
    )  # fmt: skip
    estimators = notes_on(data.records, [found.key.measure], found.key.probe)
    said = _notes([each for _, each in compared], len(tested), options)
    dependent = [are_dependent(found.runs, groups[a], groups[b]) for a, b in pairs for _ in quantities]
    said = (*said, *pairing_notes([each for (_, each), is_so in zip(compared, dependent, strict=True) if is_so]))
    left_out = (*found.notes(), *data.notes(found.key, options.layer, finals_only=True))
    return Table("comparison", columns, rows, (*said, *estimators, *left_out))


def pairing_notes(dependent: Sequence[Comparison]) -> tuple[str, ...]:
    """How groups that come from one training were compared."""
    is_paired = [each.n_pairs is not None for each in dependent if each.p is not None]
    return (*((PAIRED_NOTE,) if any(is_paired) else ()), *((UNPAIRED_NOTE,) if not all(is_paired) else ()))


def _cells(found: Comparison, corrected: float | None) -> tuple[Cell, ...]:
    nothing = (None, None)
    return (
        found.n_a, found.n_b, found.median_a, found.median_b,
        found.difference, *(found.difference_interval or nothing),
        found.delta, *(found.delta_interval or nothing),
        None if found.delta is None else effect_of(found.delta),
        found.u, found.p, _test_of(found), corrected,
    )  # fmt: skip


def _test_of(found: Comparison) -> str | None:
    if found.p is None:
        return None
    return ("exact" if found.is_exact else "asymptotic") + ("" if found.n_pairs is None else ", paired")


def _notes(compared: Sequence[Comparison], n_tests: int, options: TableOptions) -> tuple[str, ...]:
    said = [*_NOTES, f"p_holm: corrected for the {n_tests} tests of this table (Holm 1979)"]
    if options.by != "backbone and method":
        said.append(
            f"by {options.by}: runs that differ in more than the seed are pooled in a group, and p takes them for like "
            "draws: compare only groups of the same make"
        )
    tested = [each for each in compared if each.p is not None]
    sizes = sorted({tuple(sorted((each.n_a, each.n_b))) for each in tested if each.n_pairs is None})
    lowest = {size: 2 / math.comb(sum(size), size[0]) for size in sizes}
    bounds = [f"{p:.3g} with {a} and {b} runs" for (a, b), p in lowest.items() if p * n_tests >= _ALPHA]
    n_pairs = sorted({each.n_pairs for each in tested if each.n_pairs is not None})
    bounds += [f"{2 / 2**n:.3g} with {n} pairs" for n in n_pairs if 2 / 2**n * n_tests >= _ALPHA]
    if bounds:
        said.append(f"however far apart the groups are, p cannot be below {', '.join(bounds)}, before it is corrected")
    if n_few := len(compared) - n_tests:
        said.append(f"{n_few} of {len(compared)} rows have fewer than 2 runs on a side, so no interval, delta and p")
    return tuple(said)
