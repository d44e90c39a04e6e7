"""Owns `results.h5` and `history.csv` of a run: similarity and quality at every epoch; knows not how they arise."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.errors import DamagedError
from engine.files import atomic_write
from engine.hdf5 import NamedArray, open_arrays, write_arrays
from engine.runs.record import remake_run

RESULTS_FILE = "results.h5"
HISTORY_FILE = "history.csv"
# The columns of `history.csv`, and the order in which everything is written: a file is then the same however it arose.
_SPLIT_METRICS = (
    "loss", "accuracy", "balanced_accuracy", "quadratic_kappa", "auroc", "average_precision", "ece", "brier",
)  # fmt: skip
_OF_SPLITS = tuple(f"{split}_{name}" for split in ("val", "test") for name in _SPLIT_METRICS)
_ORDER = ("train_loss", "train_penalty", *_OF_SPLITS, "origin_knn")


@dataclass(frozen=True, order=True)
class SimilarityKey:
    """Which similarity: on which images, how tokens were pooled, and by which measure."""

    probe: str
    pooling: str
    measure: str


@dataclass(frozen=True)
class Results:
    """All results of a run, epoch by epoch; epoch 0 is the model before training.

    `similarity[key]` is `(n_epochs, n_rows, n_layers)`: row = layer of the pre-trained model, column = layer of the
    run's model; NaN where a measure is undefined for a layer. `rows` are the same layers but in a comparison of two
    checkpoints, where `layers_ref` names those of the first. `quality[name]` is `(n_epochs,)`; NaN where the metric
    is not computed at that epoch. `layer_quality[name]`, the name with its pooling, is `(n_epochs, n_layers)`.
    """

    layers: tuple[str, ...]
    similarity: Mapping[SimilarityKey, np.ndarray] = field(default_factory=dict)
    quality: Mapping[str, np.ndarray] = field(default_factory=dict)
    layer_quality: Mapping[str, np.ndarray] = field(default_factory=dict)
    layers_ref: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[str, ...]:
        """The layers that the rows of a map are of."""
        return self.layers_ref or self.layers

    @property
    def n_epochs(self) -> int:
        """How many epochs are held, epoch 0 among them."""
        return max((len(values) for values in [*self.similarity.values(), *self.quality.values()]), default=0)

    def first_epochs(self, n: int) -> Results:
        """The results of the first `n` epochs."""
        return Results(
            self.layers,
            {key: values[:n] for key, values in self.similarity.items()},
            {key: values[:n] for key, values in self.quality.items()},
            {key: values[:n] for key, values in self.layer_quality.items()},
            self.layers_ref,
        )

    def with_epoch(
        self,
        similarity: Mapping[SimilarityKey, np.ndarray],
        quality: Mapping[str, float | None],
        layer_quality: Mapping[str, np.ndarray] | None = None,
    ) -> Results:
        """The results with one more epoch at the end; what an epoch lacks is NaN there."""
        n = self.n_epochs
        names = dict.fromkeys([*self.quality, *quality])
        rows = layer_quality or {}
        absent = np.full(len(self.layers), np.nan)
        return Results(
            self.layers,
            {key: _appended(self.similarity.get(key), matrix, n) for key, matrix in similarity.items()},
            {name: _appended(self.quality.get(name), np.array(_or_nan(quality.get(name))), n) for name in names},
            {
                name: _appended(self.layer_quality.get(name), rows.get(name, absent), n)
                for name in dict.fromkeys([*self.layer_quality, *rows])
            },
            self.layers_ref,
        )

    def at_epoch(
        self,
        epoch: int,
        similarity: Mapping[SimilarityKey, np.ndarray],
        quality: Mapping[str, float | None],
        layer_quality: Mapping[str, np.ndarray],
    ) -> Results:
        """The results with the figures of one epoch put in its place, whatever was there; epochs before it that are
        not there yet become NaN throughout."""
        n = max(self.n_epochs, epoch + 1)
        n_layers = len(self.layers)
        shape = len(self.rows), n_layers
        of_all = {**dict.fromkeys(self.quality), **quality}
        layers = dict.fromkeys([*self.layer_quality, *layer_quality], np.full(n_layers, np.nan)) | dict(layer_quality)
        return Results(
            self.layers,
            {
                key: _placed(self.similarity.get(key), similarity.get(key, np.full(shape, np.nan)), epoch, n)
                for key in dict.fromkeys([*self.similarity, *similarity])
            },
            {
                name: _placed(self.quality.get(name), np.array(_or_nan(value)), epoch, n)
                for name, value in of_all.items()
            },
            {name: _placed(self.layer_quality.get(name), values, epoch, n) for name, values in layers.items()},
            self.layers_ref,
        )

    def without_epoch(self) -> Results:
        """The results with one more epoch, of which there is nothing: NaN throughout."""
        nothing = np.full((len(self.layers),) * 2, np.nan)
        return self.with_epoch(dict.fromkeys(self.similarity, nothing), {})


def write_results(run_path: Path, results: Results) -> None:
    """Writes `results.h5` and `history.csv` of a run, each whole."""
    epochs = np.arange(results.n_epochs, dtype=np.int32)
    layers = np.array(results.layers)
    rows = np.array(results.rows)
    arrays = {
        f"/similarity/{key.probe}/{key.pooling}/{key.measure}": NamedArray(
            values.astype(np.float32), ("epoch", "layer_ref", "layer")
        )
        for key, values in sorted(results.similarity.items(), key=lambda item: item[0])
    }
    quality = dict(sorted(results.quality.items(), key=lambda item: _place(item[0])))
    for name, values in [*quality.items(), *sorted(results.layer_quality.items())]:
        arrays[f"/quality/{name}"] = NamedArray(values.astype(np.float32), ("epoch", "layer")[: values.ndim])
    write_arrays(
        run_path / RESULTS_FILE, arrays, {"epoch": epochs, "layer_ref": rows, "layer": layers}, {"kind": "results"}
    )
    atomic_write(run_path / HISTORY_FILE, history_csv(results))


def read_results(run_path: Path) -> Results:
    """Reads `results.h5` of a run.

    Raises:
        DamagedError: missing, damaged, or shapes that do not fit together.
    """
    remake = remake_run(run_path)
    path = run_path / RESULTS_FILE
    with open_arrays(path, remake) as file:
        layers = file.strings("/layer")
        rows = file.strings("/layer_ref") if "layer_ref" in file.names("/") else layers  # the first files had none
        n_epochs = len(file.array("/epoch"))
        similarity = {
            SimilarityKey(probe, pooling, measure): file.array(f"/similarity/{probe}/{pooling}/{measure}")
            for probe in file.names("/similarity")
            for pooling in file.names(f"/similarity/{probe}")
            for measure in file.names(f"/similarity/{probe}/{pooling}")
        }
        found = {name: file.array(f"/quality/{name}") for name in file.names("/quality")}
    for key, values in similarity.items():
        if values.shape != (n_epochs, len(rows), len(layers)):
            problem = f"{key} has shape {values.shape}, need {(n_epochs, len(rows), len(layers))}"
            raise DamagedError(str(path), problem, remake)
    for name, values in found.items():
        need = (n_epochs, len(layers))[: max(values.ndim, 1)]
        if values.shape != need:
            raise DamagedError(str(path), f"quality {name} has shape {values.shape}, need {need}", remake)
    quality, layer_quality = ({name: v for name, v in found.items() if v.ndim == ndim} for ndim in (1, 2))
    return Results(layers, similarity, quality, layer_quality, () if rows == layers else rows)


def history_csv(results: Results) -> str:
    """The text of `history.csv`: quality by epoch, for people and spreadsheets; it follows from the results."""
    n_epochs = results.n_epochs
    quality = dict(sorted(results.quality.items(), key=lambda item: _place(item[0])))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", *quality])
    for epoch in range(n_epochs):
        values = [float(column[epoch]) for column in quality.values()]
        writer.writerow([epoch, *("" if math.isnan(value) else f"{value:.9g}" for value in values)])
    return text.getvalue()


def _place(name: str) -> tuple[int, str]:
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)


def _appended(before: np.ndarray | None, values: np.ndarray, n: int) -> np.ndarray:
    """Values of `n` epochs and one more, float32; NaN for the epochs before where there are none."""
    row = np.asarray(values, np.float32)[None]
    return np.concatenate([np.full((n, *row.shape[1:]), np.nan, np.float32) if before is None else before, row])


def _placed(before: np.ndarray | None, values: np.ndarray, epoch: int, n: int) -> np.ndarray:
    """`n` epochs, float32: those there were, NaN for others, and the values at one epoch."""
    made = np.full((n, *np.shape(values)), np.nan, np.float32)
    if before is not None:
        made[: len(before)] = before
    made[epoch] = values
    return made


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
