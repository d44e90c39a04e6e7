"""Which layers moved away from θ*, how far, when, and in which runs: the diagonal of the maps over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.analysis import bootstrap
from engine.analysis.estimators import column_of, notes_on
from engine.analysis.options import TableOptions
from engine.analysis.study_data import RunData, StudyData, group_columns, grouped, pooled_note
from engine.analysis.table import Cell, Spread, Table
from engine.analysis.trajectory import Curve, spread_cells, spread_columns
from engine.runs.results import SimilarityKey

_NOTES = (
    "drop: similarity of a block to the same block of θ* at epoch 0, minus that at the last epoch (runs that are done)",
    "moved_most_n: in how many runs this block has the largest drop; rank 1: the largest mean drop",
    "half_epoch: the first epoch at which the mean over the runs has lost half of its largest drop, interpolated; "
    "steepest_epoch: the epoch that took the most",
    bootstrap.NOTE,
)
_TINY = 1e-6  # below it, float32 tells nothing apart


@dataclass(frozen=True)
class LayerMove:
    """How far one layer has moved over the runs of a group.

    Attributes:
        first, last, drop: similarity to the same layer of θ* at epoch 0 and at the last, and their difference.
        half_epoch: when half of the largest drop of the mean was reached; None where the mean never falls.
        steepest_epoch: which epoch took the most of it.
        n_moved_most: runs in which no other layer has a larger drop.
        run: the run in which it moved most, None where none has a value.
    """

    layer: str
    first: Spread
    last: Spread
    drop: Spread
    half_epoch: float | None
    steepest_epoch: int | None
    n_moved_most: int
    run: str | None


@dataclass(frozen=True)
class LayerProfile:
    """The layers of the runs of one group, first to last; `curves` are their similarities over the epochs."""

    group: tuple[str, ...]
    run_ids: tuple[str, ...]
    moves: tuple[LayerMove, ...]
    curves: tuple[Curve, ...]

    @property
    def moved_most(self) -> LayerMove | None:
        """The layer with the largest mean drop; None where none has one."""
        having = [each for each in self.moves if each.drop.mean is not None]
        return max(having, key=lambda each: each.drop.mean or 0.0) if having else None


def layer_profiles(data: StudyData, options: TableOptions, *, with_intervals: bool = False) -> tuple[LayerProfile, ...]:
    """The profile of each group of `options.by` and of each set of layers, over the runs that are done.

    Backbones of another depth are never averaged: a group that holds both has a profile for each.

    Args:
        with_intervals: of the curves too, layer by layer and epoch by epoch.
    Raises:
        StudyError: no run has this similarity.
    """
    key = options.key(data.records)
    data.check(key)
    found = []
    for names, runs in grouped([run for run in data.done if key in run.diagonal], options.by).items():
        for layers in dict.fromkeys(run.layers for run in runs):
            found.append(_profile(names, [run for run in runs if run.layers == layers], key, with_intervals))
    return tuple(found)


def layers_table(data: StudyData, options: TableOptions) -> Table:
    """One row a layer of each profile: how far it moved, when, and in which runs."""
    name = column_of(options.key(data.records))
    rows: list[tuple[Cell, ...]] = []
    for profile in layer_profiles(data, options):
        drops = [each.drop.mean for each in profile.moves if each.drop.mean is not None]
        for each in profile.moves:
            rank = None if each.drop.mean is None else 1 + sum(drop > each.drop.mean for drop in drops)
            spreads = (cell for spread in (each.first, each.last, each.drop) for cell in spread_cells(spread))
            when = (each.half_epoch, each.steepest_epoch, each.n_moved_most, len(profile.run_ids), each.run)
            rows.append((*profile.group, each.layer, rank, *spreads, *when))
    columns = (
        *group_columns(options.by), "layer", "rank",
        *spread_columns([f"{name}_{what}" for what in ("first", "last", "drop")]),
        "half_epoch", "steepest_epoch", "moved_most_n", "n_runs", "largest_drop_run",
    )  # fmt: skip
    return Table("layers", columns, tuple(rows), (*_NOTES, *_notes(data, options)))


def diagonal_table(data: StudyData, options: TableOptions) -> Table:
    """One row an epoch of each layer of each profile: the diagonal of the heatmap over the epochs."""
    rows: list[tuple[Cell, ...]] = [
        (*profile.group, move.layer, epoch, *spread_cells(spread))
        for profile in layer_profiles(data, options, with_intervals=True)
        for move, curve in zip(profile.moves, profile.curves, strict=True)
        for epoch, spread in zip(curve.epochs, curve.spreads, strict=True)
    ]
    columns = (*group_columns(options.by), "layer", "epoch", *spread_columns([column_of(options.key(data.records))]))
    return Table("diagonal", columns, tuple(rows), (bootstrap.NOTE, *_notes(data, options)))


def _notes(data: StudyData, options: TableOptions) -> tuple[str, ...]:
    key = options.key(data.records)
    estimators = notes_on(data.records, [key.measure], key.probe)
    return (*pooled_note(options.by), *estimators, *data.notes(key, finals_only=True))


def _profile(names: tuple[str, ...], runs: Sequence[RunData], key: SimilarityKey, with_intervals: bool) -> LayerProfile:
    """`values` is `(n_runs, n_epochs, n_layers)`; runs of one study that are done have as many epochs each."""
    n_epochs = max(len(run.diagonal[key]) for run in runs)
    values = np.full((len(runs), n_epochs, len(runs[0].layers)), np.nan)
    for row, run in enumerate(runs):
        values[row, : len(run.diagonal[key])] = run.diagonal[key]
    last = np.array([run.diagonal[key][-1] for run in runs], np.float64)
    drops = values[:, 0] - last
    is_defined = np.isfinite(drops)
    filled = np.where(is_defined, drops, -np.inf)
    is_most = (filled > _TINY) & (filled == filled.max(axis=1, keepdims=True))
    # One call for all layers and epochs.
    over_epochs = bootstrap.spreads(values.reshape(len(runs), -1), with_interval=with_intervals)
    ends = bootstrap.spreads(np.concatenate([values[:, 0], last, drops], axis=1))
    n_layers, moves, curves = len(runs[0].layers), [], []
    for i, layer in enumerate(runs[0].layers):
        curve = Curve(tuple(range(n_epochs)), over_epochs[i::n_layers])
        run_id = runs[int(filled[:, i].argmax())].record.run_id if is_defined[:, i].any() else None
        first, end, drop = ends[i::n_layers]
        moves.append(LayerMove(layer, first, end, drop, *_when(curve), int(is_most[:, i].sum()), run_id))
        curves.append(curve)
    return LayerProfile(names, tuple(run.record.run_id for run in runs), tuple(moves), tuple(curves))


def _when(curve: Curve) -> tuple[float | None, int | None]:
    """When the mean had lost half of its largest drop, and the epoch that took the most."""
    means = np.array([np.nan if each.mean is None else each.mean for each in curve.spreads])
    if len(means) < 2 or not np.isfinite(means).all():
        return None, None
    lost = means[0] - means
    half = lost.max() / 2
    if 2 * half <= _TINY:
        return None, None
    after = int(np.argmax(lost >= half))
    part = (half - lost[after - 1]) / (lost[after] - lost[after - 1])
    return after - 1 + float(part), 1 + int(np.argmax(np.diff(lost)))
