"""What the runs view says: one row a run, a summary in words, and all there is to know of the run under the cursor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from rich.cells import cell_len

from engine.analysis.estimators import caution, label_of, pooling_of, short_of
from engine.analysis.imports import head_said
from engine.analysis.runs import runs_table
from engine.analysis.score import score_of, scores_of
from engine.analysis.table import Table
from engine.runs.catalog import DamagedRun
from engine.runs.record import RunRecord, State
from simtui.reader import Snapshot
from simtui.safe_text import fitted, safe, short_names
from simtui.selection import Selection
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
    and_others,
    count,
    figure,
    fitting,
    line,
    wrapped,
)  # fmt: skip
from simtui.views.run_facts import KnownRuns, first_measure, similarity_title
from simtui.views.run_order import ECE, KNN, filter_of, sorted_runs
from simtui.views.sorting import marked

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
    "finished epoch. Then the study's first similarity measure: CLS token (Feat, the mean of the patches or of a map, "
    "where a backbone has none), mean over the blocks of the similarity of "
    "each block to the same block of the pre-trained model. origin k-NN: accuracy on the origin domain before → after "
    "fine-tuning; sorted by after. In a filter all words must hold: full is in any field, method:full,linear and "
    "-state:failed ask one, acc>0.8 a figure (ece, cka, cka_feat, knn, epoch, seed …)."
)
_NOTHING_CHOSEN = Selection()
_MAX_FILTER_WIDTH = 60


def table(snapshot: Snapshot, selection: Selection) -> Table:
    """The engine's table of the runs that the filter leaves, as they are sorted: that is what is exported."""
    known = KnownRuns.of(snapshot)
    shown = sorted_runs(known, selection, filter_of(known, selection))
    return runs_table([run.record for run in shown if run.record is not None])


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
        Column(similarity_title(first_measure(records), pooling_of(records)), "right"),
        Column(ECE, "right", rank=3),
        Column(KNN, "right", rank=1),
        Column("state"),
    )


def dataset_name(record: RunRecord) -> str:
    """The dataset, marked where its images are generated."""
    return safe(record.spec.dataset) + (" (synthetic)" if record.is_synthetic else "")


@dataclass(frozen=True, eq=False)
class AllRuns:
    """The runs of a study, each with its row: what stays the same whatever is filtered, sorted or marked.

    `short` are the names of backbones as they are shown, `whole` is the sheet of all runs.
    """

    snapshot: Snapshot
    known: KnownRuns
    short: Mapping[str, str]
    rows: Mapping[str, Row]
    whole: Sheet

    @classmethod
    def of(cls, snapshot: Snapshot, before: AllRuns | None = None) -> AllRuns:
        """One row a run, the damaged ones last; of thousands, those that have not changed since `before` are kept."""
        records, titles = snapshot.records, columns(snapshot.records)
        short = short_names([record.spec.backbone.name for record in records])
        is_alike = before is not None and (before.whole.columns, before.short) == (titles, short)
        held = {run.run_id: run for run in before.known.runs} if before and is_alike else {}
        known = KnownRuns.of(snapshot, held)
        rows = [
            before.rows[run.run_id] if before and held.get(run.run_id) is run else _row(run.record, short, known)
            for run in known.runs
            if run.record is not None
        ]
        rows += [_damaged_row(each, len(titles)) for each in snapshot.damaged]
        return cls(snapshot, known, short, {row.key: row for row in rows}, Sheet(titles, tuple(rows)))

    def is_of(self, snapshot: Snapshot) -> bool:
        """Whether these are its runs: a snapshot may differ in its progress alone."""
        return (self.snapshot.records, self.snapshot.damaged) == (snapshot.records, snapshot.damaged)

    def sheet(self, selection: Selection) -> Sheet:
        """The runs that are shown, in columns as wide as those of all runs."""
        shown = sorted_runs(self.known, selection, filter_of(self.known, selection))
        rows = (self.rows[run.run_id] for run in shown)
        return Sheet(
            marked(self.whole.columns, selection.runs_order),
            tuple(replace(row, is_marked=True) if row.key in selection.marked else row for row in rows),
            self.whole.widths,
        )


def sheet(snapshot: Snapshot, selection: Selection = _NOTHING_CHOSEN) -> Sheet:
    """One row a run that is shown."""
    return AllRuns.of(snapshot).sheet(selection)


def summary(
    snapshot: Snapshot, selection: Selection = _NOTHING_CHOSEN, all_known: KnownRuns | None = None
) -> str:  # fmt: skip
    """How many runs there are of what or which of them match, how they stand, and which is best."""
    records, known = snapshot.records, all_known or KnownRuns.of(snapshot)
    if not records:
        return "No runs yet."
    if snapshot.is_comparison:
        return "Two checkpoints, compared as they are: nothing was trained. Their map: enter, or 2."
    wanted = filter_of(known, selection)
    shown = [run for run in known.runs if wanted.holds(run)]
    found = [run.record for run in shown if run.record is not None]
    states = [record.state for record in found]
    stand = [f"{states.count(state)} {state}" for state in STATES if state in states]
    if len(found) < len(shown):
        stand.append(f"{len(shown) - len(found)} damaged")
    head = matching(len(shown), len(known.runs), wanted.text) if wanted.tests else _what_there_is(records)
    text = f"{head}{': ' if stand else ''}{', '.join(stand)}{chosen(selection)}."
    score = known.score
    scored = [(value, record) for record in found if (value := record.last.get(score.metric)) is not None]
    if scored:
        value, best = max(scored, key=lambda pair: pair[0])
        backbone = safe(best.spec.backbone.name)
        text += f" Best test {score.label} {figure(value)}: {best.spec.method}, {backbone}, seed {best.spec.seed}"
        text += f"{and_others((each for each, _ in scored), value)}."
    notes = snapshot.progress.notes if snapshot.progress else ()
    if notes:
        text += f" {count(len(notes), 'note')} on its images: simtui status."
    return text


def matching(n: int, n_all: int, filter_text: str) -> str:
    """`12 of 45 runs match acc>0.8`."""
    return f"{n} of {count(n_all, 'run')} match {shortened(safe(filter_text), _MAX_FILTER_WIDTH)}"


def chosen(selection: Selection) -> str:
    """What a user has chosen of the table, as the end of a sentence."""
    order = selection.runs_order
    sorted_by = f"; sorted by {order.column} {order.mark}" if order.column else ""
    return sorted_by + (f"; {len(selection.marked)} marked" if selection.marked else "")


def shortened(text: str, width: int) -> str:
    """The text, with its middle left out where it is too long."""
    return text if cell_len(text) <= width else fitted(text, width)


def no_match(selection: Selection) -> tuple[Line, ...]:
    """What stands in the place of rows where the filter leaves none."""
    text = shortened(safe(selection.run_filter), _MAX_FILTER_WIDTH)
    return (
        (),
        (Span("No run matches ", STRONG), Span(text, ACCENT)),
        (Span("esc clears the filter, / changes it", DIM),),
    )


def _what_there_is(records: Sequence[RunRecord]) -> str:
    sizes = [
        count(len({key(record) for record in records}), noun)
        for noun, key in (
            ("backbone", lambda record: record.spec.backbone.name),
            ("method", lambda record: record.spec.method),
            ("seed", lambda record: record.spec.seed),
        )
    ]
    return f"{count(len(records), 'run')} ({' × '.join(sizes)}) on {dataset_name(records[0])}"


def detail(snapshot: Snapshot, key: str | None, width: int) -> tuple[Line, ...]:
    """Everything about one run in three lines, whatever the table had to leave out."""
    record = snapshot.record(key)
    if record is None:
        broken = next((each for each in snapshot.damaged if each.run_id == key), None)
        return error_lines(broken, width) if broken else ()
    if record.reference is not None:
        names = record.reference.checkpoint, record.provenance.weights_checkpoint
        shown = (line(Span(f"{who} ", DIM), Span(safe(name), STRONG)) for who, name in zip("AB", names, strict=True))
        return (*shown, line(Span(f"on {record.provenance.n_probe:,} images of {dataset_name(record)}", DIM)))
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
    if record.is_imported:
        return head, _facts(facts), *wrapped(f"accuracy {safe(head_said(record))}", width, 1)
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


def _row(record: RunRecord, short: Mapping[str, str], known: KnownRuns) -> Row:
    last = record.last
    mark, role = STATES[record.state]
    is_bare = record.epochs_done < 0
    figures = DIM if is_bare else NORMAL
    return Row(
        record.run_id,
        (
            Span(safe(short[record.spec.backbone.name])),
            Span(safe(record.provenance.paradigm), DIM),
            Span(dataset_name(record), DIM),
            Span(record.spec.method),
            Span(str(record.spec.seed)),
            Span(f"{max(record.epochs_done, 0)}/{record.spec.epochs}", DIM),
            Span(figure(last.get(known.score.metric)), DIM if is_bare else STRONG),
            Span(figure(last.get(known.similarity)), figures),
            Span(figure(last.get("test_ece")), figures),
            Span(_origin_knn(record), figures),
            Span(f"{mark} {record.state}", GOOD if record.state is State.DONE else role),
        ),
    )


def _damaged_row(broken: DamagedRun, n_columns: int) -> Row:
    return Row(
        broken.run_id,
        (
            Span(shortened(safe(broken.run_id), 28), ERROR),
            *(Span("") for _ in range(n_columns - 2)),
            Span("✗ damaged", ERROR),
        ),
    )
