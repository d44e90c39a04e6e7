"""Draws figure 1: what the origin domain loses by fine-tuning, and how similar each method leaves the model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.analysis import bootstrap
from engine.analysis.distribution import distributions, final_metric
from engine.analysis.forgetting import NO_ORIGIN, PROTOCOL
from engine.analysis.options import TableOptions
from engine.analysis.study_data import RunData, grouped
from engine.analysis.table import Spread
from engine.errors import StudyError
from engine.figures.drawing import (
    Drawing,
    Source,
    go_on,
    runs_note,
    similarity_label,
    similarity_notes,
    study_notes,
)
from engine.figures.spread import NOTES, draw_spread
from engine.figures.style import (
    BLACK,
    BLUE,
    PALE,
    SMALL_PT,
    TWO_COLUMNS_IN,
    heading,
    in_two_lines,
    labels_of,
    legend_above,
    legible,
    mark_of,
    new_figure,
    percent,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HALF = 0.17
_MAX_ACROSS = 3


def draw_forgetting(source: Source, options: TableOptions) -> Drawing:
    """Origin k-NN accuracy before and after by backbone (a); the final similarity by method over all backbones (b).

    Raises:
        StudyError: no finished run that can forget has an origin k-NN accuracy; no such similarity or layer.
    """
    data = source.data
    runs = tuple(run for run in data.done if _can_forget(run) and np.isfinite(_ends(run)).all())
    if not runs:
        raise _refused(source)
    spreads = distributions(data, replace(options, by="method"))
    groups = grouped(runs, "backbone")
    figure = new_figure(TWO_COLUMNS_IN, 2.7 if len(groups) <= _MAX_ACROSS else 3.7)
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    _draw_ends(left, {name: found for (name,), found in groups.items()})
    heading(left, "a", "origin domain, before and after full fine-tuning")
    draw_spread(right, [(each.names[0], each.similarity, mark_of(each.names[0])) for each in spreads])
    key = options.key(data.records)
    right.set_xlabel(f"Similarity to θ* after fine-tuning\n({similarity_label(key, options.layer)})", fontsize=SMALL_PT)
    heading(right, "b", "final similarity by method")
    legend_above(figure, _handles())
    n_without = sum(_can_forget(run) for run in data.done) - len(runs)
    left_out = (f"a: left out: {n_without} runs without an origin k-NN accuracy at both ends",) if n_without else ()
    n_backbones = len({run.record.spec.backbone.name for run in data.done})
    caption = (
        "a: k-NN accuracy on images of the pre-training (origin) domain before and after fine-tuning, by backbone; "
        "thin lines and pale dots: single runs; marks with bars: mean with its 95 % interval (bootstrap BCa, 2,000 "
        "resamples; too narrow with few seeds, none with one)",
        f"a: {runs_note(runs)}; other methods are not shown: a frozen backbone cannot forget, a random "
        "one knew nothing, other ways to fine-tune are in b and in the table of methods",
        *_origin_notes(runs),
        PROTOCOL,
        *left_out,
        f"b: final similarity to θ* by method, the runs of {n_backbones} backbones together: {runs_note(data.done)}",
        *similarity_notes(data, options),
        *NOTES,
        *study_notes(data, finals_only=True),
    )
    return Drawing(figure, caption)


def _draw_ends(axes: Axes, groups: dict[str, list[RunData]]) -> None:
    is_crowded = len(groups) > _MAX_ACROSS
    line = 28 if is_crowded else 54 // len(groups)
    labels = labels_of(list(groups), line if is_crowded else 2 * line)
    ticks = []
    for place, (backbone, runs) in enumerate(groups.items()):
        ends = np.array([_ends(run) for run in runs])
        where = np.array([place - _HALF, place + _HALF])
        for pair in ends:
            axes.plot(where, pair, color=PALE, linewidth=0.5, marker="o", markersize=1.8, zorder=1, gid="run")
        intervals = zip(*bootstrap.mean_interval(ends), strict=True)
        for at, values, (low, high), face in zip(where, ends.T, intervals, ("white", BLUE), strict=True):
            spread = Spread.of(values.tolist()).within(low, high)
            if spread.low is not None and spread.high is not None:
                axes.plot([at, at], [spread.low, spread.high], color=BLACK, linewidth=1.2, zorder=2, gid="interval")
            assert spread.mean is not None  # runs without a value are not here
            edge = BLUE if face == "white" else BLACK
            axes.plot(
                [at], [spread.mean], marker="o", markerfacecolor=face, markeredgecolor=edge,
                markersize=5, markeredgewidth=1, zorder=3, linestyle="", gid="mean",
            )  # fmt: skip
        paradigm = runs[0].record.provenance.paradigm
        told = "" if labels[backbone] == paradigm else f"\n({legible(paradigm)})"
        ticks.append(in_two_lines(labels[backbone], line) + told)
    axes.set_xticks(range(len(ticks)), ticks, rotation=90 if is_crowded else 0)
    axes.set_xlim(-0.5, len(ticks) - 0.5)
    axes.set_ylabel("Origin k-NN accuracy (%)")
    percent(axes.yaxis)


def _handles() -> list[Any]:
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 5}
    return [
        Line2D([], [], markerfacecolor="white", markeredgecolor=BLUE, label="a: before (θ*)", **look),
        Line2D([], [], markerfacecolor=BLUE, markeredgecolor=BLACK, label="a: after full fine-tuning", **look),
        Line2D([], [], color=PALE, linewidth=0.8, marker="o", markersize=2.5, label="a: one run"),
        Line2D([], [], color=BLACK, linewidth=1.4, label="mean, 95 % interval", marker="|"),
    ]


def _ends(run: RunData) -> tuple[float, float]:
    """Origin k-NN accuracy of θ* and of the run's last epoch; NaN where it was not measured."""
    knn = run.metric("origin_knn")
    return (float(knn[0]) if len(knn) else float("nan")), final_metric(run, "origin_knn")


def _can_forget(run: RunData) -> bool:
    return run.record.spec.method == "full"


def _origin_notes(runs: tuple[RunData, ...]) -> tuple[str, ...]:
    sizes = sorted({run.record.provenance.n_origin for run in runs})
    is_synthetic = any(run.record.provenance.origin_is_synthetic for run in runs)
    made = ", which are generated" if is_synthetic else ""
    return (f"origin domain: {', '.join(map(str, sizes))} images{made}",)


def _refused(source: Source) -> StudyError:
    done = [run for run in source.data.done if _can_forget(run)]
    if not done:
        problem = "no run of full fine-tuning is done"
        return StudyError("origin k-NN", problem, go_on(source))
    problem, _, fix = NO_ORIGIN.partition(": ")
    return StudyError("origin k-NN", problem, fix)
