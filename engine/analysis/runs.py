"""The table of runs: one row a run with where it stands and its last figures."""

from __future__ import annotations

from collections.abc import Sequence

from engine.analysis.table import Cell, Table
from engine.runs.record import RunRecord

COLUMNS = (
    "run", "backbone", "paradigm", "dataset", "dataset_is_synthetic", "method", "seed", "state", "epochs_done",
    "epochs", "test_accuracy", "test_balanced_accuracy", "test_auroc", "test_ece", "linear_cka_cls", "linear_cka_feat",
    "origin_knn_before", "origin_knn_after", "reason",
)  # fmt: skip
NOTES = (
    "test_* and linear_cka_*: at the last finished epoch",
    "linear_cka_*: biased estimator, mean over the blocks of CKA(block of θ*, same block of θ) on the probe images",
    "origin_knn_*: k-NN accuracy on the origin domain (cosine, k = 20, temperature 0.07, each image left out of its "
    "own bank); before = epoch 0 of the run",
)


def runs_table(records: Sequence[RunRecord]) -> Table:
    """One row a run, in the order given."""
    return Table("runs", COLUMNS, tuple(_row(record) for record in records), NOTES)


def _row(record: RunRecord) -> tuple[Cell, ...]:
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
        last.get("test_accuracy"),
        last.get("test_balanced_accuracy"),
        last.get("test_auroc"),
        last.get("test_ece"),
        last.get("linear_cka_cls"),
        last.get("linear_cka_feat"),
        first.get("origin_knn"),
        last.get("origin_knn"),
        record.reason,
    )
