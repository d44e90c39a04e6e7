"""Similarity to θ* against a quality metric, over runs or also epochs: the paper's figure 5, and all points."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

import numpy as np

from engine.analysis import bootstrap
from engine.analysis.association import (
    NOISE,
    Association,
    Line,
    associate,
    error_over_runs,
    fit,
    t_quantile,
)
from engine.analysis.distribution import as_compared
from engine.analysis.options import MEAN_OF_LAYERS, TableOptions
from engine.analysis.study_data import RunData, StudyData, grouped
from engine.analysis.table import Spread
from engine.errors import StudyError
from engine.measures.table import MEASURES
from engine.quality.table import QUALITY
from engine.runs.results import SimilarityKey

FLATTERS_BY = 0.1
_MIN_INTERVALS = 3


@dataclass(frozen=True, eq=False)
class Points:
    """One point a run, or one an epoch of each run; arrays are `(n,)`.

    Attributes:
        x: similarity to θ*; y: the quality metric; float64, without NaN.
        runs: the place in `records` order (`StudyData.runs`) of the run that each belongs to.
        epochs: the epoch of each.
        n_left_out: points without a similarity or without the metric.
    """

    x: np.ndarray
    y: np.ndarray
    runs: np.ndarray
    epochs: np.ndarray
    n_left_out: int

    @property
    def n(self) -> int:
        """How many points there are."""
        return len(self.x)


@dataclass(frozen=True)
class Interval:
    """The points whose similarity lies in [low, high), the last one with its upper end; `x` is their mean similarity.

    `y` has their mean metric with sd and interval; its mean is None where there are fewer than the smallest number.
    `standard_error` of this mean counts a run as one draw, and so does its interval: by the bootstrap where each run
    gives one point, else by Student's t of `n_runs` − 1. None below 2 runs.
    """

    low: float
    high: float
    n: int
    n_runs: int
    x: float
    y: Spread
    standard_error: float | None = None


@dataclass(frozen=True)
class Correlation:
    """How a similarity and a quality metric go together.

    Attributes:
        key, layer, metric: what is held against what.
        over: "runs" or "runs and epochs".
        all: over all points.
        within: after the mean of each backbone and method is taken out of both sides.
        groups: of each group of `options.by`, by its names.
        intervals: every interval that holds a point, from the lowest.
        interval_line: through the means of the intervals, each counted once; None below 3.
        warnings: what would mislead.
    """

    key: SimilarityKey
    layer: str
    metric: str
    over: str
    width: float
    min_count: int
    points: Points
    all: Association
    within: Association
    groups: tuple[tuple[tuple[str, ...], Association], ...]
    intervals: tuple[Interval, ...]
    interval_line: Line | None
    warnings: tuple[str, ...]


def correlation(data: StudyData, options: TableOptions) -> Correlation:
    """Holds a similarity against a quality metric.

    Raises:
        StudyError: no such similarity, layer or metric, or intervals that cannot be.
    """
    key = options.key(data.records)
    data.check(key, options.layer)
    _check_intervals(options)
    _check_metric(data, options)
    points = _points(data, key, options)
    everything = associate(points.x, points.y, points.runs)
    within = _within_groups(data, points)
    intervals = _intervals(points, key, options)
    counted = [each for each in intervals if each.y.mean is not None]
    means = np.array([(each.x, each.y.mean) for each in counted], np.float64).reshape(-1, 2)
    line = fit(means[:, 0], means[:, 1]) if len(counted) >= _MIN_INTERVALS else None
    groups = tuple(
        (names, associate(points.x[rows], points.y[rows], points.runs[rows]))
        for names, rows in _rows_of_groups(data, points, options.by)
    )
    warnings = _warnings(everything, within, line, len(counted), points.n)
    return Correlation(
        key, options.layer, options.metric, options.over, options.width, options.min_count, points, everything, within,
        groups, intervals, line, warnings,
    )  # fmt: skip


def metrics_of(data: StudyData, pooling: str | None = None) -> tuple[str, ...]:
    """Every metric that a similarity can be held against: of a run, and of a layer, with this pooling or any."""
    by_layer = (
        metric
        for run in data.runs
        for metric, _, pooled in (name.rpartition("_") for name in run.layer_quality)
        if metric in QUALITY and pooling in (None, pooled)
    )
    return tuple(dict.fromkeys([*data.metrics, *by_layer]))


def _check_metric(data: StudyData, options: TableOptions) -> None:
    known = metrics_of(data, options.pooling)
    if data.runs and options.metric not in known:
        near = difflib.get_close_matches(options.metric, known, 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        problem = f"this study has no such metric{hint}"
        raise StudyError(f'metric "{options.metric}"', problem, f"choose one of {', '.join(known)}")


def _check_intervals(options: TableOptions) -> None:
    if not 0 < options.width < math.inf:
        raise StudyError("width", f"of an interval is above 0 (seen {options.width:g})", "give 0.05")
    if options.min_count < 1:
        raise StudyError("min count", f"a mean is of 1 point or more (seen {options.min_count})", "give 3")


def _points(data: StudyData, key: SimilarityKey, options: TableOptions) -> Points:
    xs, ys, runs, epochs = [], [], [], []
    for place, run in enumerate(data.runs):
        if options.over == "runs" and not run.is_done:
            continue
        x, y = run.similarity(key, options.layer), _metric(run, options)
        last = run.record.spec.epochs
        at = np.arange(last, last + 1) if options.over == "runs" else np.arange(1, max(len(x), len(y)))
        xs.append(_at(x, at))
        ys.append(_at(y, at))
        epochs.append(at)
        runs.append(np.full(len(at), place))
    x, y = (np.concatenate(each) if each else np.empty(0) for each in (xs, ys))
    places, at_epochs = (np.concatenate(each) if each else np.empty(0, int) for each in (runs, epochs))
    is_there = np.isfinite(x) & np.isfinite(y)
    return Points(x[is_there], y[is_there], places[is_there], at_epochs[is_there], int((~is_there).sum()))


def _at(curve: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    """The values at these epochs; NaN where the curve is too short."""
    padded = np.append(curve, np.nan)
    return padded[np.minimum(epochs, len(curve))]


def _metric(run: RunData, options: TableOptions) -> np.ndarray:
    """The metric at every epoch: of the run, or of the layer (the mean over all where no single one is asked for)."""
    values = run.layer_quality.get(f"{options.metric}_{options.pooling}")
    if options.metric in run.quality or values is None:
        return run.metric(options.metric)
    layers = values.astype(np.float64)
    if options.layer == MEAN_OF_LAYERS:
        return layers.mean(axis=1)
    is_there = options.layer in run.layers  # not in a backbone of fewer blocks
    return layers[:, run.layers.index(options.layer)] if is_there else np.full(len(layers), np.nan)


def _rows_of_groups(data: StudyData, points: Points, by: str) -> list[tuple[tuple[str, ...], np.ndarray]]:
    """The points of each group that has any."""
    places = {id(run): place for place, run in enumerate(data.runs)}
    found = []
    for names, runs in grouped(data.runs, by).items():
        rows = np.flatnonzero(np.isin(points.runs, [places[id(run)] for run in runs]))
        if len(rows):
            found.append((names, rows))
    return found


def _within_groups(data: StudyData, points: Points) -> Association:
    """After the mean of each backbone and method is taken out: what is left does not come from which they are."""
    x, y = points.x.copy(), points.y.copy()
    noise = [NOISE * np.abs(each).max(initial=0.0) for each in (x, y)]
    groups = _rows_of_groups(data, points, "backbone and method")
    for _, rows in groups:
        x[rows] -= x[rows].mean()
        y[rows] -= y[rows].mean()
    # A group in which nothing varies leaves its rounding behind.
    x, y = (np.where(np.abs(each) <= least, 0.0, each) for each, least in zip((x, y), noise, strict=True))
    return associate(x, y, points.runs, max(len(groups), 1))


def _intervals(points: Points, key: SimilarityKey, options: TableOptions) -> tuple[Interval, ...]:
    """Cut at multiples of the width; the end of the measure's range belongs to the interval below it."""
    width = options.width
    last = math.ceil(MEASURES[key.measure].range[1] / width - 1e-9) - 1
    numbers = np.minimum(np.floor(as_compared(points.x) / width + 1e-9).astype(int), last)
    found = []
    for number in np.unique(numbers):
        rows = numbers == number
        y, runs = points.y[rows], points.runs[rows]
        spread, error = _mean(y, runs) if len(y) >= options.min_count else (Spread(None, None, len(y)), None)
        low, high = (round(float(each) * width, 9) for each in (number, number + 1))
        n_runs, x = len(np.unique(runs)), float(points.x[rows].mean())
        found.append(Interval(low, high, len(y), n_runs, x, spread, error))
    return tuple(found)


def _mean(values: np.ndarray, runs: np.ndarray) -> tuple[Spread, float | None]:
    """Mean and its standard error, where a run counts as one draw however many points it gives."""
    n_runs, mean = len(np.unique(runs)), float(values.mean())
    (spread,) = bootstrap.spreads(values[:, None], with_interval=n_runs == len(values))
    if n_runs < 2:
        return spread, None
    error = error_over_runs(values - mean, runs)
    if n_runs < len(values):
        half = t_quantile(n_runs - 1) * error
        spread = spread.within(mean - half, mean + half)
    return spread, error


def _warnings(
    everything: Association, within: Association, line: Line | None, n_intervals: int, n_points: int
) -> tuple[str, ...]:
    """What a reader of the line alone would not see."""
    said: list[str] = []
    if line and everything.line and line.slope * everything.line.slope < 0:
        said.append(
            f"the line through the {n_intervals} interval means points the other way: slope {line.slope:.3g}, over the "
            f"{n_points} points {everything.line.slope:.3g}"
        )
    if line and everything.line and line.r_squared - everything.line.r_squared > FLATTERS_BY:
        said.append(
            f"the interval means flatter the fit: R² = {line.r_squared:.2f} through {n_intervals} means, "
            f"{everything.line.r_squared:.2f} over the {n_points} points"
        )
    whole, left = everything.pearson, within.pearson
    if whole.value is not None and left.value is not None and whole.excludes_zero:
        if left.excludes_zero and whole.value * left.value < 0:
            said.append(f"within backbones and methods it turns round: r = {left.value:.2f}, not {whole.value:.2f}")
        elif left.low is not None and not left.excludes_zero:
            said.append(
                f"it may come from differences between backbones and methods alone: within them r = {left.value:.2f} "
                f"[{left.low:.2f}, {left.high:.2f}]"
            )
    return tuple(said)
