"""What the space view says: similarity against accuracy divergence, and how many runs lie inside T_X(η, ε)."""

from __future__ import annotations

from dataclasses import dataclass

from engine.analysis.estimators import caution, label_of
from engine.analysis.options import TableOptions
from engine.analysis.space import Space, space_counts_table
from engine.analysis.study_data import StudyData
from engine.analysis.table import Table
from simtui.analyses import Found
from simtui.safe_text import fitted, safe, short_names
from simtui.selection import Selection
from simtui.views.layer_map import POOLINGS
from simtui.views.parts import ACCENT, DIM, NO_VALUE, STRONG, Line, Span, count, figure, line
from simtui.views.scatter import Point, Scatter, frame_of, marks

EXPLANATION = (
    "Every finished run: similarity to the pre-trained model (right: more alike) against accuracy divergence A_X, the "
    "reference accuracy minus its own (down is better; reference: the best run of its backbone). Shaded: T_X(η, ε), "
    "similarity ≥ η and divergence ≤ ε. Strong marks are on the Pareto front of their backbone."
)


@dataclass(frozen=True)
class SpaceView:
    """The plot, the counts beside it, and the words."""

    scatter: Scatter
    control: Line
    legend: Line
    beside: tuple[Line, ...]
    readout: tuple[Line, ...]
    warnings: tuple[str, ...]
    summary: str
    run_id: str


def space_view(found: Found, selection: Selection, run_id: str | None, is_colorless: bool) -> SpaceView | None:
    """The view of a space; None where no run is in it."""
    space: Space = found.value
    if not space.runs:
        return None
    records = [run.record for run in space.runs]
    mark = marks([each.spec.backbone.name for each in found.data.records], is_colorless)
    points = tuple(
        Point(record.run_id, float(x), float(y), *mark.of(record), bool(on_front))
        for record, x, y, on_front in zip(records, space.similarity, space.divergence, space.is_on_front, strict=True)
    )
    cursor = run_id if run_id and any(point.key == run_id for point in points) else points[0].key
    # The thresholds are on the plot wherever they are moved to.
    frame = frame_of([*space.similarity, space.eta], [*space.divergence, 0.0, space.epsilon])
    title = f"A_X against {label_of(space.key.measure)}"
    scatter = Scatter(title, points, frame, x_line=space.eta, y_line=space.epsilon, cursor=cursor)
    warning = next((each for each in (caution(r, space.key.measure, space.key.probe) for r in records) if each), "")
    return SpaceView(
        scatter,
        _control(space),
        mark.legend([record.spec.method for record in records]),
        _counts(space_counts_table(found.data, selection.options(space.key))),
        _readout(space, cursor),
        tuple(each for each in (*found.data.partial(space.key, space.layer), warning, space.left_out) if each),
        _summary(space),
        cursor,
    )


def table(data: StudyData, options: TableOptions) -> Table:
    """What is on the screen, as it is exported."""
    from engine.analysis.space import space_table

    return space_table(data, options)


def thresholds(space: Space, until: int) -> Line:
    """What a forecast is of."""
    return line(
        Span(" forecast of T_X   η ", DIM), Span(f"{space.eta:.2f}", ACCENT),
        Span("  ε ", DIM), Span(f"{space.epsilon:.3f}", ACCENT),
        Span("   from epochs 1 to ", DIM), Span(str(until), ACCENT), Span("   t: space", DIM),
    )  # fmt: skip


def _control(space: Space) -> Line:
    return line(
        Span(" η ", DIM), Span(f"{space.eta:.2f}", ACCENT), Span("  ε ", DIM), Span(f"{space.epsilon:.3f}", ACCENT),
        Span("   layer ", DIM), Span(safe(space.layer), ACCENT),
        Span("   tokens ", DIM), Span(safe(POOLINGS.get(space.key.pooling, space.key.pooling)), ACCENT),
        Span("   images ", DIM), Span(safe(space.key.probe), ACCENT),
    )  # fmt: skip


def _counts(found: Table) -> tuple[Line, ...]:
    """A group a line: how many are inside, with the interval of the share."""
    n_names = found.columns.index("n_runs")
    names = [[str(cell) for cell in row[:n_names]] for row in found.rows]
    short = short_names([each[0] for each in names]) if found.columns[0] == "backbone" else {}
    lines = [line(Span(fitted("inside", 21), DIM), Span("  share, 95 %", DIM))]
    for row, each in zip(found.rows, names, strict=True):
        cells = dict(zip(found.columns, row, strict=True))
        name = " ".join([short.get(each[0], each[0]), *each[1:]])
        share = cells["share_inside"]
        bounds = NO_VALUE
        if isinstance(share, float):
            bounds = f"{_percent(cells['share_inside_low'])}–{_percent(cells['share_inside_high'])} %"
        inside = f"{cells['n_inside']}/{cells['n_runs']}"
        role = STRONG if cells["n_inside"] else DIM
        lines.append(line(Span(fitted(safe(name), 21), role), Span(f"{inside:>6} ", role), Span(bounds, DIM)))
    return tuple(lines)


def _percent(cell: object) -> str:
    return f"{100 * cell:.0f}" if isinstance(cell, float) else NO_VALUE


def _readout(space: Space, run_id: str) -> tuple[Line, ...]:
    """All about the run under the cursor."""
    i = next(i for i, run in enumerate(space.runs) if run.record.run_id == run_id)
    where = "inside" if space.is_inside[i] else "outside"
    front = ", on the Pareto front" if space.is_on_front[i] else ""
    return (
        line(Span(safe(run_id), STRONG), Span(f"  {where}{front}", ACCENT if space.is_inside[i] else DIM)),
        line(
            Span("similarity ", DIM), figure(float(space.similarity[i])),
            Span("  divergence ", DIM), figure(float(space.divergence[i])),
            Span(f"  = reference {figure(float(space.reference[i]))} − ", DIM),
            Span(f"{space.metric.removeprefix('test_')} ", DIM), figure(float(space.accuracy[i])),
        ),
    )  # fmt: skip


def _summary(space: Space) -> str:
    n, n_inside = len(space.runs), int(space.is_inside.sum())
    what = f"T_X(η = {space.eta:.2f}, ε = {space.epsilon:.3f}) holds {n_inside} of {count(n, 'run')}"
    references = space.references
    short = short_names([each.backbone for each in references])
    shown = ", ".join(f"{safe(short[each.backbone])} {figure(each.value)}" for each in references[:4])
    more = f" and {len(references) - 4} more" if len(references) > 4 else ""
    is_best = all(each.run_id for each in references)
    score = space.metric.removeprefix("test_")
    rule = f"reference {score} (best run)" if is_best else f"reference {score} (as asked)"
    return f"{what}; {rule}: {shown}{more}."
