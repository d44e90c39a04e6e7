"""What the trajectories view says: similarity and accuracy over the epochs, mean ± sd over the seeds, in words too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.analysis.estimators import caution
from engine.analysis.options import MEAN_OF_LAYERS
from engine.analysis.table import Spread
from engine.analysis.trajectory import Curve, Trajectory
from engine.runs.record import RunRecord
from engine.runs.results import SimilarityKey
from simtui.analyses import Found
from simtui.palette import curve_color, curve_letter, has_own_color
from simtui.plotting import Frame, Series
from simtui.safe_text import fitted, safe, short_names
from simtui.selection import Band, Selection
from simtui.views.layer_map import POOLINGS, measure_name
from simtui.views.parts import ACCENT, DIM, NO_VALUE, STRONG, Line, Span, count, figure, line, spread

EXPLANATION = (
    "Similarity of a block to the same block of the pre-trained model (left) and test accuracy (right; AUROC where "
    "images have several labels), mean over the seeds. s turns the band from one standard deviation to the 95 % "
    "interval of the mean and to the single runs. At epoch 0 the head is untrained."
)
_NO_SPREAD = Spread(None, None, 0)


@dataclass(frozen=True)
class Panel:
    """One plot: what it shows, its curves and its axes."""

    title: str
    series: tuple[Series, ...]
    frame: Frame


@dataclass(frozen=True)
class CurvesView:
    """Two panels, the readout at one epoch, and the words."""

    similarity: Panel
    accuracy: Panel
    shown: tuple[Trajectory, ...]
    names: tuple[str, ...]
    epoch: int
    n_epochs: int
    control: Line
    summary: str

    def stepped(self, step: int) -> int:
        """The next epoch of which anything is known, or the first or last; imported runs have gaps."""
        known = {int(x) for panel in (self.similarity, self.accuracy) for series in panel.series for x in series.x} | {
            0,
            self.n_epochs - 1,
        }
        beyond = [each for each in known if (each - self.epoch) * step > 0]
        return min(beyond, key=lambda each: abs(each - self.epoch), default=self.epoch)


def overlaid(found: Sequence[Trajectory], selection: Selection) -> tuple[Trajectory, ...]:
    """The trajectories that the overlay lays over each other."""
    if selection.overlay == "all" or not found:
        return tuple(found)
    field = "backbone" if selection.overlay == "methods" else "method"
    wanted = fixed_group(found, selection)
    return tuple(each for each in found if getattr(each, field) == wanted)


def groups(found: Sequence[Trajectory], selection: Selection) -> tuple[str, ...]:
    """What `n` steps through: backbones where methods are overlaid, methods where backbones are."""
    field = "backbone" if selection.overlay == "methods" else "method"
    return () if selection.overlay == "all" else tuple(dict.fromkeys(getattr(each, field) for each in found))


def fixed_group(found: Sequence[Trajectory], selection: Selection) -> str:
    """The one backbone (or method) whose methods (or backbones) are overlaid."""
    known = groups(found, selection)
    wanted = selection.backbone if selection.overlay == "methods" else selection.method
    return wanted if wanted in known or not known else known[0]


def curves_view(
    found: Found, key: SimilarityKey, selection: Selection, is_colorless: bool = False
) -> CurvesView | None:
    """The view of what the reader found; None where no run has this similarity."""
    shown = overlaid(found.value, selection)
    if not shown:
        return None
    n_epochs = max(len(curve.epochs) for each in shown for curve in (each.similarity, each.accuracy))
    epoch = selection.epoch_among(n_epochs)
    names = _names(shown, found.value, selection)
    score = shown[0].score.label
    run_ids = {run_id for each in shown for run_id in each.run_ids}
    planned = max((each.spec.epochs for each in found.data.records if each.run_id in run_ids), default=0)
    panels = [
        _panel(
            title, [getattr(each, field) for each in shown], max(n_epochs - 1, planned), selection.band, is_colorless
        )
        for title, field in ((measure_name(key), "similarity"), (f"test {score}", "accuracy"))
    ]
    return CurvesView(
        panels[0],
        panels[1],
        shown,
        names,
        epoch,
        n_epochs,
        _control(found, key, selection, epoch, n_epochs),
        _summary(shown, names, key, selection.layer, epoch),
    )


def legend(view: CurvesView, width: int, is_colorless: bool = False, height: int = 99) -> tuple[Line, ...]:
    """One line a curve: its mark, its name, and its figures at the epoch under the cursor; as many as there is room."""
    title, label = f"at epoch {view.epoch}", view.shown[0].score.label
    is_wide = width >= 100
    cell_width, tail = (30, " ± sd [95 %]") if is_wide else (15, " ± sd")
    room = width - 22 - 2 * cell_width
    name_width = min(max(len(name) for name in (title, *view.names)), max(room, len(title)))
    titles = f"{'similarity' + tail:<{cell_width}}  {label + tail:<{cell_width}}"
    head = line(Span(f"    {fitted(title, name_width)}  {titles}  seeds", DIM))
    lines = [head]
    for i, (each, name) in enumerate(zip(view.shown, view.names, strict=True)):
        similarity, accuracy = (at_epoch(curve, view.epoch) for curve in (each.similarity, each.accuracy))
        mark = f" {curve_letter(i)} " if is_colorless or not has_own_color(i) else " ━━"
        lines.append(
            line(
                Span(mark, color="" if is_colorless else curve_color(i)),
                f" {fitted(name, name_width)}  ",
                Span(f"{_figures(similarity, is_wide):<{cell_width}}", STRONG),
                f"  {_figures(accuracy, is_wide):<{cell_width}}  ",
                Span(f"n = {max(similarity.n, accuracy.n)}", DIM),
            )
        )
    if len(lines) > height:
        left_out = count(len(lines) - height + 1, "curve")
        lines[height - 1 :] = [line(Span(f"    {left_out} more: in a higher terminal, or v for fewer", DIM))]
    return tuple(lines)


def _figures(found: Spread, with_interval: bool) -> str:
    if not with_interval or found.low is None:
        return spread(found)
    return f"{spread(found)} [{figure(found.low)}, {figure(found.high)}]"


def warnings(
    found: Found, records: Sequence[RunRecord], key: SimilarityKey, layer: str = MEAN_OF_LAYERS
) -> tuple[str, ...]:
    """What must be known so that no curve misleads: runs left out, and an estimator that says too much."""
    left_out = (
        f"{count(len(found.data.unreadable), 'run')} with damaged results left out" if found.data.unreadable else ""
    )
    inflated = next((each for record in records if (each := caution(record, key.measure, key.probe))), "")
    return tuple(each for each in (*found.data.partial(key, layer), left_out, inflated) if each)


def at_epoch(curve: Curve, epoch: int) -> Spread:
    """The spread at one epoch; of nothing where no run has reached it."""
    return curve.spreads[curve.epochs.index(epoch)] if epoch in curve.epochs else _NO_SPREAD


def _names(shown: Sequence[Trajectory], found: Sequence[Trajectory], selection: Selection) -> tuple[str, ...]:
    short = short_names([each.backbone for each in found])
    if selection.overlay == "methods":
        return tuple(each.method for each in shown)
    if selection.overlay == "backbones":
        return tuple(safe(short[each.backbone]) for each in shown)
    return tuple(f"{safe(short[each.backbone])}, {each.method}" for each in shown)


def _panel(title: str, curves: Sequence[Curve], last_epoch: int, band: Band, is_colorless: bool) -> Panel:
    series = tuple(
        _series(curve, band, curve_letter(i) if is_colorless or not has_own_color(i) else "braille")
        for i, curve in enumerate(curves)
    )
    behind = (value for each in series for _, y in each.behind for value in y)
    values = [*behind, *(value for each in series for value in (*each.low, *each.high))] or [0.0, 1.0]
    # A step of 0.1 keeps the axis still while a running study adds epochs; it never leaves a curve outside.
    low, high = math.floor(min(values) * 10 + 1e-9) / 10, math.ceil(max(values) * 10 - 1e-9) / 10
    if high - low < 0.2:
        low, high = (low - 0.1, high) if high >= 1.0 else (low, low + 0.2)
    tenths = range(round(low * 10), round(high * 10) + 1)
    y_ticks = tuple(tenth / 10 for tenth in tenths if len(tenths) <= 6 or tenth % 2 == 0)
    last = max(last_epoch, 1)  # the planned one: the curves of a running study grow, and do not move
    x_step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if last / step <= 6)
    x_ticks = tuple(float(tick) for tick in range(0, last + 1, x_step))
    return Panel(title, series, Frame((0.0, float(last)), (low, high), x_ticks, y_ticks))


def _series(curve: Curve, band: Band, marker: str) -> Series:
    """The epochs that have a mean, and what lies behind them; an epoch of one seed has no band."""
    points = [
        (float(epoch), each.mean, *_bounds(each, band))
        for epoch, each in zip(curve.epochs, curve.spreads, strict=True)
        if each.mean is not None
    ]
    return Series(
        tuple(x for x, *_ in points),
        tuple(mean for _, mean, _, _ in points),
        tuple(low for _, _, low, _ in points),
        tuple(high for _, _, _, high in points),
        marker,
        tuple(_single(run) for run in curve.runs) if band == "runs" else (),
    )


def _bounds(spread: Spread, band: Band) -> tuple[float, float]:
    """The lower and upper end of the band at one epoch."""
    mean = spread.mean or 0.0
    if band == "95 %" and spread.low is not None and spread.high is not None:
        return spread.low, spread.high
    if band == "sd" and spread.sd is not None:
        return mean - spread.sd, mean + spread.sd
    return mean, mean


def _single(run: Sequence[float | None]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The epochs at which one run has a value, and its values."""
    points = [(float(epoch), value) for epoch, value in enumerate(run) if value is not None]
    return tuple(x for x, _ in points), tuple(y for _, y in points)


def _control(found: Found, key: SimilarityKey, selection: Selection, epoch: int, n_epochs: int) -> Line:
    layers = found.data.layers
    place = f" ({layers.index(selection.layer) + 1} of {len(layers)})" if selection.layer in layers else ""
    fixed = fixed_group(found.value, selection)
    fixed = short_names([each.backbone for each in found.value]).get(fixed, fixed)
    over = {"methods": "methods of ", "backbones": "backbones, ", "all": "all backbones and methods"}[selection.overlay]
    band = {"sd": "± sd", "95 %": "95 % of the mean", "runs": "single runs"}[selection.band]
    return (
        Span(" layer ", DIM), Span(safe(selection.layer) + place, ACCENT),
        Span("  epoch ", DIM), Span(f"{epoch} of {n_epochs - 1}", ACCENT),
        Span(f"  {band} on ", DIM), Span(safe(key.probe), ACCENT),
        Span("  ", DIM), Span(over + (safe(fixed) if selection.overlay != "all" else ""), ACCENT),
    )  # fmt: skip


def profile_control(key: SimilarityKey) -> Line:
    """What the layer profile is of."""
    return line(
        Span(" profile of ", DIM), Span(measure_name(key), ACCENT),
        Span("   images ", DIM), Span(safe(key.probe), ACCENT),
        Span("   d: curves", DIM),
    )  # fmt: skip


def _summary(shown: Sequence[Trajectory], names: Sequence[str], key: SimilarityKey, layer: str, epoch: int) -> str:
    """What is most alike and least alike at this epoch, and what that bought."""
    where = "averaged over the blocks" if layer == MEAN_OF_LAYERS else f"of {safe(layer)}"
    what = f"{safe(POOLINGS.get(key.pooling, key.pooling))} similarity {where} at epoch {epoch}"
    found = [
        (spread_.mean, name, spread_, at_epoch(each.accuracy, epoch))
        for each, name in zip(shown, names, strict=True)
        if (spread_ := at_epoch(each.similarity, epoch)).mean is not None
    ]
    if not found:
        return f"{what}: not measured for any of these runs."
    found.sort(key=lambda each: -(each[0] or 0.0))
    label = shown[0].score.label
    phrases = [
        f"{name} {spread(similarity)} with {label} {spread(accuracy) if accuracy.mean is not None else NO_VALUE}"
        for _, name, similarity, accuracy in (found if len(found) <= 2 else (found[0], found[-1]))
    ]
    n_seeds = sorted({similarity.n for _, _, similarity, _ in found})
    over = count(n_seeds[0], "seed") if len(n_seeds) == 1 else f"{n_seeds[0]}–{n_seeds[-1]} seeds"
    if len(phrases) == 1:
        return f"{what}, over {over}: {phrases[0]}."
    return f"{what}, over {over}: highest for {phrases[0]}; lowest for {phrases[1]}."
