"""The layer × layer similarity of one run at one epoch, alone or beside that of another run, as a table."""

from __future__ import annotations

import math
from dataclasses import replace

from engine.analysis.estimators import column_of, notes_on
from engine.analysis.table import Cell, Table
from engine.errors import StudyError
from engine.runs.record import RunRecord
from engine.runs.results import Results, SimilarityKey
from engine.runs.uncertainty import CellUncertainty

_SURE = ("low", "high", "unrelated", "unrelated_high")
UNDEFINED = (
    "empty: undefined; a layer is constant over the probe images, or too few images for this measure, or nothing is "
    "there of the epoch"
)


def heatmap_table(
    record: RunRecord, results: Results, key: SimilarityKey, epoch: int, sure: CellUncertainty | None = None
) -> Table:
    """One row a pair of layers: `layer_ref` of the pre-trained model, `layer` of the run's model.

    Of two checkpoints that are compared `layer_ref` is of the first, `layer` of the second.

    Args:
        sure: adds the interval of each cell and what unrelated layers would score; of the same similarity and epoch.
    Raises:
        StudyError: the run has no such similarity, or has not come to that epoch.
    """
    matrices = results.similarity.get(key)
    if matrices is None:
        known = ", ".join(sorted(f"{each.probe}/{each.pooling}/{each.measure}" for each in results.similarity))
        raise StudyError(
            f"{key.probe}/{key.pooling}/{key.measure}", "this run has no such similarity", f"choose one of {known}"
        )
    if not 0 <= epoch < len(matrices):
        raise StudyError(f"epoch {epoch}", "this run has no such epoch", f"choose 0 to {len(matrices) - 1}")
    columns = [matrices[epoch], *((sure.low, sure.high, sure.null_mean, sure.null_high) if sure else ())]
    rows = tuple(
        (epoch, reference, layer, *(None if math.isnan(each[i, j]) else float(each[i, j]) for each in columns))
        for i, reference in enumerate(results.rows)
        for j, layer in enumerate(results.layers)
    )
    return Table(
        "heatmap",
        ("epoch", "layer_ref", "layer", column_of(key), *(_SURE if sure else ())),
        rows,
        (
            *_whose(record),
            *notes_on([record], [key.measure], key.probe),
            *record.provenance.notes,
            *(sure.notes if sure else ()),
            UNDEFINED,
        ),
    )


def compared_heatmap_table(
    run: tuple[RunRecord, Results], pinned: tuple[RunRecord, Results], key: SimilarityKey, epochs: tuple[int, int]
) -> Table:
    """The heatmap of a run with that of another, `pinned`, and the difference, run minus pinned, in further columns.

    Args:
        epochs: of the run and of the pinned one.
    Raises:
        StudyError: one of them has no such similarity or epoch, or their layers have not the same names.
    """
    (record, results), (other, other_results) = run, pinned
    if (results.rows, results.layers) != (other_results.rows, other_results.layers):
        raise StudyError(
            f"{record.run_id} and {other.run_id}",
            "their layers have not the same names",
            "compare runs of one backbone",
        )
    mine = heatmap_table(record, results, key, epochs[0])
    theirs = heatmap_table(other, other_results, key, epochs[1])
    rows = tuple(
        (record.run_id, *cells, value, other.run_id, epochs[1], held, _minus(value, held))
        for (*cells, value), (*_, held) in zip(mine.rows, theirs.rows, strict=True)
    )
    name = column_of(key)
    columns = ("run", *mine.columns, "pinned_run", "pinned_epoch", f"{name}_pinned", f"{name}_difference")
    notes = (*notes_on([record, other], [key.measure], key.probe), UNDEFINED, "difference: run minus pinned_run")
    return replace(mine, columns=columns, rows=rows, notes=notes)


def _whose(record: RunRecord) -> tuple[str, ...]:
    """Of two checkpoints which is in the rows and which in the columns."""
    first, second = record.reference, record.provenance
    if first is None:
        return ()
    return (
        f"layer_ref: of {first.checkpoint} ({first.input_size} pixels, SHA-256 {first.weights_sha256[:12]})",
        f"layer: of {second.weights_checkpoint} ({second.input_size} pixels, SHA-256 {second.weights_sha256[:12]})",
        f"images: {second.n_probe} of {second.dataset_path}" + (", generated" if second.dataset_is_synthetic else ""),
    )


def _minus(value: Cell, other: Cell) -> float | None:
    return value - other if isinstance(value, float) and isinstance(other, float) else None
