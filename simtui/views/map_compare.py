"""What the map view says of two runs: their maps beside each other, cell by cell, and the one minus the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from engine.analysis.estimators import short_of
from engine.errors import SimtuiError
from engine.runs.record import RunRecord
from engine.runs.results import Results
from simtui.reader import Answer, Snapshot
from simtui.safe_text import fitted, safe, short_names
from simtui.selection import Selection
from simtui.views.layer_map import LayerMap, inflation_warning, layer_map, measure_name, of_images, pooling_name
from simtui.views.map_cells import SIMILARITY, MapPicture, change_scale, limit_of, signed
from simtui.views.map_layout import MAX_LABEL_WIDTH
from simtui.views.map_panel import elided
from simtui.views.parts import ACCENT, DIM, STRONG, WARN, Line, Span, figure, fitting, line

_WIDTH_OF_THREE = 170


@dataclass(frozen=True)
class Run:
    """A run with its results."""

    record: RunRecord
    results: Results


@dataclass(frozen=True)
class Comparison:
    """Two maps of the same similarity, the cursor of each at the same depth.

    Attributes:
        names: what tells the pinned run from the other.
        difference: `(n, n)`, the run's map minus the pinned one's; None where `why_none` says why there is none.
        limit: no difference at any epoch is beyond it, so that the colours stay as the epochs go by.
        epoch: the one asked for; a run that ends before it is shown at its last.
        n_epochs: of the longer run.
    """

    pinned: LayerMap
    run: LayerMap
    names: tuple[str, str]
    difference: np.ndarray | None
    why_none: str
    limit: float
    epoch: int
    n_epochs: int
    summary: str
    warnings: tuple[str, ...]

    @property
    def value(self) -> float:
        """The difference under the cursor; NaN where there is none."""
        return math.nan if self.difference is None else float(self.difference[self.run.row, self.run.column])


def pinned_run(snapshot: Snapshot, run_id: str, answer: Answer | None) -> Run | str:
    """The run that is pinned, as it is on disk now; or why it cannot be shown."""
    record, value = snapshot.record(run_id), answer.value if answer else None
    broken = next((each.error for each in snapshot.damaged if each.run_id == run_id), value)
    if isinstance(broken, SimtuiError):
        return f"the pinned run cannot be shown: {safe(broken.problem)}; c unpins"
    if record is None:
        return "the pinned run is not there any more; c unpins"
    return Run(record, value) if isinstance(value, Results) else "the pinned run has no results yet; c unpins"


def compared(pinned: Run, run: Run, selection: Selection) -> Comparison | str:
    """The maps of both runs at the selected epoch, by the selected similarity; or why they are not compared."""
    shown = layer_map(run.record, run.results, selection)
    beside = layer_map(pinned.record, pinned.results, selection)
    if shown is None or beside is None:
        return "the pinned run has no similarity yet; c unpins"
    if beside.key != shown.key:
        name = f"{safe(short_of(shown.key.measure))}, {pooling_name(shown.key)}{of_images(shown.key)}"
        return f"the pinned run has no {name}; another similarity: m, p, o; c unpins"
    n_epochs = max(shown.n_epochs, beside.n_epochs)
    row, column = (linked(at, len(shown.layers), len(beside.layers)) for at in (shown.row, shown.column))
    beside = replace(beside, row=row, column=column)
    why_none = _why_no_difference(pinned.results.layers, run.results.layers) or _why_no_difference(
        pinned.results.rows, run.results.rows
    )
    differences = None if why_none else _differences(pinned.results, run.results, shown)
    names = _names(pinned.record, run.record)
    found = Comparison(
        beside, shown, names, shown.matrix - beside.matrix if differences is not None else None, why_none,
        limit_of(differences) if differences is not None else 1.0, selection.epoch_among(n_epochs), n_epochs,
        "", tuple(_warnings(pinned, run, beside, shown)),
    )  # fmt: skip
    return replace(found, summary=_summary(found, pinned.record, run.record))


def linked(place: int, n: int, n_other: int) -> int:
    """The layer of the other model at the same relative depth: layer `place` of `n` in one of `n_other`."""
    return round(place / max(n - 1, 1) * (n_other - 1))


def pictures(shown: Comparison, width: int, is_difference: bool) -> tuple[MapPicture, ...]:
    """The maps in sight, from left to right: the pinned run's, the other's, the difference, as many as there is room.

    Args:
        is_difference: with room for two, the right one is the difference.
    """
    pair = _picture(shown.pinned, "pinned", shown.names[0]), _picture(shown.run, "this run", shown.names[1])
    if shown.difference is None:
        return pair
    at = shown.run.epoch, shown.pinned.epoch
    when = f"epoch {at[0]}" if at[0] == at[1] else f"epoch {at[0]} - epoch {at[1]}"
    titles = tuple((Span(f" {text}", STRONG),) for text in (f"this run - pinned, {when}", "difference"))
    picture = replace(
        _picture(shown.run, "", ""), matrix=shown.difference, titles=titles, scale=change_scale(shown.limit)
    )
    if has_room_for_three(shown, width):
        return (*pair, picture)
    return (pair[0], picture) if is_difference else pair


def has_room_for_three(shown: Comparison, width: int) -> bool:
    """Whether three maps are in sight as a whole."""
    label_width = min(max(map(len, shown.run.layers)), MAX_LABEL_WIDTH) + 3
    return width >= _WIDTH_OF_THREE and width // 3 >= label_width + 2 * len(shown.run.layers)


def compared_readout(shown: Comparison, width: int, is_colorless: bool, is_256: bool) -> Line:
    """Both values under the cursor and their difference, between which layers, in as many words as fit."""
    pinned, run = (
        _value(name, figure(each.value), "" if is_colorless else SIMILARITY.color(each.value, is_256))
        for name, each in (("pinned", shown.pinned), ("this run", shown.run))
    )
    if shown.difference is None:
        at = _between(shown.pinned), _between(shown.run)
        return fitting([(*pinned, *at[0], Span("  "), *run, *at[1]), (*pinned, *run, *at[1])], width)
    color = "" if is_colorless else change_scale(shown.limit).color(shown.value, is_256)
    moved = _value("difference", signed(shown.value), color)
    plain = line(f" {figure(shown.pinned.value)}", Span(" → ", DIM), figure(shown.run.value))
    values, between = (*pinned, *run, *moved), _between(shown.run)
    full = (*values, *_between(shown.run, "pre-trained ", "run "))
    measure = Span(f"   {measure_name(shown.run.key)}", DIM)
    return fitting([(*full, measure), full, (*values, *between), (*plain, *moved, *between)], width)


def compare_panel(shown: Comparison, width: int, height: int) -> tuple[Line, ...]:
    """Each block against itself in both runs, and the difference."""
    label_width = max(width - 21, 6)
    head = f"{'':<{label_width}} {'pinned':>6} {'this':>5} {'change':>7}"
    lines = [line(Span("each block against itself", DIM)), line(Span(head, DIM))]
    room = max(height - len(lines), 1)
    for i, label in enumerate(shown.run.layers[:room]):
        before, now = float(shown.pinned.matrix[i, i]), float(shown.run.matrix[i, i])
        figures = f" {figure(before):>6} {figure(now):>5}", f" {signed(now - before):>7}"
        lines.append(line(Span(fitted(label, label_width), DIM), figures[0], Span(figures[1], STRONG)))
    if len(shown.run.layers) > room:
        lines[-1] = line(Span(f"… {len(shown.run.layers) - room + 1} more", DIM))
    return tuple(lines)


def shorter_run(shown: Comparison) -> str:
    """Which of the runs has not come to the epoch that is asked for; empty where both have."""
    ends = [
        f"{name} ends at epoch {each.epoch}"
        for name, each in (("pinned run", shown.pinned), ("this run", shown.run))
        if each.epoch < shown.epoch
    ]
    return ", ".join(ends)


def _value(name: str, text: str, color: str) -> Line:
    swatch = (Span(" ██", color=color),) if color else ()
    return (Span(f" {name} ", DIM), Span(text, STRONG), *swatch, Span(" "))


def _between(shown: LayerMap, whose_row: str = "", whose_column: str = "") -> Line:
    row, column = (Span(elided(shown.layers[at]), ACCENT) for at in (shown.row, shown.column))
    return Span(f" {whose_row}", DIM), row, Span(f" × {whose_column}", DIM), column


def _picture(shown: LayerMap, who: str, name: str) -> MapPicture:
    head = Span(f" {who}: ", WARN if who == "pinned" else ACCENT)
    axes = Span("   ↓ pre-trained → run", DIM)
    texts = f"{name}, epoch {shown.epoch}", name, f"epoch {shown.epoch}"
    titles = ((head, Span(texts[0]), axes), *((head, Span(text)) for text in texts))
    return MapPicture(shown.matrix, shown.layers, shown.row, shown.column, titles, SIMILARITY)


def _why_no_difference(pinned: tuple[str, ...], run: tuple[str, ...]) -> str:
    if len(pinned) != len(run):
        return f"the pinned run has {len(pinned)} layers and this run {len(run)}"
    return "" if pinned == run else "their layers have other names"


def _differences(pinned: Results, run: Results, shown: LayerMap) -> np.ndarray:
    """`(n_epochs, n, n)`; a run that ends before the other stays at its last epoch."""
    mine, other = run.similarity[shown.key], pinned.similarity[shown.key]
    epochs = np.arange(max(len(mine), len(other)))
    ends = (values[np.minimum(epochs, len(values) - 1)].astype(np.float64) for values in (mine, other))
    return np.subtract(*ends)


def _names(pinned: RunRecord, run: RunRecord) -> tuple[str, str]:
    """`full, seed 0`; with the backbone where that is not the same."""
    records = pinned, run
    backbones = [each.spec.backbone.name for each in records]
    short = short_names(backbones)
    heads = ["" if backbones[0] == backbones[1] else f"{safe(short[each])}, " for each in backbones]
    first, second = (
        f"{head}{safe(each.spec.method)}, seed {each.spec.seed}" for head, each in zip(heads, records, strict=True)
    )
    return first, second


def _summary(shown: Comparison, pinned: RunRecord, run: RunRecord) -> str:
    backbone = safe(run.spec.backbone.name)
    where = f"{backbone}, " if pinned.spec.backbone.name == run.spec.backbone.name else ""
    what = f"{where}epoch {shown.epoch}, {pooling_name(shown.run.key)}{of_images(shown.run.key)}"
    mine, other = shown.names[1], shown.names[0]
    if shown.difference is None:
        return f"{_capital(mine)}, beside pinned {other} ({what}): no difference, as {shown.why_none}; by depth."
    same = np.diagonal(shown.difference)
    head = f"{_capital(mine)}, minus pinned {other} ({what}): "
    if np.isnan(same).all():
        return f"{head}the difference is undefined for every block."
    most = int(np.nanargmax(np.abs(same)))
    mean, largest = signed(float(np.nanmean(same))), signed(float(same[most]))
    if float(largest) == 0:
        return f"{head}no block differs on the diagonal."
    return f"{head}mean difference on the diagonal {mean}, largest at {elided(shown.run.layers[most])} ({largest})."


def _warnings(pinned: Run, run: Run, beside: LayerMap, shown: LayerMap) -> Iterator[str]:
    """What makes a comparison of these two misleading, then what makes each of them so."""
    is_target = shown.key.probe == "target"
    origins = [each.record.provenance for each in (pinned, run)]
    n_images = [each.n_probe if is_target else each.n_origin_probe for each in origins]
    digests = [each.probe_digest if is_target else each.origin_digest for each in origins]
    is_same_backbone = pinned.record.spec.backbone.name == run.record.spec.backbone.name
    if n_images[0] != n_images[1]:
        yield f"compared on {n_images[0]} images (pinned) and on {n_images[1]}: the figures do not compare"
    elif is_same_backbone and all(digests) and digests[0] != digests[1]:
        yield "the images of the two runs are not the same: the figures do not compare"
    if not is_same_backbone and pinned.results.layers == run.results.layers:
        yield "two backbones: each run is compared with its own pre-trained model"
    cautions = dict.fromkeys(
        inflation_warning(each.record, found.key, found.keys) for each, found in ((pinned, beside), (run, shown))
    )
    yield from (each for each in cautions if each)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
