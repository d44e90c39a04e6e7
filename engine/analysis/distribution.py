"""Owns the final similarity and score of each run, and how they are distributed over the seeds of a group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.analysis import bootstrap
from engine.analysis.estimators import column_of, notes_on
from engine.analysis.options import MEAN_OF_LAYERS, TableOptions
from engine.analysis.score import score_of
from engine.analysis.study_data import RunData, StudyData, group_columns, grouped, pooled_note
from engine.analysis.table import Cell, Spread, Table
from engine.measures.table import MEASURES
from engine.runs.results import SimilarityKey

DECIMALS = 6
LEVELS = (0, 5, 25, 50, 75, 95, 100)
DENSITY_NOTE = (
    "density: Gaussian kernels, bandwidth sd · (0.75 n)^(-1/5) (Silverman's rule), reflected at the ends of the range "
    "of the values, drawn 3 bandwidths beyond the lowest and the highest; none below 3 runs or without spread"
)
_NOTES = (
    "final: at the last epoch that the study asks for, over the runs that are done",
    "sd: sample standard deviation over seeds; min to max: quantiles, linear between the two nearest values",
    bootstrap.NOTE,
)
_QUANTILE_COLUMNS = ("min", "q05", "q25", "median", "q75", "q95", "max")
_N_POINTS = 128
_SCORE_RANGE = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Finals:
    """What the runs that are done have come to.

    Attributes:
        key: of the similarity.
        columns: names of the two quantities in tables: the similarity's, and the metric of the study's score.
        similarity: to the pre-trained model, `(n_runs,)` float64; NaN where it is undefined or was not measured.
        score: `(n_runs,)` float64 in [0, 1]; NaN where it is undefined or was not measured.
    """

    runs: tuple[RunData, ...]
    key: SimilarityKey
    columns: tuple[str, str]
    similarity: np.ndarray
    score: np.ndarray

    def n_missing(self) -> dict[str, int]:
        """How many runs have no value of a quantity, where any has none."""
        quantities = zip(self.columns, (self.similarity, self.score), strict=True)
        return {name: n for name, values in quantities if (n := int((~np.isfinite(values)).sum()))}

    def notes(self) -> tuple[str, ...]:
        """The same in words."""
        return tuple(
            f"{name}: {n} of {len(self.runs)} runs that are done have none (undefined, or not measured)"
            for name, n in self.n_missing().items()
        )


@dataclass(frozen=True, eq=False)
class Density:
    """A smooth curve of how values are distributed: see `DENSITY_NOTE`.

    Attributes:
        at: `(n_points,)` float64, rising, within the range of the quantity.
        values: `(n_points,)` float64, at least 0; the area below them is 1.
        bandwidth: standard deviation of a kernel, in the unit of the quantity.
    """

    at: np.ndarray
    values: np.ndarray
    bandwidth: float


@dataclass(frozen=True)
class Sample:
    """One quantity of one group: every value with its run, and what sums them up.

    `quantiles` are those of `LEVELS` in percent, and empty without values; `run_ids` leaves out runs without a value.
    """

    run_ids: tuple[str, ...]
    values: tuple[float, ...]
    spread: Spread
    quantiles: tuple[float, ...]
    density: Density | None


@dataclass(frozen=True)
class Distribution:
    """The finished runs of one group; `names` are its values of `group_columns`."""

    names: tuple[str, ...]
    similarity: Sample
    score: Sample


def finals(data: StudyData, options: TableOptions) -> Finals:
    """The final similarity and score of every run that is done.

    Raises:
        StudyError: no run has this similarity or this layer.
    """
    key, metric = options.key(data.records), score_of(data.records).metric
    data.check(key, options.layer)
    similarity = [final_similarity(run, key, options.layer) for run in data.done]
    score = [final_metric(run, metric) for run in data.done]
    columns = (column_of(key), metric)
    return Finals(data.done, key, columns, np.array(similarity, np.float64), np.array(score, np.float64))


def final_similarity(run: RunData, key: SimilarityKey, layer: str = MEAN_OF_LAYERS) -> float:
    """`RunData.similarity` at the last epoch that the study asks for; NaN where the run has none."""
    epoch = run.record.spec.epochs
    if not run.has(key, layer) or len(run.diagonal[key]) <= epoch:
        return math.nan
    blocks = run.diagonal[key][epoch]
    return float(blocks.mean(dtype=np.float64) if layer == MEAN_OF_LAYERS else blocks[run.layers.index(layer)])


def final_metric(run: RunData, name: str) -> float:
    """A quality metric at the last epoch that the study asks for; NaN where the run has none."""
    values, epoch = run.quality.get(name, ()), run.record.spec.epochs
    return float(values[epoch]) if len(values) > epoch else math.nan


def as_compared(values: np.ndarray) -> np.ndarray:
    """Values as they are ordered and held against thresholds: results are float32, so the digits beyond are noise."""
    return np.round(values, DECIMALS)


def rows_by_group(runs: Sequence[RunData], by: str) -> dict[tuple[str, ...], np.ndarray]:
    """The places in `runs` of the runs of each group, `(n,)` int."""
    places = {id(run): place for place, run in enumerate(runs)}
    return {names: np.array([places[id(run)] for run in group]) for names, group in grouped(runs, by).items()}


def distributions(data: StudyData, options: TableOptions) -> tuple[Distribution, ...]:
    """Final similarity and score of each group of `options.by`, in the order in which the groups first come.

    Raises:
        StudyError: no run has this similarity or this layer.
    """
    return _distributions(finals(data, options), options, is_drawn=True)


def distribution_table(data: StudyData, options: TableOptions) -> Table:
    """One row a group and quantity: the final similarity, then the study's score.

    Raises:
        StudyError: no run has this similarity or this layer.
    """
    found = finals(data, options)
    rows = tuple(
        (*each.names, column, layer, *_cells(sample))
        for each in _distributions(found, options, is_drawn=False)
        for column, layer, sample in zip(
            found.columns, (options.layer, None), (each.similarity, each.score), strict=True
        )
    )
    columns = (
        *group_columns(options.by), "quantity", "layer", "n", "mean", "sd", "mean_low", "mean_high", *_QUANTILE_COLUMNS,
    )  # fmt: skip
    estimators = notes_on(data.records, [found.key.measure], found.key.probe)
    left_out = (*found.notes(), *data.notes(found.key, options.layer, finals_only=True))
    notes = (*_NOTES, *pooled_note(options.by), *estimators, *left_out)
    return Table("distribution", columns, rows, notes)


def _distributions(found: Finals, options: TableOptions, is_drawn: bool) -> tuple[Distribution, ...]:
    run_ids = np.array([run.record.run_id for run in found.runs], object)
    ranges = (MEASURES[found.key.measure].range, _SCORE_RANGE)
    both = np.column_stack([found.similarity, found.score])
    made = []
    for names, rows in rows_by_group(found.runs, options.by).items():
        samples = []
        for i, (low, high) in enumerate(zip(*bootstrap.mean_interval(both[rows]), strict=True)):
            values = both[rows, i]
            is_there = np.isfinite(values)
            kept = values[is_there]
            density = _density(kept, *ranges[i]) if is_drawn else None
            spread = Spread.of(kept.tolist()).within(low, high)
            quantiles = tuple(np.percentile(kept, LEVELS).tolist()) if len(kept) else ()
            samples.append(Sample(tuple(run_ids[rows][is_there]), tuple(kept.tolist()), spread, quantiles, density))
        made.append(Distribution(names, *samples))
    return tuple(made)


def _density(values: np.ndarray, low: float, high: float) -> Density | None:
    """See `DENSITY_NOTE`. Source: Silverman 1986, eq. 3.28 (bandwidth) and section 2.10 (reflection).

    Not by scipy: at n = 111 its `gaussian_kde` took 48 ms where this takes 0.3, and its module half a second to load.
    """
    if len(values) < 3 or not np.ptp(as_compared(values)):
        return None
    kept = np.clip(values, low, high)
    bandwidth = float(kept.std(ddof=1) * (0.75 * len(kept)) ** -0.2)
    at = np.linspace(max(low, kept.min() - 3 * bandwidth), min(high, kept.max() + 3 * bandwidth), _N_POINTS)
    centres = np.concatenate([kept, 2 * low - kept, 2 * high - kept])
    kernels = np.exp(-0.5 * ((at[:, None] - centres) / bandwidth) ** 2)
    return Density(at, kernels.sum(axis=1) / (len(kept) * bandwidth * np.sqrt(2 * np.pi)), bandwidth)


def _cells(sample: Sample) -> tuple[Cell, ...]:
    spread = sample.spread
    return spread.n, spread.mean, spread.sd, spread.low, spread.high, *(sample.quantiles or (None,) * len(LEVELS))
