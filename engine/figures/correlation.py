"""Draws figure 5: similarity against a quality metric, with the fit through interval means and that on all points."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.analysis.association import Association, Line
from engine.analysis.correlation import Correlation, correlation
from engine.analysis.options import TableOptions
from engine.analysis.study_data import StudyData
from engine.errors import StudyError
from engine.figures.drawing import Drawing, Source, go_on, runs_note, similarity_label, similarity_notes, study_notes
from engine.figures.style import (
    BLACK,
    ONE_COLUMN_IN,
    SMALL_PT,
    VERMILION,
    in_two_lines,
    legend_above,
    legible,
    mark_of,
    new_figure,
)
from engine.quality.table import QUALITY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MIN_POINTS = 3
_ALL_LINE = (0, (4.0, 1.5))


def draw_correlation(source: Source, options: TableOptions) -> Drawing:
    """Every point pale, the means of the intervals with their 95 % interval, and both lines with what they explain.

    Raises:
        StudyError: fewer than 3 runs have both; no such similarity, layer or metric.
    """
    found = correlation(source.data, options)
    if found.points.n < _MIN_POINTS:
        problem = f"{found.points.n} points have both a similarity and {found.metric}; a fit needs {_MIN_POINTS}"
        raise StudyError("correlation", problem, f"{go_on(source)}, or name another --metric")
    figure = new_figure(ONE_COLUMN_IN, 3.5)
    axes = figure.subplots()
    _draw_points(axes, found, source.data)
    _draw_means(axes, found)
    _draw_lines(axes, found)
    label = similarity_label(found.key, found.layer)
    axes.set_xlabel(f"Similarity to θ*\n({label})", fontsize=SMALL_PT if len(label) > 44 else 8)
    axes.set_ylabel(in_two_lines(legible(_metric_label(found.metric), 60), 34))
    methods = dict.fromkeys(source.data.runs[place].record.spec.method for place in found.points.runs.tolist())
    legend = legend_above(figure, _handles(list(methods), found), 1, room_for=6)
    legend.set_alignment("left")
    return Drawing(figure, _caption(source, options, found))


def _draw_points(axes: Axes, found: Correlation, data: StudyData) -> None:
    points = found.points
    methods = np.array([data.runs[place].record.spec.method for place in points.runs.tolist()])
    for method in dict.fromkeys(methods.tolist()):
        mine, mark = methods == method, mark_of(method)
        axes.plot(
            points.x[mine], points.y[mine], linestyle="", marker=mark.marker, color=mark.color, markersize=3.2,
            markeredgewidth=0, alpha=0.35, zorder=1, gid=method,
        )  # fmt: skip


def _draw_means(axes: Axes, found: Correlation) -> None:
    for each in found.intervals:
        if each.y.mean is None:
            continue
        if each.y.low is not None and each.y.high is not None:
            axes.plot([each.x, each.x], [each.y.low, each.y.high], color=BLACK, linewidth=1, zorder=4, gid="interval")
        axes.plot(
            [each.x], [each.y.mean], marker="o", markersize=4.5, color="white", markeredgecolor=BLACK, zorder=5,
            linestyle="", gid="mean",
        )  # fmt: skip


def _draw_lines(axes: Axes, found: Correlation) -> None:
    """Each as far as what it was fitted to."""
    means = [each.x for each in found.intervals if each.y.mean is not None]
    if found.interval_line is not None:
        _draw_line(axes, found.interval_line, np.array([min(means), max(means)]), BLACK, "-", "interval_line")
    if found.all.line is not None:
        ends = np.array([found.points.x.min(), found.points.x.max()])
        _draw_line(axes, found.all.line, ends, VERMILION, _ALL_LINE, "all_line")


def _draw_line(axes: Axes, line: Line, x: np.ndarray, color: str, style: Any, gid: str) -> None:
    axes.plot(x, line.slope * x + line.intercept, color=color, linestyle=style, linewidth=1.3, zorder=3, gid=gid)


def _handles(methods: list[str], found: Correlation) -> list[Any]:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], linestyle="", marker=mark_of(each).marker, color=mark_of(each).color, alpha=0.5, label=each)
        for each in methods
    ]
    n_means = sum(each.y.mean is not None for each in found.intervals)
    means: dict[str, Any] = {"color": BLACK, "marker": "o", "markersize": 4.5, "markerfacecolor": "white"}
    line = found.interval_line
    told = "no fit"
    if line is not None:  # of one straight line, r² is R²
        r = math.copysign(math.sqrt(line.r_squared), line.slope)
        told = f"r = {r:.2f}, R² = {line.r_squared:.2f}".replace("-", "−")
    return [
        *marks,
        Line2D([], [], **means, linestyle="-" if line else "", label=f"{n_means} interval means: {told}"),
        Line2D([], [], color=VERMILION, linestyle=_ALL_LINE, label=f"{found.points.n} points: {_told(found.all)}"),
    ]


def _told(found: Association) -> str:
    if found.pearson.value is None or found.line is None:
        return "no fit"
    return f"r = {found.pearson.value:.2f}, R² = {found.line.r_squared:.2f}".replace("-", "−")


def _metric_label(metric: str) -> str:
    """What an axis says of a metric: what it is, on whose images, and its name where it is not a known one."""
    split, _, rest = metric.partition("_")
    if rest in QUALITY and split in ("test", "val", "origin"):
        return f"{QUALITY[rest].label}, {split} images"
    return QUALITY[metric].label if metric in QUALITY else metric


def _caption(source: Source, options: TableOptions, found: Correlation) -> tuple[str, ...]:
    data = source.data
    what = "a run that is done, at its last epoch" if found.over == "runs" else "an epoch of a run, from 1 on"
    n_left_out = found.points.n_left_out
    runs = tuple(data.runs[place] for place in dict.fromkeys(found.points.runs.tolist()))
    of_runs = "bootstrap BCa, 2,000 resamples; too narrow with few runs"
    bars = of_runs if found.over == "runs" else "Student's t, a run as one draw"
    why = (f"no fit on all points: {found.all.why}",) if found.all.why else ()
    return (
        f"pale marks: each {what}; {found.metric} ({_metric_label(found.metric)}) against the similarity to θ*",
        f"white dots: means over intervals of similarity {found.width:g} wide (from multiples of it) with at least "
        f"{found.min_count} points, at their mean similarity; bars: 95 % interval of the mean ({bars}); black line: "
        "least squares through these means, each counted once, as in the paper",
        f"dashed line: least squares on all points: {_told(found.all)}; an R² through means says nothing of "
        "single runs",
        f"within backbones and methods (the mean of each taken out of both): {_told(found.within)}",
        *found.warnings,
        *why,
        runs_note(runs),
        *((f"left out: {n_left_out} points without a similarity or without the metric",) if n_left_out else ()),
        *similarity_notes(data, options),
        *study_notes(data, finals_only=found.over == "runs"),
    )
