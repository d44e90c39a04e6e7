"""The tables of a correlation: coefficients, the means over intervals, and the points behind them."""

from __future__ import annotations

from engine.analysis import bootstrap
from engine.analysis.association import EXACT_UP_TO, Association, Line
from engine.analysis.correlation import FLATTERS_BY, Correlation, correlation
from engine.analysis.estimators import column_of, notes_on
from engine.analysis.options import TableOptions
from engine.analysis.study_data import StudyData, group_columns
from engine.analysis.table import Cell, Table
from engine.quality.table import QUALITY

_COEFFICIENT_COLUMNS = tuple(
    f"{name}{what}" for name in ("pearson", "spearman") for what in ("", "_low", "_high", "_p")
)
_COLUMNS = (
    "n_points", "n_runs", *_COEFFICIENT_COLUMNS, "slope", "intercept", "r_squared",
    "interval_slope", "interval_intercept", "interval_r_squared", "n_intervals",
)  # fmt: skip
_OF_MEANS = (
    "_standard_error: of the mean, a run counted as one draw however many epochs it gives; _low and _high: its 95 % "
    "interval, where runs give several points by Student's t of n_runs − 1; from one run there is none"
)
ALL, WITHIN = "all points", "within backbones and methods"


def correlation_table(data: StudyData, options: TableOptions) -> Table:
    """One row for all points, one for what is left within backbones and methods, one a group of `options.by`.

    Raises:
        StudyError: no such similarity, layer or metric.
    """
    found = correlation(data, options)
    named = group_columns(options.by)
    nothing = (None,) * (len(named) - 1)
    n_intervals = sum(each.y.mean is not None for each in found.intervals)
    rows: list[tuple[Cell, ...]] = [
        (ALL, *nothing, *_cells(found.all), *_line_cells(found.interval_line), n_intervals),
        (WITHIN, *nothing, *_cells(found.within, has_intercept=False), None, None, None, None),
        *((*names, *_cells(each), None, None, None, None) for names, each in found.groups),
    ]
    undefined = tuple(
        f"undefined for {' '.join(names)}: {each.why}" if each.why
        else f"no interval for {' '.join(names)}: {each.why_no_interval}"
        for names, each in (((ALL,), found.all), ((WITHIN,), found.within), *found.groups)
        if each.why or each.why_no_interval
    )  # fmt: skip
    return Table(
        "correlation", (*named, *_COLUMNS), tuple(rows) if data.runs else (), (*_notes(found, data), *undefined)
    )


def correlation_intervals_table(data: StudyData, options: TableOptions) -> Table:
    """One row an interval of similarity that holds a point; without figures where it holds too few.

    Raises:
        StudyError: as `correlation_table`.
    """
    found = correlation(data, options)
    rows = tuple(
        (each.low, each.high, each.n, each.n_runs, each.x, each.y.mean, each.y.sd, each.standard_error,
         each.y.low, each.y.high)
        for each in found.intervals
    )  # fmt: skip
    columns = (
        "interval_low", "interval_high", "n_points", "n_runs", f"{column_of(found.key)}_mean",
        *(f"{found.metric}_{what}" for what in ("mean", "sd", "standard_error", "low", "high")),
    )  # fmt: skip
    return Table("correlation_intervals", columns, rows, (*_notes(found, data), _OF_MEANS, bootstrap.NOTE))


def correlation_points_table(data: StudyData, options: TableOptions) -> Table:
    """One row a point.

    Raises:
        StudyError: as `correlation_table`.
    """
    found = correlation(data, options)
    points = found.points
    rows: list[tuple[Cell, ...]] = []
    figures = zip(points.runs.tolist(), points.epochs.tolist(), points.x.tolist(), points.y.tolist(), strict=True)
    for place, epoch, x, y in figures:
        record = data.runs[place].record
        spec = record.spec
        rows.append((record.run_id, spec.backbone.name, spec.method, spec.seed, found.layer, epoch, x, y))
    columns = ("run", "backbone", "method", "seed", "layer", "epoch", column_of(found.key), found.metric)
    return Table("correlation_points", columns, tuple(rows), _notes(found, data))


def _cells(found: Association, *, has_intercept: bool = True) -> tuple[Cell, ...]:
    coefficients = (
        cell for each in (found.pearson, found.spearman) for cell in (each.value, each.low, each.high, each.p)
    )
    slope, intercept, r_squared = _line_cells(found.line)
    return found.n_points, found.n_runs, *coefficients, slope, intercept if has_intercept else None, r_squared


def _line_cells(line: Line | None) -> tuple[Cell, ...]:
    return (None, None, None) if line is None else (line.slope, line.intercept, line.r_squared)


def _notes(found: Correlation, data: StudyData) -> tuple[str, ...]:
    is_runs = found.over == "runs"
    what = "one point a run that is done, at its last epoch" if is_runs else "one point an epoch of each run, from 1 on"
    if not is_runs and found.points.n == found.all.n_runs:
        what += "; but the metric exists at one epoch of each run only, so that it is one point a run"
    n_thin = sum(each.y.mean is None for each in found.intervals)
    how = (
        "intervals of coefficients: 95 %, Fisher's z (Spearman: variance of Bonett & Wright 2000); p: Student's t, but "
        f"for Spearman all orders of up to {EXACT_UP_TO} points; runs are taken as independent draws"
        if is_runs
        else "intervals of coefficients: 95 %, Fisher's z with a run counted as one draw (sums of influences by run, "
        "Student's t); no p where runs give several points; similarity and metric may both drift as training goes on, "
        "which alone makes a correlation"
    )
    least = f"{found.width:g} wide, from multiples of it, with at least {found.min_count} points"
    left_out = found.points.n_left_out
    metric = found.metric.removeprefix("test_").removeprefix("val_").removeprefix("origin_")
    return (
        f"{column_of(found.key)}, {found.layer}, against {found.metric}; {what}",
        how,
        f"interval_*: line through the means of intervals {least}, each counted once at its mean similarity; it "
        f"flatters where its R² is more than {FLATTERS_BY:g} above that over the points",
        f"{WITHIN}: after the mean of each backbone and method is taken out of both",
        f"{n_thin} of {len(found.intervals)} intervals hold fewer points, and have no mean",
        *found.warnings,
        *((f"left out: {left_out} points without a similarity or without the metric",) if left_out else ()),
        *((f"{metric}: {QUALITY[metric].label}; {QUALITY[metric].reference}",) if metric in QUALITY else ()),
        *notes_on(data.records, [found.key.measure], found.key.probe),
        *data.notes(found.key, found.layer, finals_only=is_runs),
    )
