"""The layer × layer similarity of one run at one epoch, as a table."""

from __future__ import annotations

import math

from engine.analysis.estimators import column_of, notes_on
from engine.analysis.table import Table
from engine.errors import StudyError
from engine.runs.record import RunRecord
from engine.runs.results import Results, SimilarityKey

UNDEFINED = "empty: undefined; a layer is constant over the probe images, or too few images for this measure"


def heatmap_table(record: RunRecord, results: Results, key: SimilarityKey, epoch: int) -> Table:
    """One row a pair of layers: `layer_ref` of the pre-trained model, `layer` of the run's model.

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
    matrix = matrices[epoch]
    rows = tuple(
        (epoch, reference, layer, None if math.isnan(matrix[i, j]) else float(matrix[i, j]))
        for i, reference in enumerate(results.layers)
        for j, layer in enumerate(results.layers)
    )
    return Table(
        "heatmap",
        ("epoch", "layer_ref", "layer", column_of(key)),
        rows,
        (*notes_on([record], [key.measure], key.probe), UNDEFINED),
    )
