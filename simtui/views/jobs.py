"""The table of the jobs view: a row for the study and one a run, those that go on first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.cells import cell_len

from engine.analysis.score import score_of
from engine.jobs.details import JobDetails
from engine.jobs.progress import Condition, StudyProgress
from engine.jobs.stage import RunProgress
from engine.runs.record import RunRecord, State
from simtui.reader import Snapshot
from simtui.safe_text import ELLIPSIS, safe, short_names
from simtui.views.parts import (
    ACCENT,
    DIM,
    ERROR,
    NO_VALUE,
    NORMAL,
    STRONG,
    WARN,
    Column,
    Row,
    Sheet,
    Span,
    figure,
    fit_columns,
)  # fmt: skip
from simtui.views.progress import duration
from simtui.views.runs import STATES

EXPLANATION = (
    "What the study does now. loss: of the step a run is at, else the mean of its last epoch; val: on the validation "
    "images after its last epoch; by epoch: from epoch 0, each bar from its own least to its own most. waiting: share "
    "of training spent waiting for images. left: by the epochs measured so far. Stopping loses nothing that c does not "
    "make again."
)
STUDY = ""  # the key of the row that stands for the whole study
# What is done before what waits: a run that ends under the cursor stays in sight.
_ORDER = (State.RUNNING, State.FAILED, State.INTERRUPTED, State.STOPPED, State.DONE, State.QUEUED)
_BAR, _SPARK = 8, 10
_BLOCKS = "▁▂▃▄▅▆▇█"
_MARKS = {
    Condition.NEW: ("· not started", DIM),
    Condition.STARTING: ("▶ starting", ACCENT),
    Condition.RUNNING: ("▶ running", ACCENT),
    Condition.PAUSED: ("! paused", WARN),
    Condition.STOPPING: ("■ stopping", WARN),
    Condition.FINISHED: ("✓ finished", DIM),
    Condition.STOPPED: ("■ stopped", WARN),
    Condition.INTERRUPTED: ("! interrupted", WARN),
    Condition.FAILED: ("✗ failed", ERROR),
}


def sheet(snapshot: Snapshot, details: JobDetails | None, width: int, is_plain: bool) -> Sheet:
    """The study, then its runs: those that go on, those that need a look, those that are done, those that wait.

    Args:
        width: of the table; where columns leave room, reasons take it.
        is_plain: figures in place of small bars.
    """
    progress = snapshot.progress
    assert progress is not None
    newest_first = sorted(snapshot.records, key=_begun, reverse=True)
    ordered = sorted(newest_first, key=lambda record: _ORDER.index(record.state))
    short = short_names([record.spec.backbone.name for record in ordered])
    histories = details.histories if details else {}
    titles = columns(ordered)
    has_device = any(hint.device for hint in progress.runs.values())
    rows = [
        _run_row(record, f"{safe(short[record.spec.backbone.name])} {record.spec.method} {record.spec.seed}",
                 progress, {} if record.state is State.DONE else histories.get(record.run_id, {}), is_plain)
        for record in ordered
    ]  # fmt: skip
    gone = [
        Row(each.run_id, (Span(safe(each.run_id), ERROR), *(Span("") for _ in titles[2:]), Span("✗ damaged", ERROR)))
        for each in snapshot.damaged
    ]
    made = Sheet(titles, (_study_row(progress), *rows, *gone))
    if not has_device:
        made = _without(made, "device")
    reasons = {record.run_id: record.reason for record in ordered if record.state is not State.RUNNING}
    return _with_reasons(made, reasons | {each.run_id: each.error.problem for each in snapshot.damaged}, width)


def columns(records: Sequence[RunRecord]) -> tuple[Column, ...]:
    """The columns; the validation score is that of the study's task."""
    return (
        Column("run", shrinks_to=18),
        Column("epoch", "right"),
        Column("of epoch", rank=1),
        Column("loss", "right"),
        Column("by epoch", rank=2),
        Column(f"val {score_of(records).label}".replace("accuracy", "acc"), "right", rank=3),
        Column("by epoch", rank=5),
        Column("images/s", "right", rank=4),
        Column("waiting", "right", rank=6),
        Column("left", "right"),
        Column("device", rank=7),
        Column("state"),
    )


def sparkline(values: Sequence[float | None], width: int = _SPARK) -> str:
    """The course of a figure in blocks, from its least to its most; a longer course is thinned out evenly."""
    n = len(values)
    if n > width:
        values = [values[round(i * (n - 1) / (width - 1))] for i in range(width)]
    known = [value for value in values if value is not None and math.isfinite(value)]
    low, span = (min(known), max(known) - min(known)) if known else (0.0, 0.0)
    steps = len(_BLOCKS) - 1
    return "".join(
        " " if value is None or not math.isfinite(value)
        else _BLOCKS[round((value - low) / span * steps) if span > 0 else steps // 2]
        for value in values
    )  # fmt: skip


def course(values: Sequence[float | None], is_plain: bool) -> str:
    """How a figure has gone, in the width of a column: blocks, or its first and last value."""
    if not is_plain:
        return sparkline(values)
    return f"{figure(values[0], 2)}→{figure(values[-1], 2)}" if values else ""


def bar(done: float, width: int, is_plain: bool) -> tuple[str, str]:
    """A bar in two parts: what is done, what is not."""
    full = min(max(int(done * width), 0), width)
    return ("#" if is_plain else "━") * full, ("." if is_plain else "─") * (width - full)


def clipped(text: str, width: int) -> str:
    """The start of a text; an ellipsis says that it goes on."""
    if cell_len(text) <= width:
        return text
    if width < 1:
        return ""
    while text and cell_len(text) > width - 1:
        text = text[: max(width - 1, 0)] if len(text) > width else text[:-1]
    return text.rstrip() + ELLIPSIS


def val_metric(records: Sequence[RunRecord]) -> str:
    """The score of the task, on the validation images."""
    return score_of(records).metric.replace("test_", "val_", 1)


def done_share(progress: StudyProgress) -> float:
    """How much of all epochs is done, those under way in part."""
    inside = sum(hint.step / hint.steps for hint in progress.runs.values() if 0 < hint.step < hint.steps)
    return min((progress.epochs_done + inside) / progress.epochs_total, 1.0) if progress.epochs_total else 0.0


def _study_row(progress: StudyProgress) -> Row:
    speed = sum(each.images_per_s for each in progress.runs.values())
    blank = Span("")
    return Row(
        STUDY,
        (
            Span("whole study", STRONG),
            Span(f"{math.floor(done_share(progress) * 100)} %"),
            blank, blank, blank, blank, blank,
            Span(f"{speed:6.0f}" if speed else ""), blank,
            Span(_time_left(progress.time_left_s) if progress.is_running else ""), blank,
            Span(*_MARKS[progress.condition]),
        ),
    )  # fmt: skip


def _begun(record: RunRecord) -> str:
    """When the last process began to work on a run that is done; others keep the order of the study."""
    return record.sessions[-1].started_at if record.sessions and record.state is State.DONE else ""


def _time_left(seconds: float | None) -> str:
    """`40 s`, `12 min`, `1.7 h`: always of one width, so that nothing jumps."""
    if seconds is None:
        return f"{NO_VALUE:>6}"
    hours = seconds / 3600
    text = duration(seconds) if seconds < 3570 else f"{hours:.1f} h" if hours < 99.95 else f"{hours:.0f} h"
    return f"{text:>6}"


def _run_row(
    record: RunRecord, name: str, progress: StudyProgress, history: Mapping[str, Sequence[float | None]], is_plain: bool
) -> Row:
    hint = progress.runs.get(record.run_id)
    mark, role = STATES[record.state]
    is_running = record.state is State.RUNNING
    figures = NORMAL if is_running else DIM
    left_s = progress.run_left_s.get(record.run_id)
    metric = val_metric([record])
    loss = hint.loss if hint else record.last.get("train_loss")
    return Row(
        record.run_id,
        (
            Span(name),
            Span(f"{hint.epoch if hint else max(record.epochs_done, 0)}/{record.spec.epochs}", figures),
            Span("".join(bar(_inside(hint), _BAR, is_plain)) if hint else "", figures),
            Span(f"{figure(loss):>6}" if is_running or loss is not None else "", figures),
            Span(f"{course(history.get('train_loss', ()), is_plain):<{_SPARK}}", figures),
            Span(figure(record.last.get(metric)) if record.epochs_done >= 0 else "", figures),
            Span(f"{course(history.get(metric, ()), is_plain):<{_SPARK}}", figures),
            Span(f"{hint.images_per_s:6.0f}" if hint else "", figures),
            Span(f"{hint.waited_share:6.1%}".replace("%", " %") if hint else "", figures),
            Span(_time_left(left_s) if is_running else "", figures),
            Span(safe(hint.device) if hint else "", figures),
            Span(f"{mark} loading" if is_running and hint is None else f"{mark} {record.state}", role),
        ),
    )


def _inside(hint: RunProgress) -> float:
    return hint.step / hint.steps if hint.steps else 0.0


def _without(made: Sheet, title: str) -> Sheet:
    """The sheet without one of its columns."""
    place = next(i for i, column in enumerate(made.columns) if column.title == title)
    rows = tuple(Row(row.key, (*row.cells[:place], *row.cells[place + 1 :])) for row in made.rows)
    return Sheet((*made.columns[:place], *made.columns[place + 1 :]), rows)


def _with_reasons(made: Sheet, reasons: Mapping[str, str], width: int) -> Sheet:
    """Behind a state its reason, in the room that the columns leave; it is whole below the table."""
    gap, fitted_columns = fit_columns(made, width)
    spare = width - sum(each for _, each in fitted_columns) - gap * (len(fitted_columns) - 1)
    if spare < 12:
        return made
    room = fitted_columns[-1][1] + spare
    rows = []
    for row in made.rows:
        reason, state = safe(reasons.get(row.key, "")), row.cells[-1]
        if reason:
            state = Span(clipped(f"{state.text}: {reason}", room), state.role)
        rows.append(Row(row.key, (*row.cells[:-1], state)))
    return Sheet(made.columns, tuple(rows))
