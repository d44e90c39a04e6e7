"""Makes the paper's two tables: score and similarity, a row a backbone and dataset, a column a method."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.analysis.distribution import Finals, finals
from engine.analysis.options import TableOptions
from engine.analysis.table import Cell, Spread, Table
from engine.errors import StudyError
from engine.figures.drawing import Source, go_on, runs_note, similarity_notes, study_notes
from engine.figures.style import on_one_line

CELLS = "cells: mean ± sample standard deviation (n − 1) over seeds (n runs that are done); – where there is none"


def accuracy_table(source: Source, options: TableOptions) -> Table:
    """The final score on the test images: accuracy, or mean AUROC.

    Raises:
        StudyError: no run is done; no such similarity or layer.
    """
    found = _finals(source, options)
    told = f"{found.columns[1]} at the last epoch, on the test images, as a share of 1"
    return _table("accuracy", source, found, found.score, (told,))


def similarity_table(source: Source, options: TableOptions) -> Table:
    """The final similarity to the pre-trained model.

    Raises:
        StudyError: no run is done; no such similarity or layer.
    """
    found = _finals(source, options)
    return _table("similarity", source, found, found.similarity, similarity_notes(source.data, options))


TABLES: dict[str, Callable[[Source, TableOptions], Table]] = {
    "table_accuracy": accuracy_table,
    "table_similarity": similarity_table,
}


def _finals(source: Source, options: TableOptions) -> Finals:
    found = finals(source.data, options)
    if not found.runs:
        raise StudyError("finished runs", "no run is done", go_on(source))
    return found


def _table(name: str, source: Source, found: Finals, values: np.ndarray, told: tuple[str, ...]) -> Table:
    specs = [run.record.spec for run in found.runs]
    methods = tuple(dict.fromkeys(spec.method for spec in specs))
    places: dict[tuple[str, str], dict[str, list[float]]] = {}
    for spec, value in zip(specs, values.tolist(), strict=True):
        places.setdefault((spec.backbone.name, spec.dataset), {}).setdefault(spec.method, []).append(value)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (*map(on_one_line, names), *(_cell(by_method.get(method, [])) for method in methods))
        for names, by_method in places.items()
    )
    notes = (
        *told, CELLS, runs_note(found.runs), *found.notes(), *study_notes(source.data, finals_only=True),
    )  # fmt: skip
    return Table(name, ("backbone", "dataset", *methods), rows, tuple(map(on_one_line, notes)))


def _cell(values: list[float]) -> str:
    spread = Spread.of([value for value in values if np.isfinite(value)])
    if spread.mean is None:
        return "–"
    return f"{spread.mean:.3f} ± {'–' if spread.sd is None else f'{spread.sd:.3f}'} ({spread.n})"
