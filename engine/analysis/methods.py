"""What each fine-tuning method does, in one table: accuracy, similarity and forgetting, beside full fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from engine.analysis import bootstrap
from engine.analysis.comparison import Comparison, are_dependent, compare_groups, effect_of, pairing_notes
from engine.analysis.distribution import final_metric, finals, rows_by_group
from engine.analysis.estimators import notes_on
from engine.analysis.forgetting import NO_ORIGIN, PROTOCOL, SCRATCH
from engine.analysis.options import TableOptions
from engine.analysis.space import WILSON_NOTE, space, wilson_interval
from engine.analysis.study_data import RunData, StudyData
from engine.analysis.table import Cell, Spread, Table

REFERENCE = "full"
DROP = "origin_knn_drop"
_FIGURES = ("mean", "sd", "low", "high")
_DIFFERENCES = ("difference", "difference_low", "difference_high", "delta", "delta_low", "delta_high", "effect")
_NOTES = (
    "final: at the last epoch that the study asks for, over the runs that are done; sd: sample standard deviation over "
    "seeds",
    f"_difference: the method − {REFERENCE} of the same backbone; its interval: 95 %, Welch's t; _delta: Cliff's "
    "delta, its interval: 95 % (Feng & Cliff 2004); _effect: negligible, small, medium or large (Romano et al. 2006); "
    "tests: table comparison",
)


def methods_table(data: StudyData, options: TableOptions) -> Table:
    """One row a backbone and method: its final score, similarity M_X and forgetting, and the runs inside T_X(η, ε).

    Raises:
        StudyError: as `space`.
    """
    found, inside = finals(data, options), space(data, options)
    groups = rows_by_group(found.runs, "backbone and method")
    places = rows_by_group(inside.runs, "backbone and method")
    drops = np.array([_drop(run) for run in found.runs], np.float64)
    quantities = {found.columns[1]: found.score, found.columns[0]: found.similarity, DROP: drops}
    rows: list[tuple[Cell, ...]] = []
    dependent: list[Comparison] = []
    for names, mine in groups.items():
        backbone, method = names
        cells: list[Cell] = [backbone, found.runs[mine[0]].record.provenance.paradigm, method, len(mine)]
        reference = groups.get((backbone, REFERENCE)) if method != REFERENCE else None
        for values in quantities.values():
            cells += _spread(values[mine])
            compared = None if reference is None else compare_groups(found.runs, values, mine, reference)
            if compared is not None and reference is not None and are_dependent(found.runs, mine, reference):
                dependent.append(compared)
            cells += _difference(compared)
        there = places.get(names, np.zeros(0, int))
        n, n_inside = len(there), int(inside.is_inside[there].sum())
        cells += n, n_inside, *((n_inside / n, *wilson_interval(n_inside, n)) if n else (None, None, None))
        rows.append(tuple(cells))
    columns = (
        "backbone", "paradigm", "method", "n_runs",
        *(f"{name}_{what}" for name in quantities for what in (*_FIGURES, *_DIFFERENCES)),
        "n_in_space", "n_inside", "share_inside", "share_inside_low", "share_inside_high",
    )  # fmt: skip
    notes = (*pairing_notes(dependent), *_notes(data, options, found.runs, drops))
    return Table("methods", columns, tuple(rows), notes)


def _drop(run: RunData) -> float:
    """How much of the k-NN accuracy on the origin domain is lost; NaN where it was not measured at both ends."""
    knn = run.metric("origin_knn")
    return (float(knn[0]) if len(knn) else math.nan) - final_metric(run, "origin_knn")


def _spread(values: np.ndarray) -> tuple[Cell, ...]:
    low, high = bootstrap.mean_interval(values[:, None])
    spread = Spread.of(values.tolist()).within(float(low[0]), float(high[0]))
    return spread.mean, spread.sd, spread.low, spread.high


def _difference(found: Comparison | None) -> tuple[Cell, ...]:
    if found is None or found.difference is None:
        return (None,) * len(_DIFFERENCES)
    nothing = (None, None)
    return (
        found.difference, *(found.difference_interval or nothing),
        found.delta, *(found.delta_interval or nothing), None if found.delta is None else effect_of(found.delta),
    )  # fmt: skip


def _notes(data: StudyData, options: TableOptions, runs: Sequence[RunData], drops: np.ndarray) -> tuple[str, ...]:
    found = finals(data, options)
    said = [
        *_NOTES,
        bootstrap.NOTE,
        f"n_inside: of the n_in_space runs with a similarity and a score, those with M_X ≥ η = {options.eta:g} and "
        f"A_X ≤ ε = {options.epsilon:g}; A_X: reference − score; see the table `space`",
        WILSON_NOTE,
        f"{DROP}: {PROTOCOL}" if np.isfinite(drops).any() or not len(drops) else NO_ORIGIN,
    ]
    if any(run.record.spec.method == "scratch" for run in runs):
        said.append(SCRATCH)
    estimators = notes_on(data.records, [found.key.measure], found.key.probe)
    return (*said, *estimators, *found.notes(), *data.notes(found.key, options.layer, finals_only=True))
