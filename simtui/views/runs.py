"""What the runs view says: one row a run, a summary in words, and all there is to know of the run under the cursor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from rich.cells import cell_len

from engine.analysis.estimators import caution, label_of, measures_of, short_of
from engine.analysis.runs import runs_table
from engine.analysis.score import score_of, scores_of
from engine.analysis.table import Table
from engine.runs.catalog import DamagedRun
from engine.runs.record import RunRecord, State
from simtui.reader import Snapshot
from simtui.safe_text import fitted, safe, short_names
from simtui.views.parts import (
    ACCENT,
    DIM,
    ERROR,
    GOOD,
    NO_VALUE,
    NORMAL,
    STRONG,
    WARN,
    Column,
    Line,
    Row,
    Sheet,
    Span,
    count,
    figure,
    fitting,
    line,
    wrapped,
)  # fmt: skip

STATES = {
    State.DONE: ("✓", DIM),
    State.RUNNING: ("▶", ACCENT),
    State.QUEUED: ("·", DIM),
    State.STOPPED: ("■", WARN),
    State.INTERRUPTED: ("!", WARN),
    State.FAILED: ("✗", ERROR),
}
EXPLANATION = (
    "One row a run. accuracy (AUROC where an image may have several labels) and ECE: on the test images after the last "
    "finished epoch. Then the study's first similarity measure: CLS token, mean over the blocks of the similarity of "
    "each block to the same block of the pre-trained model. origin k-NN: accuracy on the origin domain before → after "
    "fine-tuning."
)


def table(snapshot: Snapshot) -> Table:
    """The engine's table, as it is exported."""
    return runs_table(snapshot.records)


def columns(records: Sequence[RunRecord]) -> tuple[Column, ...]:
    """The columns; the similarity is by the study's first measure."""
    return (
        Column("backbone", shrinks_to=14),
        Column("paradigm", rank=6),
        Column("dataset", rank=7, shrinks_to=17),
        Column("method"),
        Column("seed", "right"),
        Column("epoch", "right", rank=2),
        Column(score_of(records).label, "right"),
        Column(short_of(first_measure(records)), "right"),
        Column("ECE", "right", rank=3),
        Column("origin k-NN", "right", rank=1),
        Column("state"),
    )


def first_measure(records: Sequence[RunRecord]) -> str:
    """The measure that stands for similarity where there is room for one."""
    return next(iter(measures_of(records)), "linear_cka")


def dataset_name(record: RunRecord) -> str:
    """The dataset, marked where its images are generated."""
    return safe(record.spec.dataset) + (" (synthetic)" if record.is_synthetic else "")


def sheet(snapshot: Snapshot) -> Sheet:
    """One row a run, the damaged ones last."""
    short = short_names([record.spec.backbone.name for record in snapshot.records])
    rows = [_row(record, short[record.spec.backbone.name]) for record in snapshot.records]
    titles = columns(snapshot.records)
    return Sheet(titles, (*rows, *(_damaged_row(each, len(titles)) for each in snapshot.damaged)))


def summary(snapshot: Snapshot) -> str:
    """How many runs there are of what, how they stand, and which is best."""
    records = snapshot.records
    if not records:
        return "No runs yet."
    sizes = [
        count(len({key(record) for record in records}), noun)
        for noun, key in (
            ("backbone", lambda record: record.spec.backbone.name),
            ("method", lambda record: record.spec.method),
            ("seed", lambda record: record.spec.seed),
        )
    ]
    states = [record.state for record in records]
    stand = [f"{states.count(state)} {state}" for state in STATES if state in states]
    if snapshot.damaged:
        stand.append(f"{len(snapshot.damaged)} damaged")
    text = f"{count(len(records), 'run')} ({' × '.join(sizes)}) on {dataset_name(records[0])}: {', '.join(stand)}."
    score = score_of(records)
    scored = [(value, record) for record in records if (value := record.last.get(score.metric)) is not None]
    if scored:
        value, best = max(scored, key=lambda pair: pair[0])
        backbone = safe(best.spec.backbone.name)
        text += f" Best test {score.label} {figure(value)}: {best.spec.method}, {backbone}, seed {best.spec.seed}."
    notes = snapshot.progress.notes if snapshot.progress else ()
    if notes:
        text += f" {count(len(notes), 'note')} on its images: simtui status."
    return text


def detail(snapshot: Snapshot, key: str | None, width: int) -> tuple[Line, ...]:
    """Everything about one run in three lines, whatever the table had to leave out."""
    record = snapshot.record(key)
    if record is None:
        broken = next((each for each in snapshot.damaged if each.run_id == key), None)
        return error_lines(broken, width) if broken else ()
    last = record.last
    facts = (
        *((score.label, last.get(score.metric)) for score in scores_of([record])),
        ("ECE", last.get("test_ece")),
    )
    head = line(
        Span(safe(record.spec.backbone.name), STRONG),
        f" ({safe(record.provenance.paradigm)}) · {record.spec.method} · seed {record.spec.seed}",
        Span(f" · {dataset_name(record)}", DIM),
    )
    if record.reason:
        role = ERROR if record.state is State.FAILED else WARN
        return (head, *wrapped(f"{record.state}: {safe(record.reason)}", width, 2, role))
    return head, _facts(facts), _ends(record, width)


def error_lines(broken: DamagedRun, width: int) -> tuple[Line, ...]:
    """A run that cannot be read: where, what is wrong, and what mends it."""
    error = broken.error
    return (
        *wrapped(f"{safe(PurePath(error.where).name)}: {safe(error.problem)}", width, 1, ERROR),
        *wrapped(f"fix: {safe(error.fix)}", width, 2),
    )


def _ends(record: RunRecord, width: int) -> Line:
    """Where the run ended: its similarity, which estimator that is and whether it says too much, and what it forgot."""
    measure, last = first_measure([record]), record.last
    figures = line(
        figure(last.get(f"{measure}_cls")),
        Span(" · Feat ", DIM), figure(last.get(f"{measure}_feat")),
        Span(" inflated" if caution(record, measure) else "", WARN),
        Span(" · origin k-NN ", DIM), _origin_knn(record),
    )  # fmt: skip
    names = label_of(measure), short_of(measure)
    return fitting([(Span(f"{safe(name)} CLS ", DIM), *figures) for name in names], width)


def _origin_knn(record: RunRecord) -> str:
    before, after = (figure(end.get("origin_knn")) for end in (record.first, record.last))
    return NO_VALUE if before == after == NO_VALUE else f"{before}→{after}"


def _facts(pairs: tuple[tuple[str, float | None], ...]) -> Line:
    spans: list[Span] = []
    for i, (name, value) in enumerate(pairs):
        spans += [Span(f"{' · ' if i else ''}{name} ", DIM), Span(figure(value))]
    return tuple(spans)


def _row(record: RunRecord, backbone: str) -> Row:
    last = record.last
    mark, role = STATES[record.state]
    is_bare = record.epochs_done < 0
    figures = DIM if is_bare else NORMAL
    return Row(
        record.run_id,
        (
            Span(safe(backbone)),
            Span(safe(record.provenance.paradigm), DIM),
            Span(dataset_name(record), DIM),
            Span(record.spec.method),
            Span(str(record.spec.seed)),
            Span(f"{max(record.epochs_done, 0)}/{record.spec.epochs}", DIM),
            Span(figure(last.get(score_of([record]).metric)), DIM if is_bare else STRONG),
            Span(figure(last.get(f"{first_measure([record])}_cls")), figures),
            Span(figure(last.get("test_ece")), figures),
            Span(_origin_knn(record), figures),
            Span(f"{mark} {record.state}", GOOD if record.state is State.DONE else role),
        ),
    )


def _damaged_row(broken: DamagedRun, n_columns: int) -> Row:
    name = safe(broken.run_id)
    shown = name if cell_len(name) <= 28 else fitted(name, 28)
    return Row(broken.run_id, (Span(shown, ERROR), *(Span("") for _ in range(n_columns - 2)), Span("✗ damaged", ERROR)))
