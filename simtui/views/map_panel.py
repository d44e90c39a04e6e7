"""What stands beside a map: each block against itself, or the row and the column of one cell, as bars and in words."""

from __future__ import annotations

import math

import numpy as np
from rich.cells import cell_len

from engine.quality.table import QUALITY
from engine.runs.results import Results
from simtui.palette import scale_color
from simtui.safe_text import fitted
from simtui.views.layer_map import LayerMap, pooling_name
from simtui.views.parts import ACCENT, DIM, NORMAL, STRONG, Line, Span, figure, line, wrapped

_MAX_LABEL_WIDTH, _LONGEST_LABEL = 10, 20
_SAME = 0.005  # figures that are not further apart look alike to two decimals


def side_panel(shown: LayerMap, results: Results, width: int, height: int, is_256: bool = False) -> tuple[Line, ...]:
    """Each block against itself as bars, and the quality of the model at this epoch; of other layers, the likest."""
    if not shown.has_diagonal:
        return _best_panel(shown, width, height, is_256)
    facts = _quality(results, shown.epoch)
    labels = shown.layers
    label_width = min(max(len(label) for label in labels), _MAX_LABEL_WIDTH)
    room = max(height - len(facts) - 3, 1)
    bar_width = max(width - label_width - 8, 4)
    # Two architectures may have the same names for layers that are not the same.
    head = "same-named layers of A and B" if shown.is_comparison else "each block against itself"
    lines: list[Line] = [line(Span(head, DIM))]
    for i, label in enumerate(labels[:room]):
        value = float(shown.matrix[i, i])
        name = Span(fitted(label, label_width) + " ", DIM)
        lines.append((name, *bar(value, bar_width, is_256), Span(f" {figure(value)}")))
    if len(labels) > room:
        lines[-1] = line(Span(f"… {len(labels) - room + 1} more", DIM))
    layer_facts = _layer_quality(shown, results)
    if len(lines) + len(facts) + 2 + len(layer_facts) > height:
        layer_facts = ()
    if shown.is_comparison:
        return tuple(lines)
    return (*lines, (), line(Span(f"at epoch {shown.epoch}", DIM)), *facts, *layer_facts)


def _best_panel(shown: LayerMap, width: int, height: int, is_256: bool) -> tuple[Line, ...]:
    """Of each layer of B the layer of A that it is most like: none stands against itself."""
    labels = shown.layers
    label_width = min(max(len(label) for label in (*labels, *shown.row_layers)), _MAX_LABEL_WIDTH)
    room = max(height - 3, 1)
    bar_width = max(width - 2 * label_width - 9, 2)
    head = "each layer of B, and the layer of A that it is most like"
    lines = [*wrapped(head, width, 2, DIM)]
    for i, label in enumerate(labels[:room]):
        best = highest(shown.matrix[:, i])
        value = math.nan if best is None else float(shown.matrix[best, i])
        other = "–" if best is None else shown.row_layers[best]
        name = Span(fitted(label, label_width) + " ", DIM)
        found = Span(f" {figure(value, 2):>4} {fitted(other, label_width)}")
        lines.append((name, *bar(value, bar_width, is_256), found))
    if len(labels) > room:
        lines[-1] = line(Span(f"… {len(labels) - room + 1} more", DIM))
    return tuple(lines)


def cross_panel(shown: LayerMap, width: int, height: int, is_256: bool = False) -> tuple[Line, ...]:
    """The row and the column of the cell under the cursor as bars, the highest of each marked, and what that says.

    The row is one layer of the pre-trained model against all of the run's, the column one layer of the run against all
    of the pre-trained model.
    """
    if not shown.has_diagonal:
        said = [each for text in likeness(shown) for each in ((), *wrapped(text, width, 4))]
        return (*_best_panel(shown, width, max(height - len(said), 4), is_256), *said)
    labels, row, column = shown.layers, shown.matrix[shown.row], shown.matrix[:, shown.column]
    said = [each for text in likeness(shown) for each in ((), *wrapped(text, width, 4))]
    heads = ("of A ", "of B ") if shown.is_comparison else ("pre-trained ", "this run's  ")
    label_width = min(max(map(len, labels)), _MAX_LABEL_WIDTH)
    bar_width = max((width - label_width - 12) // 2, 2)
    lines: list[Line] = [
        line(Span(f"row    {heads[0]}", DIM), Span(elided(labels[shown.row], width - 19), ACCENT)),
        line(Span(f"column {heads[1]}", DIM), Span(elided(labels[shown.column], width - 19), ACCENT)),
        line(Span(" " * (label_width + 1) + fitted("row", bar_width + 6) + "column", DIM)),
    ]
    room = max(height - len(lines) - len(said), 3)
    first = max(min(shown.row - room // 2, len(labels) - room), 0)
    for i in range(first, min(first + room, len(labels))):
        is_here = i in (shown.row, shown.column)
        name = Span(fitted(labels[i], label_width), ACCENT if is_here else DIM)
        bars = [part for values in (row, column) for part in _marked_bar(values, i, bar_width, is_256)]
        lines.append((name, *bars))
    return (*lines, *said)


def likeness(shown: LayerMap) -> tuple[str, ...]:
    """What the layer of the run and that of the pre-trained model under the cursor are most like, in words."""
    run, origin = elided(shown.layers[shown.column]), elided(shown.row_layers[shown.row])
    column, row = shown.matrix[:, shown.column], shown.matrix[shown.row]
    if shown.is_comparison:
        of_b = _most_alike(f"{run} of B", "A", column, shown.row_layers)
        return of_b, _most_alike(f"{origin} of A", "B", row, shown.layers)
    of_run = _most_like(f"{run} of this run", "pre-trained ", column, shown.column, shown.layers)
    of_origin = _most_like(f"pre-trained {origin}", "this run's ", row, shown.row, shown.layers)
    return of_run, of_origin


def bar(value: float, width: int, is_256: bool) -> tuple[Span, ...]:
    """A bar of eighths on a track of dots: 0 is empty, 1 is full."""
    if math.isnan(value):
        return (Span("·" * width, DIM),)
    eighths = round(min(max(value, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    drawn = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return Span(drawn, color=scale_color(value, is_256)), Span("·" * (width - len(drawn)), DIM)


def highest(values: np.ndarray) -> int | None:
    """Where the highest of the values is that there are."""
    return None if np.isnan(values).all() else int(np.nanargmax(values))


def elided(label: str, width: int = _LONGEST_LABEL) -> str:
    """A label in at most so many characters."""
    return label if cell_len(label) <= width else fitted(label, width)


def _marked_bar(values: np.ndarray, i: int, width: int, is_256: bool) -> tuple[Span, ...]:
    value, is_highest = float(values[i]), highest(values) == i
    text = f"{'▶' if is_highest else ' '}{figure(value, 2):>4}"
    return Span(" "), *bar(value, width, is_256), Span(fitted(text, 5), STRONG if is_highest else NORMAL)


def _most_alike(who: str, other: str, values: np.ndarray, labels: tuple[str, ...]) -> str:
    """Of a layer of one checkpoint the one of the other: no layer is the same in both."""
    best = highest(values)
    if best is None:
        return f"{who}: undefined"
    return f"{who} is most like {elided(labels[best])} of {other} ({float(values[best]):.2f})"


def _most_like(who: str, whose: str, values: np.ndarray, own: int, labels: tuple[str, ...]) -> str:
    best = highest(values)
    if best is None:
        return f"{who}: undefined"
    itself, value = float(values[own]), float(values[best])
    if best == own:
        return f"{who} is most like itself ({itself:.2f})"
    other = f"{whose}{elided(labels[best])} ({value:.2f})"
    if value - itself < _SAME:
        return f"{who} is as much like {other} as like itself"
    return f"{who} is most like {other}, itself {'undefined' if math.isnan(itself) else f'{itself:.2f}'}"


def _quality(results: Results, epoch: int) -> tuple[Line, ...]:
    names = (
        ("test_accuracy", "accuracy"), ("test_balanced_accuracy", "balanced acc."), ("test_auroc", "AUROC"),
        ("test_quadratic_kappa", "quadr. kappa"), ("test_average_precision", "mean AP"),
        *((f"test_{each.name}", each.label) for each in QUALITY.values() if each.needs == "probabilities"),
        ("origin_knn", QUALITY["knn"].label),
    )  # fmt: skip
    return tuple(
        line(Span(f"{title:<15}", DIM), Span(figure(float(values[epoch])), STRONG))
        for name, title in names
        if (values := results.quality.get(name)) is not None and epoch < len(values)
    )


def _layer_quality(shown: LayerMap, results: Results) -> tuple[Line, ...]:
    """The quality of the run's layer under the cursor; nothing where the study asks for none."""
    suffix = f"_{shown.key.pooling}"
    found = [
        (QUALITY[metric].label, float(values[shown.epoch, shown.column]))
        for name, values in results.layer_quality.items()
        if (metric := name.removesuffix(suffix)) in QUALITY and name.endswith(suffix)
    ]
    if not found:
        return ()
    head = line(Span(f"{shown.layers[shown.column]} of this run, {pooling_name(shown.key)}", DIM))
    rows = (line(Span(f"{label:<24}", DIM), Span(figure(value), STRONG)) for label, value in found)
    return ((), head, *rows)
