"""Similarity and score at every epoch: mean, spread and interval over the seeds of each group, and every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.analysis import bootstrap
from engine.analysis.estimators import column_of, notes_on
from engine.analysis.imports import import_notes
from engine.analysis.options import TableOptions
from engine.analysis.score import ACCURACY, Score, score_of
from engine.analysis.study_data import StudyData, group_columns, grouped, pooled_note
from engine.analysis.table import Cell, Spread, Table
from engine.runs.results import SimilarityKey

_NOTES = (
    "_sd: sample standard deviation over seeds; epoch 0: before training, with an untrained head (imported runs: "
    "with none)",
    bootstrap.NOTE,
)


@dataclass(frozen=True)
class Curve:
    """One quantity over the epochs, one `Spread` an epoch; epochs that no run has reached are not there.

    `runs` are the single runs behind it, in the order of `Trajectory.run_ids`; None where a run has no value.
    """

    epochs: tuple[int, ...]
    spreads: tuple[Spread, ...]
    runs: tuple[tuple[float | None, ...], ...] = ()


@dataclass(frozen=True)
class Trajectory:
    """The runs of one backbone and method: similarity to the pre-trained model, and their score, at every epoch.

    `accuracy` is that of `score`: accuracy, or mean AUROC where an image may have several labels.
    """

    backbone: str
    method: str
    run_ids: tuple[str, ...]
    similarity: Curve
    accuracy: Curve
    score: Score = ACCURACY


def trajectories(data: StudyData, options: TableOptions) -> tuple[Trajectory, ...]:
    """The runs that have this similarity of this layer, by backbone and method, in the order of the first of each."""
    key, layer = options.key(data.records), options.layer
    score = score_of(data.records)
    having = [run for run in data.runs if run.has(key, layer)]
    return tuple(
        Trajectory(
            backbone,
            method,
            tuple(run.record.run_id for run in runs),
            curve_of([run.similarity(key, layer) for run in runs]),
            curve_of([run.metric(score.metric) for run in runs]),
            score,
        )
        for (backbone, method), runs in grouped(having, "backbone and method").items()
    )


def curve_of(runs: Sequence[np.ndarray]) -> Curve:
    """Mean, sd and 95 % interval of each epoch over the runs that have reached it.

    Args:
        runs: `(n_epochs,)` each, NaN where there is no value; they need not be equally long.
    """
    values = _stacked(runs)
    singles = tuple(tuple(None if value != value else value for value in run) for run in values.tolist())
    return Curve(tuple(range(values.shape[1])), bootstrap.spreads(values), singles)


def trajectory_table(data: StudyData, options: TableOptions) -> Table:
    """One row an epoch of each group of `options.by`.

    Raises:
        StudyError: no run has this similarity or this layer.
    """
    key, score = options.key(data.records), score_of(data.records)
    data.check(key, options.layer)
    quantities = (column_of(key), score.metric)
    rows: list[tuple[Cell, ...]] = []
    for names, runs in grouped([run for run in data.runs if run.has(key, options.layer)], options.by).items():
        curves = [
            curve_of([run.similarity(key, options.layer) for run in runs]),
            curve_of([run.metric(score.metric) for run in runs]),
        ]
        for epoch in range(max(len(curve.epochs) for curve in curves)):
            cells = (cell for curve in curves for cell in _cells(curve, epoch))
            rows.append((*names, options.layer, epoch, *cells))
    columns = (*group_columns(options.by), "layer", "epoch", *spread_columns(quantities))
    more = _more(data, key, options.layer)
    return Table("trajectory", columns, tuple(rows), (*_NOTES, *pooled_note(options.by), *more))


def runs_over_epochs_table(data: StudyData, options: TableOptions) -> Table:
    """One row an epoch of each run: the single runs behind the trajectories.

    Raises:
        StudyError: no run has this similarity or this layer.
    """
    key, score = options.key(data.records), score_of(data.records)
    data.check(key, options.layer)
    rows: list[tuple[Cell, ...]] = []
    for run in data.runs:
        spec = run.record.spec
        figures = _stacked([run.similarity(key, options.layer), run.metric(score.metric), run.metric("test_ece")])
        rows += [
            (run.record.run_id, spec.backbone.name, spec.method, spec.seed, options.layer, epoch, *_values(column))
            for epoch, column in enumerate(figures.T)
        ]
    columns = (
        "run", "backbone", "method", "seed", "layer", "epoch", column_of(key), score.metric, "test_ece",
    )  # fmt: skip
    return Table("epochs", columns, tuple(rows), _more(data, key, options.layer))


def _more(data: StudyData, key: SimilarityKey, layer: str) -> tuple[str, ...]:
    return (
        *import_notes(data.records),
        *notes_on(data.records, [key.measure], key.probe),
        *data.notes(key, layer),
    )


def spread_columns(quantities: Sequence[str]) -> tuple[str, ...]:
    """The columns of a mean over seeds, for each quantity: `_mean`, `_sd`, `_low`, `_high`, `_n`."""
    return tuple(f"{name}_{what}" for name in quantities for what in ("mean", "sd", "low", "high", "n"))


def spread_cells(spread: Spread) -> tuple[Cell, ...]:
    """The cells of `spread_columns`."""
    return spread.mean, spread.sd, spread.low, spread.high, spread.n


def _cells(curve: Curve, epoch: int) -> tuple[Cell, ...]:
    return spread_cells(curve.spreads[epoch] if epoch < len(curve.spreads) else Spread(None, None, 0))


def _values(column: np.ndarray) -> tuple[Cell, ...]:
    return tuple(None if np.isnan(value) else float(value) for value in column)


def _stacked(runs: Sequence[np.ndarray]) -> np.ndarray:
    """`(n_runs, longest)` float64, NaN where a run has not come so far."""
    stacked = np.full((len(runs), max((len(run) for run in runs), default=0)), np.nan)
    for row, run in enumerate(runs):
        stacked[row, : len(run)] = run
    return stacked
