"""Similarity and accuracy at every epoch, mean and spread over the seeds of each backbone and method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.analysis.estimators import notes_on
from engine.analysis.score import ACCURACY, Score, score_of
from engine.analysis.table import Cell, Spread, Table
from engine.runs.record import RunRecord
from engine.runs.results import Results, SimilarityKey

MEAN_OF_LAYERS = "mean of layers"


@dataclass(frozen=True)
class Curve:
    """One quantity over the epochs, one `Spread` an epoch; epochs that no run has reached are not there."""

    epochs: tuple[int, ...]
    spreads: tuple[Spread, ...]


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


def trajectories(
    records: Sequence[RunRecord],
    results: Mapping[str, Results],
    key: SimilarityKey,
    layer: str = MEAN_OF_LAYERS,
) -> tuple[Trajectory, ...]:
    """Groups runs by backbone and method, in the order in which they first come.

    Args:
        results: run id -> its results; runs that are not in it, or lack the layer, are left out.
        layer: one block, compared with the same block of the pre-trained model, or the mean over all blocks.
    """
    score = score_of(records)
    groups: dict[tuple[str, str], list[str]] = {}
    for record in records:
        found = results.get(record.run_id)
        if found and key in found.similarity and (layer == MEAN_OF_LAYERS or layer in found.layers):
            groups.setdefault((record.spec.backbone.name, record.spec.method), []).append(record.run_id)
    return tuple(
        Trajectory(
            backbone,
            method,
            tuple(run_ids),
            _curve([layer_similarity(results[run_id], key, layer) for run_id in run_ids]),
            _curve([results[run_id].quality.get(score.metric, np.empty(0)) for run_id in run_ids]),
            score,
        )
        for (backbone, method), run_ids in groups.items()
    )


def layer_similarity(results: Results, key: SimilarityKey, layer: str = MEAN_OF_LAYERS) -> np.ndarray:
    """Similarity of a block to the same block of the pre-trained model at every epoch, `(n_epochs,)`.

    The mean over layers is NaN where any layer's similarity is undefined: a mean of fewer layers is another quantity.
    """
    diagonal = np.diagonal(results.similarity[key], axis1=1, axis2=2).astype(np.float64)
    return diagonal.mean(axis=1) if layer == MEAN_OF_LAYERS else diagonal[:, results.layers.index(layer)]


def trajectory_table(
    found: Sequence[Trajectory],
    records: Sequence[RunRecord],
    key: SimilarityKey,
    layer: str,
) -> Table:
    """One row an epoch of each backbone and method; `records` are those of the runs behind them."""
    metric = found[0].score.metric if found else ACCURACY.metric
    name = f"{key.measure}_{key.pooling}_{key.probe}"
    columns = (
        "backbone",
        "method",
        "layer",
        "epoch",
        f"{name}_mean",
        f"{name}_sd",
        f"{name}_n",
        f"{metric}_mean",
        f"{metric}_sd",
        f"{metric}_n",
    )
    rows: list[tuple[Cell, ...]] = []
    for each in found:
        accuracy = dict(zip(each.accuracy.epochs, each.accuracy.spreads, strict=True))
        for epoch, spread in zip(each.similarity.epochs, each.similarity.spreads, strict=True):
            other = accuracy.get(epoch, Spread(None, None, 0))
            rows.append(
                (
                    each.backbone,
                    each.method,
                    layer,
                    epoch,
                    spread.mean,
                    spread.sd,
                    spread.n,
                    other.mean,
                    other.sd,
                    other.n,
                )
            )
    return Table(
        "trajectory",
        columns,
        tuple(rows),
        (
            "_sd: sample standard deviation over seeds; epoch 0: before training, with an untrained head",
            *notes_on(records, [key.measure]),
        ),
    )


def _curve(runs: Sequence[np.ndarray]) -> Curve:
    """Averages each epoch over the runs that have reached it."""
    n_epochs = max((len(values) for values in runs), default=0)
    spreads = tuple(
        Spread.of(float(values[epoch]) for values in runs if epoch < len(values)) for epoch in range(n_epochs)
    )
    return Curve(tuple(range(n_epochs)), spreads)
