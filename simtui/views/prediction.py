"""What the forecast says: which runs will end inside T_X(η, ε), and how often such forecasts fail."""

from __future__ import annotations

from engine.analysis.prediction import PREDICTORS, Failure, Forecast, Prediction
from engine.analysis.table import Spread
from simtui.safe_text import safe, short_names
from simtui.views.parts import (
    ACCENT,
    DIM,
    GOOD,
    NO_VALUE,
    STRONG,
    WARN,
    Column,
    Line,
    Row,
    Sheet,
    Span,
    figure,
    line,
)


def sheet(found: Prediction) -> Sheet:
    """One row a run, those under way first, then those whose forecast was wrong, then the others."""
    short = short_names([each.run.record.spec.backbone.name for each in found.forecasts])
    columns = (
        Column("run", shrinks_to=20), Column("state", rank=4), Column("similarity", "right", rank=1),
        Column("score", "right", rank=2), Column("P(inside)", "right"), Column("P by method", "right", rank=3),
        Column("forecast"), Column("ended"),
    )  # fmt: skip
    return Sheet(columns, tuple(_row(each, short) for each in sorted(found.forecasts, key=_place)))


def errors(found: Prediction) -> tuple[Line, ...]:
    """The model's error on seeds that it has not seen, and what does as well without looking."""
    if found.why_none:
        return (line(Span(f"no forecast: {safe(found.why_none)}", WARN)),)
    lines = [line(Span("on unseen seeds: share wrong [95 %]   Brier score   model − this [95 %]", DIM))]
    return (*lines, *(_error_line(name, found.failures[name]) for name in PREDICTORS if name in found.failures))


def summary(found: Prediction, until: int) -> str:
    """Whether looking at the first epochs helps."""
    space = found.found
    what = f"T_X(η = {space.eta:.2f}, ε = {space.epsilon:.3f}) told from epochs 1 to {until}"
    if not found.failures:
        return f"{what}: {found.why_none or 'nothing can be judged yet'}."
    model = found.failures[PREDICTORS[0]].error
    beaten = [name for name in PREDICTORS[1:] if _is_beaten(found.failures[name].difference)]
    others = [name for name in PREDICTORS[1:] if name not in beaten]
    verdict = "better than both trivial predictors" if not others else f"not shown to be better than {others[-1]}"
    return f"{what}: wrong for {_share(model)} of the runs of unseen seeds; {verdict}."


def _is_beaten(difference: Spread) -> bool:
    return difference.high is not None and difference.high < 0


def _place(each: Forecast) -> tuple[int, str]:
    is_wrong = each.is_inside is not None and each.is_predicted_inside not in (None, each.is_inside)
    return (0 if each.is_inside is None else 1 if is_wrong else 2), each.run.record.run_id


def _row(each: Forecast, short: dict[str, str]) -> Row:
    record = each.run.record
    spec = record.spec
    is_wrong = each.is_inside is not None and each.is_predicted_inside not in (None, each.is_inside)
    return Row(
        record.run_id,
        (
            Span(f"{safe(short[spec.backbone.name])} {spec.method} seed {spec.seed}"),
            Span(str(record.state), DIM),
            Span(figure(each.similarity)),
            Span(figure(each.score)),
            Span(figure(each.probability_inside, 2), STRONG),
            Span(figure(each.probability_by_method, 2), DIM),
            Span(_word(each.is_predicted_inside), WARN if is_wrong else ACCENT),
            Span(_word(each.is_inside), GOOD if each.is_inside else DIM),
        ),
    )


def _word(is_inside: bool | None) -> str:
    return NO_VALUE if is_inside is None else "inside" if is_inside else "outside"


def _error_line(name: str, failure: Failure) -> Line:
    return line(
        Span(f" {name:<30}", STRONG if name == PREDICTORS[0] else DIM),
        f"{_share(failure.error):<20}",
        f"{figure(failure.brier.mean):<8}",
        Span("" if name == PREDICTORS[0] else _share(failure.difference), DIM),
    )


def _share(spread: Spread) -> str:
    if spread.mean is None:
        return NO_VALUE
    mean, low, high = (round(100 * (each or 0.0)) for each in (spread.mean, spread.low, spread.high))  # no -0
    return f"{mean} %" + ("" if spread.low is None else f" [{low}, {high}]")
