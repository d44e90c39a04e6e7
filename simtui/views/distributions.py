"""What the distributions view says: final similarity and score of every run, group by group, as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.analysis.distribution import Distribution, Sample
from engine.analysis.estimators import caution, label_of, short_of
from engine.analysis.score import score_of
from engine.analysis.table import Table
from engine.runs.results import SimilarityKey
from simtui.analyses import Found
from simtui.palette import curve_color
from simtui.plotting import Frame
from simtui.safe_text import fitted, safe, short_names
from simtui.selection import Selection
from simtui.views.layer_map import POOLINGS
from simtui.views.parts import (
    ACCENT,
    DIM,
    KEY,
    NO_VALUE,
    STRONG,
    Column,
    Line,
    Row,
    Sheet,
    Span,
    and_others,
    count,
    figure,
    line,
)
from simtui.views.scatter import frame_of

EXPLANATION = (
    "Final similarity to the pre-trained model (left) and final score (right) of every run that is done: each dot is a "
    "run, the line goes from the lower to the upper quartile, ┃ is the median; the curve above is the density, each "
    "scaled to its own height. t compares the groups two by two: Cliff's delta, and Mann–Whitney p corrected by Holm "
    "for all tests of the table; of pairs (groups from one training, seed by seed) Wilcoxon's p."
)
_BLOCKS = " ▁▂▃▄▅▆▇█"
_DOTS = "⠄⠆⠇⠧⠷⠿⡿⣿"  # as many dots as runs in the cell; 8 and more are full
_NAME_WIDTH = 24


@dataclass(frozen=True)
class DistributionsView:
    """Everything but the rows, which depend on the size."""

    groups: tuple[Distribution, ...]
    names: tuple[str, ...]
    key: SimilarityKey
    score: str
    cursor: int
    control: Line
    readout: tuple[Line, ...]
    warnings: tuple[str, ...]
    summary: str


def distributions_view(found: Found, selection: Selection, key: SimilarityKey, cursor: int) -> DistributionsView | None:
    """The view of the groups; None where no run is done."""
    groups: tuple[Distribution, ...] = found.value
    if not groups:
        return None
    cursor = min(max(cursor, 0), len(groups) - 1)
    names = group_names([each.names for each in groups], selection.by)
    score = score_of(found.data.records).label
    cautions = (caution(run.record, key.measure, key.probe) for run in found.data.done)
    warning = next((each for each in cautions if each), "")
    n_open = len(found.data.runs) - len(found.data.done)
    left_out = f"{count(n_open, 'run')} left out: not at the last epoch yet" if n_open else ""
    return DistributionsView(
        groups,
        names,
        key,
        score,
        cursor,
        _control(selection, key),
        _readout(groups[cursor], names[cursor], key, score),
        tuple(
            each for each in (*found.data.partial(key, selection.layer), warning, found.data.twins, left_out) if each
        ),
        _summary(groups, names, key, score),
    )


def group_names(groups: Sequence[tuple[str, ...]], by: str) -> tuple[str, ...]:
    """Names of groups for people: backbones as short as they can be told apart."""
    short = short_names([each[0] for each in groups]) if by.startswith("backbone") else {}
    return tuple(" ".join(safe(each) for each in (short.get(group[0], group[0]), *group[1:])) for group in groups)


def rows(view: DistributionsView, width: int, height: int, is_colorless: bool) -> tuple[Line, ...]:
    """The groups as lines: density and dots where there is room for both, else dots alone; then the axes.

    The group under the cursor is always among them.
    """
    room = max(height - 2, 1)
    per_group = 2 if len(view.groups) * 2 <= room else 1
    n_shown = max(room // per_group, 1)
    first = min(max(view.cursor - n_shown // 2, 0), max(len(view.groups) - n_shown, 0))
    half = max((width - _NAME_WIDTH - 4) // 2, 8)
    frames = [_frame([getattr(each, side) for each in view.groups]) for side in ("similarity", "score")]
    title = f"{label_of(view.key.measure)}, {view.key.probe} images"
    titles = (title if len(title) < half else short_of(view.key.measure), f"test {view.score}")
    head = line(
        " " * (_NAME_WIDTH + 1), Span(fitted(titles[0], half + 2), STRONG), Span(fitted(titles[1], half), STRONG)
    )
    lines = [head]
    for i, each in list(enumerate(view.groups))[first : first + n_shown]:
        color = "" if is_colorless else curve_color(i)
        sides = [(each.similarity, frames[0]), (each.score, frames[1])]
        name = Span(fitted(f" {view.names[i]}", _NAME_WIDTH), KEY if i == view.cursor else STRONG)
        if per_group == 2:
            lines.append(_joined(Span(" " * _NAME_WIDTH), [_density(*side, half, color) for side in sides]))
        lines.append(_joined(name, [_dots(*side, half, color) for side in sides]))
    lines.append(_joined(Span(" " * _NAME_WIDTH), [(Span(_axis(frame, half), DIM),) for frame in frames]))
    return tuple(lines)


def comparison_sheet(found: Table) -> Sheet:
    """The table of differences, for a grid."""
    at = {name: i for i, name in enumerate(found.columns)}
    n_names = at["quantity"]
    shown: list[Row] = []
    for place, cells in enumerate(found.rows):
        names = [safe(str(cell)) for cell in cells[:n_names]]
        delta, p = cells[at["cliffs_delta"]], cells[at["p_holm"]]
        is_clear = isinstance(p, float) and p < 0.05
        n = (
            f"{cells[at['n_a']]}, {cells[at['n_b']]}"
            if cells[at["n_pairs"]] is None
            else f"{cells[at['n_pairs']]} pairs"
        )
        bounds = f"[{figure(cells[at['cliffs_delta_low']], 2)}, {figure(cells[at['cliffs_delta_high']], 2)}]"
        shown.append(
            Row(
                str(place),
                (
                    Span(" · ".join([*names[:-2], f"{names[-2]} − {names[-1]}"])),
                    Span(safe(str(cells[n_names])), DIM),
                    Span(n, DIM),
                    Span(figure(cells[at["mean_difference"]]), STRONG),
                    Span(figure(delta, 2), STRONG),
                    Span(NO_VALUE if cells[at["cliffs_delta_low"]] is None else bounds, DIM),
                    Span(safe(str(cells[at["effect"]] or NO_VALUE))),
                    Span(p_value(p), ACCENT if is_clear else DIM),
                ),
            )
        )
    columns = (
        Column("difference", shrinks_to=22), Column("of", rank=3, shrinks_to=10), Column("n", "right", rank=2),
        Column("mean", "right"), Column("Cliff δ", "right"), Column("95 %", rank=4), Column("effect", rank=1),
        Column("p (Holm)", "right"),
    )  # fmt: skip
    return Sheet(columns, tuple(shown))


def p_value(value: object) -> str:
    """A p as papers print it."""
    if not isinstance(value, float):
        return NO_VALUE
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _joined(name: Span, sides: Sequence[Line]) -> Line:
    return (name, Span(" "), *sides[0], Span("  "), *sides[1])


def _frame(samples: Sequence[Sample]) -> Frame:
    return frame_of([value for sample in samples for value in sample.values], [0.0, 1.0], n_x=5)


def _density(sample: Sample, frame: Frame, width: int, color: str) -> Line:
    if sample.density is None:
        return (Span(" " * width),)
    low, high = frame.x_limits
    at = np.linspace(low, high, width)
    values = np.interp(at, sample.density.at, sample.density.values, left=0.0, right=0.0)
    top = float(sample.density.values.max())
    levels = np.ceil(values / top * (len(_BLOCKS) - 1) - 0.25).astype(int).clip(0, len(_BLOCKS) - 1)
    return (Span("".join(_BLOCKS[level] for level in levels), color=color),)


def _dots(sample: Sample, frame: Frame, width: int, color: str) -> Line:
    """Dots over a line between the quartiles; the median shows through where no run is."""
    low, high = frame.x_limits
    if not sample.values:
        return (Span(fitted(NO_VALUE, width), DIM),)

    def column(value: float) -> int:
        return min(max(round((value - low) / (high - low) * (width - 1)), 0), width - 1)

    n_at: dict[int, int] = {}
    for value in sample.values:
        n_at[column(value)] = n_at.get(column(value), 0) + 1
    _, _, *quartiles = sample.quantiles[:5]
    q25, median, q75 = (column(float(each)) for each in quartiles)
    spans = []
    for x in range(width):
        if x == median:
            spans.append(Span("┃", STRONG, color))
        elif x in n_at:
            spans.append(Span(_DOTS[min(n_at[x], len(_DOTS)) - 1], color=color))
        else:
            spans.append(Span("─" if q25 <= x <= q75 else " ", DIM))
    return tuple(spans)


def _axis(frame: Frame, width: int) -> str:
    """The ticks, each below its value; every second, third … one where not all fit."""
    low, high = frame.x_limits
    labels = [f"{tick:.2f}" for tick in frame.x_ticks]
    skip = next((n for n in range(1, len(labels)) if len(labels[::n]) * 6 <= width), max(len(labels) - 1, 1))
    cells = [" "] * width
    for tick, label in list(zip(frame.x_ticks, labels, strict=True))[::skip]:
        at = round((tick - low) / (high - low) * (width - 1)) - len(label) // 2
        at = min(max(at, 0), width - len(label))
        cells[at : at + len(label)] = label
    return "".join(cells)


def _control(selection: Selection, key: SimilarityKey) -> Line:
    return line(
        Span(" layer ", DIM), Span(safe(selection.layer), ACCENT),
        Span("   tokens ", DIM), Span(safe(POOLINGS.get(key.pooling, key.pooling)), ACCENT),
        Span("   images ", DIM), Span(safe(key.probe), ACCENT),
        Span("   by ", DIM), Span(selection.by, ACCENT),
    )  # fmt: skip


def _readout(group: Distribution, name: str, key: SimilarityKey, score: str) -> tuple[Line, ...]:
    said = f"  n = {group.similarity.spread.n}; mean ± sd [95 % of the mean]; [quartiles]"
    lines = [line(Span(name, STRONG), Span(said, DIM))]
    for title, sample in ((short_of(key.measure), group.similarity), (score, group.score)):
        spread = sample.spread
        if spread.mean is None:
            lines.append(line(Span(f"{title} ", DIM), NO_VALUE))
            continue
        q25, median, q75 = (figure(sample.quantiles[i]) for i in (2, 3, 4))
        lines.append(
            line(
                Span(f"{title} ", DIM), f"{figure(spread.mean)} ± {figure(spread.sd)} ",
                Span(f"[{figure(spread.low)}, {figure(spread.high)}]  median ", DIM), median,
                Span(f" [{q25}, {q75}]", DIM),
            )
        )  # fmt: skip
    return tuple(lines)


def _summary(groups: Sequence[Distribution], names: Sequence[str], key: SimilarityKey, score: str) -> str:
    """Which group stays most alike, and which scores best, by the median."""
    having = [(each, name) for each, name in zip(groups, names, strict=True) if each.similarity.quantiles]
    if not having:
        return "No run that is done has this similarity."
    most = max(having, key=lambda pair: pair[0].similarity.quantiles[3])
    least = min(having, key=lambda pair: pair[0].similarity.quantiles[3])
    what = f"Median {label_of(key.measure)} at the last epoch"
    if most is least:
        return f"{what}: {figure(most[0].similarity.quantiles[3])} for {most[1]}."
    medians = [each.similarity.quantiles[3] for each, _ in having]
    highest, lowest = (
        f"{name}{and_others(medians, each.similarity.quantiles[3])} ({figure(each.similarity.quantiles[3])})"
        for each, name in (most, least)
    )
    said = f"{what}: highest for {highest}, lowest for {lowest}"
    scored = [pair for pair in having if pair[0].score.quantiles]
    if not scored:
        return f"{said}."
    best = max(scored, key=lambda pair: pair[0].score.quantiles[3])
    others = and_others([each.score.quantiles[3] for each, _ in scored], best[0].score.quantiles[3])
    return f"{said}; median {score} is highest for {best[1]}{others} ({figure(best[0].score.quantiles[3])})."
