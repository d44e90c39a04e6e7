"""Draws figure 2: the similarity space, a panel a backbone and dataset, with T_X(η, ε) and who is in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.analysis.options import TableOptions
from engine.analysis.score import ACCURACY
from engine.analysis.space import PARETO_NOTE, Reference, Space, space
from engine.errors import StudyError
from engine.figures.drawing import Drawing, Source, go_on, runs_note, similarity_label, similarity_notes, study_notes
from engine.figures.style import (
    BLACK,
    GREY,
    ONE_COLUMN_IN,
    TWO_COLUMNS_IN,
    heading,
    labels_of,
    legend_above,
    mark_of,
    new_figure,
    percent,
    with_math,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_N_COLUMNS = 3
_FEW_METHODS = 4  # as many as can be counted one by one above a panel


def draw_space(source: Source, options: TableOptions) -> Drawing:
    """Similarity M_X against accuracy divergence A_X of every finished run.

    Raises:
        StudyError: no finished run has both; η, ε or the reference cannot be; no such similarity or layer.
    """
    found = space(source.data, options)
    if not found.runs:
        problem = "no run that is done has both a similarity and an accuracy"
        raise StudyError("similarity space", problem, go_on(source))
    panels = _panels(found)
    n_columns = min(_N_COLUMNS, len(panels))
    n_rows = -(-len(panels) // n_columns)
    width = ONE_COLUMN_IN if n_columns == 1 else TWO_COLUMNS_IN
    figure = new_figure(width, 0.7 + 2.15 * n_rows)
    grid = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    methods = list(dict.fromkeys(run.record.spec.method for run in found.runs))
    labels = labels_of([each.backbone for each, _ in panels], 30)
    x_limits, y_limits = _limits(found.similarity, found.eta), _limits(found.divergence, found.epsilon)
    for i, (axes, (reference, rows)) in enumerate(zip(grid.flat, panels, strict=False)):
        axes.set(xlim=x_limits, ylim=y_limits)
        _draw_panel(axes, found, rows)
        heading(axes, chr(ord("a") + i % 26), labels[reference.backbone], _counts(found, rows))
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid.flat[len(panels) - n_columns : len(panels)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    is_share = found.metric == ACCURACY.metric
    if is_share:
        percent(grid[0, 0].yaxis)
    estimator = f"({similarity_label(found.key, found.layer)})"
    unit = "points of accuracy" if is_share else "AUROC"
    is_narrow = width == ONE_COLUMN_IN
    with_math(figure.supxlabel("", fontsize=8), "Similarity $M_X$" + ("\n" if is_narrow else " "), estimator)
    with_math(figure.supylabel("", fontsize=8), f"Divergence $A_X$ ({unit})")
    for text in legend_above(
        figure, _handles(methods), 3 if is_narrow else 0, room_for=2 if is_narrow else 1
    ).get_texts():
        with_math(text, text.get_text())
    return Drawing(figure, _caption(source, found, options))


def _panels(found: Space) -> list[tuple[Reference, np.ndarray]]:
    """The places in `found` of the runs of each backbone and dataset; those without any are left out."""
    panels = []
    for reference in found.references:
        name = (reference.backbone, reference.dataset)
        rows = [
            i for i, run in enumerate(found.runs) if (run.record.spec.backbone.name, run.record.spec.dataset) == name
        ]
        if rows:
            panels.append((reference, np.array(rows)))
    return panels


def _draw_panel(axes: Axes, found: Space, rows: np.ndarray) -> None:
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    corner = (found.eta, bottom)
    from matplotlib.patches import Rectangle

    size = (right - found.eta, found.epsilon - bottom)
    axes.add_patch(
        Rectangle(corner, *size, facecolor="#f0f0f0", edgecolor="#c4c4c4", hatch="////", linewidth=0, zorder=0)
    )
    axes.axvline(found.eta, color=GREY, linewidth=0.7, linestyle=(0, (3, 2)), zorder=1, gid="eta")
    axes.axhline(found.epsilon, color=GREY, linewidth=0.7, linestyle=(0, (3, 2)), zorder=1, gid="epsilon")
    front = rows[found.is_on_front[rows]]
    front = front[np.lexsort((found.divergence[front], found.similarity[front]))]
    axes.plot(
        found.similarity[front], found.divergence[front], color=BLACK, linewidth=0.8, drawstyle="steps-pre", zorder=2,
        gid="front",
    )  # fmt: skip
    method_of = np.array([found.runs[row].record.spec.method for row in rows])
    for method in dict.fromkeys(method_of.tolist()):
        mine, mark = rows[method_of == method], mark_of(method)
        edges = np.where(found.is_on_front[mine], BLACK, "white")
        axes.scatter(
            found.similarity[mine], found.divergence[mine], s=16, c=mark.color, marker=mark.marker,
            edgecolors=edges.tolist(), linewidths=np.where(found.is_on_front[mine], 0.9, 0.3).tolist(), zorder=3,
            gid=method,
        )  # fmt: skip


def _counts(found: Space, rows: np.ndarray) -> str:
    """How many runs of each method of a panel are inside, or of all where there is no room for so many methods."""
    inside: dict[str, list[bool]] = {}
    for row in rows:
        inside.setdefault(found.runs[row].record.spec.method, []).append(bool(found.is_inside[row]))
    if len(inside) > _FEW_METHODS:
        return f"inside: {sum(map(sum, inside.values()))} of {len(rows)} runs"
    return "inside: " + ", ".join(f"{method} {sum(each)}/{len(each)}" for method, each in inside.items())


def _limits(values: np.ndarray, threshold: float) -> tuple[float, float]:
    """Limits that show every run and the threshold, with the same margin on both sides."""
    low, high = min(values.min(), threshold), max(values.max(), threshold)
    margin = 0.06 * max(high - low, 0.02)
    return float(low - margin), float(high + margin)


def _handles(methods: Sequence[str]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    marks = [
        Line2D([], [], linestyle="", marker=mark_of(each).marker, color=mark_of(each).color, label=each)
        for each in methods
    ]
    front = Line2D([], [], color=BLACK, linewidth=0.8, marker="o", markerfacecolor="white", label="Pareto front")
    region = Patch(facecolor="#f0f0f0", edgecolor="#c4c4c4", hatch="////", linewidth=0, label="$T_X$(η, ε)")
    return [*marks, front, region]


def _caption(source: Source, found: Space, options: TableOptions) -> tuple[str, ...]:
    asked = "the best run of the same backbone and dataset, so it rises with the number of runs"
    rule = asked if options.reference is None else f"{options.reference}, as asked, for every run"
    references = (
        f"reference of {each.backbone} on {each.dataset}: {each.value:.6g}"
        + (f" ({each.run_id})" if each.run_id else "")
        for each in found.references
    )
    return (
        f"each mark a run at its last epoch; M_X: similarity to θ*; A_X = reference − {found.metric} on the test "
        "images",
        f"hatched: T_X(η, ε), M_X ≥ η = {found.eta:g} and A_X ≤ ε = {found.epsilon:g}; above each panel: runs inside / "
        "runs; black line and black edges: the Pareto front",
        PARETO_NOTE,
        f"reference accuracy: {rule}",
        *references,
        runs_note(found.runs),
        *((found.left_out,) if found.left_out else ()),
        *similarity_notes(source.data, options),
        *study_notes(source.data, finals_only=True),
    )
