"""Draws figure 4: similarity and score at every epoch (a), and the final similarity over the seeds (b), by backbone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from engine.analysis.distribution import Distribution, distributions
from engine.analysis.options import TableOptions
from engine.analysis.score import ACCURACY, Score, score_of
from engine.analysis.trajectory import Curve, Trajectory, trajectories
from engine.errors import StudyError
from engine.figures.drawing import Drawing, Source, go_on, runs_note, similarity_label, similarity_notes, study_notes
from engine.figures.spread import NOTES, draw_spread
from engine.figures.style import (
    ONE_COLUMN_IN,
    TWO_COLUMNS_IN,
    Mark,
    heading,
    in_two_lines,
    labels_of,
    legend_above,
    mark_of,
    method_handles,
    new_figure,
    percent,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_N_COLUMNS, _N_ROWS = 4, 3
_HEADING_CHARS = {1: 36, 2: 40, 3: 28, 4: 16}  # what fits in a line above a panel, by the number of columns


def draw_trajectories(source: Source, options: TableOptions) -> Drawing:
    """A column a backbone: similarity, then score by epoch, then the distribution of the final similarity.

    Raises:
        StudyError: no run has this similarity or this layer.
    """
    data = source.data
    key = options.key(data.records)
    data.check(key, options.layer)
    found = trajectories(data, options)
    if not found:
        problem = "no run has finished an epoch"
        raise StudyError("trajectories", problem, go_on(source))
    finals = distributions(data, replace(options, by="backbone and method"))
    backbones = list(dict.fromkeys(each.backbone for each in found))
    n_columns = min(_N_COLUMNS, len(backbones))
    n_blocks = -(-len(backbones) // n_columns)
    width = ONE_COLUMN_IN if n_columns == 1 else TWO_COLUMNS_IN
    figure = new_figure(width, 0.5 + 4.9 * n_blocks)
    grid = figure.subplots(_N_ROWS * n_blocks, n_columns, squeeze=False)
    columns = [
        grid[_N_ROWS * (place // n_columns) : _N_ROWS * (place // n_columns + 1), place % n_columns]
        for place in range(n_blocks * n_columns)
    ]
    line = _HEADING_CHARS[n_columns]
    labels = {name: in_two_lines(label, line) for name, label in labels_of(backbones, 2 * line).items()}
    for backbone, axes in zip(backbones, columns, strict=False):
        _draw_column(axes, [each for each in found if each.backbone == backbone],
                     [each for each in finals if each.names[0] == backbone])  # fmt: skip
        is_first = backbone == backbones[0]
        heading(axes[0], "a" if is_first else "", labels[backbone])
        heading(axes[2], "b" if is_first else "", labels[backbone])
        axes[2].set_xlabel("Final similarity to θ*")
    for unused in columns[len(backbones) :]:
        for axes in unused:
            axes.set_axis_off()
    _share(columns[: len(backbones)], n_columns, similarity_label(key, options.layer), score_of(data.records))
    legend_above(figure, method_handles([each.method for each in found]))
    return Drawing(figure, _caption(source, options, found))


def draw_curve(axes: Axes, curve: Curve, mark: Mark) -> None:
    """Mean over seeds with its 95 % band; a run alone has no band."""
    epochs = np.array(curve.epochs)
    ends = [
        [np.nan if value is None else value for value in (each.low, each.mean, each.high)] for each in curve.spreads
    ]
    low, mean, high = np.array(ends, np.float64).reshape(-1, 3).T
    every = max(1, len(epochs) // 6)
    axes.fill_between(epochs, low, high, color=mark.color, alpha=0.25, linewidth=0, gid="band")
    axes.plot(
        epochs, mean, color=mark.color, linestyle=mark.line, marker=mark.marker, markevery=every, markersize=3,
        gid="mean",
    )  # fmt: skip


def _draw_column(axes: np.ndarray, found: list[Trajectory], finals: list[Distribution]) -> None:
    for each in found:
        mark = mark_of(each.method)
        draw_curve(axes[0], each.similarity, mark)
        draw_curve(axes[1], each.accuracy, mark)
    draw_spread(axes[2], [(each.names[1], each.similarity, mark_of(each.names[1])) for each in finals])
    axes[0].tick_params(labelbottom=False)
    axes[1].set_xlabel("Epoch")


def _share(columns: list[np.ndarray], n_columns: int, label: str, score: Score) -> None:
    """One scale a row of panels, labelled at the left only, so that backbones can be compared by eye."""
    is_share = score.metric == ACCURACY.metric
    for row in range(_N_ROWS):
        axes = [each[row] for each in columns]
        name = "x" if row == 2 else "y"
        limits = np.array([getattr(each, f"get_{name}lim")() for each in axes])
        for each in axes:
            getattr(each, f"set_{name}lim")(limits[:, 0].min(), limits[:, 1].max())
    epochs = max(each[0].get_xlim()[1] for each in columns)
    for place, (similarity, accuracy, _) in enumerate(columns):
        for each in (similarity, accuracy):
            each.set_xlim(-0.03 * epochs, epochs)
            each.xaxis.get_major_locator().set_params(integer=True)
        if is_share:
            percent(accuracy.yaxis)
        if place % n_columns == 0:
            similarity.set_ylabel(f"Similarity to θ*\n{_wrapped(label)}")
            accuracy.set_ylabel("Test accuracy (%)" if is_share else f"Test {score.label}")
        else:
            for each in (similarity, accuracy):
                each.tick_params(labelleft=False)


def _wrapped(label: str) -> str:
    """The estimator on a line of its own, so that the label is no longer than its panel."""
    estimator, _, rest = label.partition(", ")
    return f"({estimator},\n{rest})"


def _caption(source: Source, options: TableOptions, found: tuple[Trajectory, ...]) -> tuple[str, ...]:
    data, score = source.data, score_of(source.data.records)
    alone = [f"{each.backbone} {each.method}" for each in found if len(each.run_ids) == 1]
    one = (f"one seed only, so without a band: {', '.join(alone)}",) if alone else ()
    n_done = len(data.done)
    return (
        f"a: mean over seeds of the similarity to θ* and of {score.metric} at every epoch, with the 95 % interval of "
        "the mean (bootstrap BCa, 2,000 resamples; too narrow with few seeds); epoch 0: before training, with an "
        "untrained head; a run that has not come to an epoch is not in its mean",
        f"a: {runs_note(data.runs)}",
        *one,
        f"b: the final similarity of the {n_done} runs that are done, by method",
        *NOTES,
        *similarity_notes(data, options),
        *study_notes(data, finals_only=n_done < len(data.runs)),
    )
