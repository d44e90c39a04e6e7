"""What the correlation view says: similarity against a quality metric, with the lines that can be laid through it."""

from __future__ import annotations

from dataclasses import dataclass

from engine.analysis.association import Coefficient, Line
from engine.analysis.correlation import Correlation
from engine.analysis.estimators import caution, label_of
from engine.quality.table import QUALITY
from engine.runs.record import RunRecord
from simtui.analyses import Found
from simtui.palette import FAINT_COLOR, MARK_COLOR
from simtui.plotting import Frame, Series
from simtui.safe_text import fitted, safe
from simtui.selection import Selection
from simtui.views import parts
from simtui.views.layer_map import POOLINGS
from simtui.views.parts import ACCENT, DIM, NO_VALUE, STRONG, Span, count, figure, line
from simtui.views.scatter import Point, Scatter, frame_of, marks

EXPLANATION = (
    "Similarity to the pre-trained model against a quality metric (M steps through them): one mark a run at its last "
    "epoch, or one an epoch (v). ◆ are the means over intervals of similarity as in the paper's figure 5, with their "
    "line; the fainter line is fitted to all points. Both fits and the correlations stand at the side, "
    "also within backbones and methods."
)
_SEPARATOR = "\n"


@dataclass(frozen=True)
class CorrelationView:
    """The plot, the figures beside it, and the words."""

    scatter: Scatter
    control: parts.Line
    legend: parts.Line
    beside: tuple[parts.Line, ...]
    readout: tuple[parts.Line, ...]
    warnings: tuple[str, ...]
    summary: str
    run_id: str


def correlation_view(
    found: Found, selection: Selection, run_id: str | None, point: str | None, is_colorless: bool
) -> CorrelationView | None:
    """The view of a correlation; None where no run has both a similarity and the metric.

    Args:
        point: the key of the point under the cursor; None for the last of the run.
    """
    correlation: Correlation = found.value
    if not correlation.points.n:
        return None
    points, records = _points(found, correlation, is_colorless)
    keys = [each.key for each in points]
    of_run = (key for key in reversed(keys) if run_of(key) == run_id)  # its last epoch
    cursor = point if point in keys else next(of_run, keys[0])
    scatter = _scatter(correlation, points, cursor, is_colorless)
    mark = marks([each.spec.backbone.name for each in found.data.records], is_colorless)
    cautions = (caution(record, correlation.key.measure, correlation.key.probe) for record in records)
    left_out = correlation.points.n_left_out
    said = f"{count(left_out, 'point')} without a similarity or without the metric left out" if left_out else ""
    warning = next((each for each in cautions if each), "")
    partial = found.data.partial(correlation.key, correlation.layer)
    legend = mark.legend([record.spec.method for record in records])
    means = "+" if is_colorless else "◆"
    return CorrelationView(
        scatter,
        _control(correlation, selection),
        (Span(f" {means}", STRONG, "" if is_colorless else MARK_COLOR), Span(" interval mean  ", DIM), *legend),
        _figures(correlation),
        _readout(correlation, found, cursor),
        tuple(each for each in (*correlation.warnings, *partial, warning, found.data.twins, said) if each),
        _summary(correlation),
        run_of(cursor),
    )


def run_of(key: str) -> str:
    """The run of a point."""
    return key.split(_SEPARATOR)[0]


def metric_label(metric: str) -> str:
    """A metric as people name it."""
    name = metric.removeprefix("test_").removeprefix("val_")
    label = QUALITY[name].label if name in QUALITY else name.replace("_", " ")
    return label if name == metric or metric.startswith("test_") else f"{label} ({metric.partition('_')[0]})"


def _points(
    found: Found, correlation: Correlation, is_colorless: bool
) -> tuple[tuple[Point, ...], tuple[RunRecord, ...]]:
    mark = marks([each.spec.backbone.name for each in found.data.records], is_colorless)
    points = correlation.points
    records = found.data.records
    made = []
    for place, epoch, x, y in zip(
        points.runs.tolist(), points.epochs.tolist(), points.x.tolist(), points.y.tolist(), strict=True
    ):
        key = f"{records[place].run_id}{_SEPARATOR}{epoch}"
        made.append(Point(key, x, y, *mark.of(records[place])))
    return tuple(made), tuple(records[place] for place in dict.fromkeys(points.runs.tolist()))


def _scatter(correlation: Correlation, points: tuple[Point, ...], cursor: str, is_colorless: bool) -> Scatter:
    glyph, color = ("+", "") if is_colorless else ("◆", MARK_COLOR)
    means = tuple(
        Point(f"interval {each.low:g}", each.x, each.y.mean, glyph, color, is_strong=True, is_summary=True)
        for each in correlation.intervals
        if each.y.mean is not None
    )
    frame = frame_of([point.x for point in points], [point.y for point in points])
    lines = [(correlation.interval_line, MARK_COLOR), (correlation.all.line, FAINT_COLOR)]
    drawn = [(_series(each, frame), each_color) for each, each_color in lines if each is not None]
    kept = [(series, each_color) for series, each_color in drawn if series is not None]
    title = f"{metric_label(correlation.metric)} against {label_of(correlation.key.measure)}"
    return Scatter(
        title,
        (*points, *means),
        frame,
        tuple(series for series, _ in kept),
        tuple("" if is_colorless else each_color for _, each_color in kept),
        cursor=cursor,
    )


def _series(fit: Line, frame: Frame) -> Series | None:
    """The part of a line that lies on the plot."""
    (low, high), (bottom, top) = frame.x_limits, frame.y_limits
    xs = [low + (high - low) * i / 40 for i in range(41)]
    inside = [(x, fit.at(x)) for x in xs if bottom <= fit.at(x) <= top]
    if len(inside) < 2:
        return None
    x, y = (tuple(values) for values in zip(*inside, strict=True))
    return Series(x, y, y, y)


def _control(correlation: Correlation, selection: Selection) -> parts.Line:
    key = correlation.key
    return line(
        Span(" metric ", DIM), Span(safe(correlation.metric), ACCENT),
        Span("  layer ", DIM), Span(safe(correlation.layer), ACCENT),
        Span("  tokens ", DIM), Span(safe(POOLINGS.get(key.pooling, key.pooling)), ACCENT),
        Span("  on ", DIM), Span(safe(key.probe), ACCENT),
        Span("  over ", DIM), Span(correlation.over.removeprefix("runs and "), ACCENT),
    )  # fmt: skip


def _figures(correlation: Correlation) -> tuple[parts.Line, ...]:
    """Correlations and fits, one below the other."""
    whole, within = correlation.all, correlation.within
    n_means = sum(each.y.mean is not None for each in correlation.intervals)
    lines = [line(Span(f"{whole.n_points} points, {count(whole.n_runs, 'run')}; [95 %]", DIM))]
    for name, found in (("all points", whole), ("within groups", within)):
        lines.append(line(Span(name, STRONG)))
        if found.why:
            lines += list(parts.wrapped(f" {found.why}", 36, 2, DIM))
            continue
        lines.append(line(Span(" Pearson  ", DIM), _coefficient(found.pearson)))
        lines.append(line(Span(" Spearman ", DIM), _coefficient(found.spearman)))
    lines.append(line(Span("fit on all points", STRONG)))
    lines.append(_fit(whole.line))
    lines.append(line(Span(f"line through {n_means} means", STRONG)))
    lines.append(_fit(correlation.interval_line) if correlation.interval_line else line(Span(" needs 3 means", DIM)))
    least = f" of intervals {correlation.width:g} wide, n ≥ {correlation.min_count}"
    lines.append(line(Span(least, DIM)))
    return tuple(lines)


def _coefficient(found: Coefficient) -> str:
    if found.value is None:
        return NO_VALUE
    bounds = "" if found.low is None else f" [{figure(found.low, 2)}, {figure(found.high, 2)}]"
    p = "" if found.p is None else " p " + ("< .001" if found.p < 0.001 else f"{found.p:.3f}".replace("0.", ".", 1))
    return f"{figure(found.value, 2)}{bounds}{p}"


def _fit(found: Line | None) -> parts.Line:
    if found is None:
        return line(Span(f" {NO_VALUE}", DIM))
    return line(Span(" slope ", DIM), f"{found.slope:.3g}", Span("  R² ", DIM), figure(found.r_squared, 2))


def _readout(correlation: Correlation, found: Found, cursor: str) -> tuple[parts.Line, ...]:
    points, (run_id, epoch) = correlation.points, cursor.split(_SEPARATOR)
    at = next(
        i
        for i, (place, each) in enumerate(zip(points.runs.tolist(), points.epochs.tolist(), strict=True))
        if each == int(epoch) and found.data.records[place].run_id == run_id
    )
    return (
        line(Span(safe(run_id), STRONG), Span(f"  epoch {epoch}", DIM)),
        line(
            Span("similarity ", DIM), figure(float(points.x[at])),
            Span(f"  {fitted(metric_label(correlation.metric), 30).rstrip()} ", DIM), figure(float(points.y[at])),
        ),
    )  # fmt: skip


def _summary(correlation: Correlation) -> str:
    whole, within, metric = correlation.all, correlation.within, metric_label(correlation.metric)
    what = f"{label_of(correlation.key.measure)} and {metric}"
    if whole.pearson.value is None:
        return f"{what}: no correlation can be given; {whole.why}."
    inside = "" if within.pearson.value is None else f"; within backbones and methods {_coefficient(within.pearson)}"
    return f"{what}: Pearson {_coefficient(whole.pearson)} over {count(whole.n_points, 'point')}{inside}."
