"""The quality of every layer of one run at every epoch, as a table."""

from __future__ import annotations

import math

from engine.analysis.attention_table import STATISTICS
from engine.analysis.table import Cell, Table
from engine.errors import StudyError
from engine.quality.table import QUALITY
from engine.runs.results import Results


def quality_table(results: Results, pooling: str) -> Table:
    """One row a layer at each epoch, one column a metric.

    Raises:
        StudyError: the run measures no quality by layer, or not with this pooling.
    """
    metrics = {
        name.removesuffix(f"_{pooling}"): values
        for name, values in results.layer_quality.items()
        if name.endswith(f"_{pooling}")
    }
    if not metrics:
        names = ", ".join(name for name, metric in QUALITY.items() if metric.needs == "layers")
        raise StudyError(
            f"quality of layers, {pooling}", "this run has measured none", f"add one of {names} to measure.quality"
        )
    rows: list[tuple[Cell, ...]] = []
    for epoch in range(results.n_epochs):
        for i, layer in enumerate(results.layers):
            values = (float(metric[epoch, i]) for metric in metrics.values())
            rows.append((epoch, layer, *(None if math.isnan(value) else value for value in values)))
    notes = [f"{name}: {QUALITY[name].label}; {QUALITY[name].reference}" for name in metrics if name in QUALITY]
    # Attention is looked at before training and after it, and not between.
    notes += [
        f"attention_{name}: {meaning}"
        for name, meaning in STATISTICS.items()
        if any(metric.startswith(f"attention_{name}_") for metric in metrics)
    ]
    columns = ("epoch", "layer", *(f"{name}_{pooling}" for name in metrics))
    return Table("quality", columns, tuple(rows), tuple(notes))
