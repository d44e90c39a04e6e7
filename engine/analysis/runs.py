"""The table of runs: one row a run with where it stands and its last figures."""

from __future__ import annotations

from collections.abc import Sequence

from engine.analysis.estimators import measures_of, notes_on, pooling_of, similarity_metrics
from engine.analysis.imports import import_notes
from engine.analysis.score import scores_of
from engine.analysis.table import Cell, Table
from engine.runs.record import RunRecord

HEAD = (
    "run", "backbone", "paradigm", "dataset", "dataset_is_synthetic", "method", "seed", "state", "epochs_done",
    "epochs",
)  # fmt: skip
TAIL = ("origin_knn_before", "origin_knn_after", "reason")
NO_CLS = "_cls: empty where the backbone has no CLS token; _feat is of all"
NOTES = (
    "test_* and similarities: at the last finished epoch",
    "similarities, by measure and pooling: mean over the blocks of the similarity of a block of θ* to the same block "
    "of θ on the probe images",
    "origin_knn_*: k-NN accuracy on the origin domain (cosine, k = 20, temperature 0.07, each image left out of its "
    "own bank); before = epoch 0 of the run",
)


def runs_table(records: Sequence[RunRecord]) -> Table:
    """One row a run, in the order given; a column for each score of its task and each similarity asked for."""
    finals = (*(score.metric for score in scores_of(records)), "test_ece", *similarity_metrics(records))
    rows = tuple(_row(record, finals) for record in records)
    notes = (
        *NOTES,
        *import_notes(records),
        *([NO_CLS] if pooling_of(records) == "feat" else []),
        *notes_on(records, measures_of(records)),
    )
    return Table("runs", (*HEAD, *finals, *TAIL), rows, notes)


def _row(record: RunRecord, finals: Sequence[str]) -> tuple[Cell, ...]:
    last, first = record.last, record.first
    return (
        record.run_id,
        record.spec.backbone.name,
        record.provenance.paradigm,
        record.spec.dataset,
        "yes" if record.is_synthetic else "no",
        record.spec.method,
        record.spec.seed,
        str(record.state),
        max(record.epochs_done, 0),
        record.spec.epochs,
        *(last.get(name) for name in finals),
        first.get("origin_knn"),
        last.get("origin_knn"),
        record.reason,
    )
