"""Owns the similarity space T_X(η, ε): which runs stay similar to the pre-trained model and lose no accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from statistics import NormalDist

import numpy as np

from engine.analysis.distribution import DECIMALS, Finals, as_compared, final_metric, finals, rows_by_group
from engine.analysis.estimators import column_of, notes_on
from engine.analysis.options import TableOptions, find_run
from engine.analysis.study_data import RunData, StudyData, group_columns, grouped
from engine.analysis.table import Cell, Table
from engine.errors import StudyError
from engine.measures.table import MEASURES
from engine.runs.results import SimilarityKey

PARETO_NOTE = (
    "pareto_front: no other run of the same backbone and dataset is at least as similar and at most as divergent, and "
    "better in one of them; runs that are alike in both are on it together"
)
WILSON_NOTE = "share_inside_low and _high: 95 % interval of a share (Wilson 1927), runs taken as independent draws"
_BEST_NOTE = "reference: the best run of the same backbone and dataset, so it rises with the number of runs"


@dataclass(frozen=True)
class Reference:
    """What the accuracy divergence of one backbone and dataset is measured from; no run where a user gave a figure."""

    backbone: str
    dataset: str
    value: float
    run_id: str | None


@dataclass(frozen=True, eq=False)
class Space:
    """The finished runs in the plane of similarity and accuracy divergence; arrays are `(n_runs,)`, in order of `runs`.

    Attributes:
        runs: those that have both a similarity and an accuracy.
        key, layer: which similarity.
        metric: the study's score, which stands for accuracy: mean AUROC where an image may have several labels.
        eta, epsilon: the thresholds.
        similarity: M_X, float64 in the range of the measure.
        accuracy: float64 in [0, 1].
        reference: what each run's accuracy is measured from, float64.
        divergence: A_X = reference − accuracy, float64 in [-1, 1]; at least 0 where the reference is the best run.
        is_inside: M_X ≥ η and A_X ≤ ε, bool.
        is_on_front: see `PARETO_NOTE`, bool.
        references: one for each backbone and dataset.
        left_out: why a run that is done is not in `runs`, and how many are not; empty where all are.
    """

    runs: tuple[RunData, ...]
    key: SimilarityKey
    layer: str
    metric: str
    eta: float
    epsilon: float
    similarity: np.ndarray
    accuracy: np.ndarray
    reference: np.ndarray
    divergence: np.ndarray
    is_inside: np.ndarray
    is_on_front: np.ndarray
    references: tuple[Reference, ...]
    left_out: str = ""


def space(data: StudyData, options: TableOptions) -> Space:
    """Each finished run's place in the space, and whether it is inside T_X(η, ε).

    Raises:
        StudyError: no such similarity or layer; η outside the range of the measure; ε not in [0, 1]; the reference is
            no run, not done, or no accuracy.
    Source: arXiv 2503.07958, definition of the similarity space.
    """
    found = finals(data, options)
    _check_thresholds(options, found.key)
    given = _given_reference(data, options.reference, found.columns[1])
    kept = np.isfinite(found.similarity) & np.isfinite(found.score)
    reference, is_on_front = np.full(len(kept), np.nan), np.zeros(len(kept), bool)
    references = []
    for rows in _by_backbone_and_dataset(found.runs):
        if (each := _reference(found, rows, given)) is None:
            continue
        references.append(each)
        reference[rows] = each.value
        there = rows[kept[rows]]
        is_on_front[there] = pareto_front(as_compared(found.similarity[there]), as_compared(-found.score[there]))
    divergence = reference - found.score
    with np.errstate(invalid="ignore"):
        is_similar = as_compared(found.similarity) >= round(options.eta, DECIMALS)
        is_inside = is_similar & (as_compared(divergence) <= round(options.epsilon, DECIMALS))
    return Space(
        tuple(compress(found.runs, kept)), found.key, options.layer, found.columns[1], options.eta, options.epsilon,
        found.similarity[kept], found.score[kept], reference[kept], divergence[kept], is_inside[kept],
        is_on_front[kept], tuple(references), _left_out(found, kept),
    )  # fmt: skip


def pareto_front(similarity: np.ndarray, divergence: np.ndarray) -> np.ndarray:
    """Which points no other point is at least as good as in both, and better than in one.

    Args:
        similarity: `(n,)`, higher is better; without NaN.
        divergence: `(n,)`, lower is better; without NaN.
    Returns:
        `(n,)` bool; equal points are on the front together.
    """
    levels, level = np.unique(-similarity, return_inverse=True)  # the most similar first
    lowest = np.full(len(levels), np.inf)
    np.minimum.at(lowest, level, divergence)
    of_more_similar = np.concatenate([[np.inf], np.minimum.accumulate(lowest)[:-1]])
    return (divergence == lowest[level]) & (divergence < of_more_similar[level])


def wilson_interval(n_inside: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, without correction for continuity; n ≥ 1. Source: Wilson 1927."""
    z2 = NormalDist().inv_cdf(0.975) ** 2
    share = n_inside / n
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * (share * (1 - share) / n + z2 / (4 * n * n))) ** 0.5 / (1 + z2 / n)
    return (0.0 if n_inside == 0 else middle - half), (1.0 if n_inside == n else middle + half)


def space_table(data: StudyData, options: TableOptions) -> Table:
    """One row a run that is done.

    Raises:
        StudyError: as `space`.
    """
    found = space(data, options)
    figures = zip(
        found.runs, found.similarity.tolist(), found.accuracy.tolist(), found.reference.tolist(),
        found.divergence.tolist(), found.is_inside, found.is_on_front, strict=True,
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for run, similarity, accuracy, reference, divergence, is_inside, is_on_front in figures:
        record, spec = run.record, run.record.spec
        rows.append(
            (
                record.run_id, spec.backbone.name, record.provenance.paradigm, spec.dataset, spec.method, spec.seed,
                similarity, found.layer, accuracy, reference, divergence, _yes_no(is_inside), _yes_no(is_on_front),
            )
        )  # fmt: skip
    columns = (
        "run", "backbone", "paradigm", "dataset", "method", "seed", column_of(found.key), "layer", found.metric,
        "reference", "accuracy_divergence", "inside", "pareto_front",
    )  # fmt: skip
    return Table("space", columns, tuple(rows), _notes(found, data, options))


def space_counts_table(data: StudyData, options: TableOptions) -> Table:
    """How many runs of each group of `options.by` are inside; a group without a run in the space has no share.

    Raises:
        StudyError: as `space`.
    """
    found = space(data, options)
    places = rows_by_group(found.runs, options.by)
    rows: list[tuple[Cell, ...]] = []
    for names in grouped(data.done, options.by):
        mine = places.get(names, np.zeros(0, int))
        n, n_inside = len(mine), int(found.is_inside[mine].sum())
        shares = (n_inside / n, *wilson_interval(n_inside, n)) if n else (None, None, None)
        rows.append((*names, n, n_inside, *shares, int(found.is_on_front[mine].sum())))
    columns = (
        *group_columns(options.by), "n_runs", "n_inside", "share_inside", "share_inside_low", "share_inside_high",
        "n_pareto",
    )  # fmt: skip
    return Table("space_counts", columns, tuple(rows), (WILSON_NOTE, *_notes(found, data, options)))


def _check_thresholds(options: TableOptions, key: SimilarityKey) -> None:
    low, high = MEASURES[key.measure].range
    if not low <= options.eta <= high:
        raise StudyError(
            "η", f"{key.measure} lies in {low:g} to {high:g} (seen {options.eta:g})", f"give {low:g} to {high:g}"
        )
    if not 0 <= options.epsilon <= 1:
        raise StudyError(
            "ε", f"is a share of 1, from 0 to 1 (seen {options.epsilon:g})", "give 0.02 for two points in a hundred"
        )


def _given_reference(data: StudyData, asked: str | None, metric: str) -> tuple[float, str | None] | None:
    """The accuracy that a user named, with its run where it is one; None for the best of each backbone and dataset."""
    if asked is None:
        return None
    where = f"reference {asked!r}"
    try:
        value = float(asked)
    except ValueError:
        record = find_run(data.records, asked)
    else:
        if not 0 <= value <= 1:
            problem = f"an accuracy is between 0 and 1 (seen {value:g})"
            raise StudyError(where, problem, "give one such as 0.85, or the name of a run")
        return value, None
    run = next((run for run in data.done if run.record is record), None)
    if run is None:
        problem = f"run {record.run_id} has not come to its last epoch (state {record.state})"
        raise StudyError(where, problem, "name a run that is done, or give an accuracy such as 0.85")
    value = final_metric(run, metric)
    if not np.isfinite(value):
        raise StudyError(where, f"run {record.run_id} has no {metric}", "name another run, or give an accuracy")
    return value, record.run_id


def _by_backbone_and_dataset(runs: Sequence[RunData]) -> list[np.ndarray]:
    """The places of the runs of each pre-trained model and dataset."""
    places: dict[tuple[str, str], list[int]] = {}
    for place, run in enumerate(runs):
        places.setdefault((run.record.spec.backbone.name, run.record.spec.dataset), []).append(place)
    return [np.array(found) for found in places.values()]


def _reference(found: Finals, rows: np.ndarray, given: tuple[float, str | None] | None) -> Reference | None:
    """The one that was given, or the best of these runs; None where none of them has an accuracy."""
    score = found.score[rows]
    if not np.isfinite(score).any():
        return None
    best = found.runs[rows[np.nanargmax(score)]].record
    value, run_id = given or (float(np.nanmax(score)), best.run_id)
    return Reference(best.spec.backbone.name, best.spec.dataset, value, run_id)


def _left_out(found: Finals, kept: np.ndarray) -> str:
    n = int((~kept).sum())
    if not n:
        return ""
    reasons = ", ".join(f"{n_without} without {name}" for name, n_without in found.n_missing().items())
    return f"left out: {n} of {len(kept)} runs that are done: {reasons} (undefined, or not measured)"


def _notes(found: Space, data: StudyData, options: TableOptions) -> tuple[str, ...]:
    definitions = (
        f"M_X: {column_of(found.key)} at the last epoch, {found.layer}; A_X: accuracy_divergence = reference − "
        f"{found.metric} at the last epoch, on the test images",
        f"inside: M_X ≥ η = {found.eta:g} and A_X ≤ ε = {found.epsilon:g}; compared at {DECIMALS} decimals, as results "
        "have single precision",
    )
    rule = _BEST_NOTE if options.reference is None else f"reference: {options.reference}, as asked, for every run"
    references = (
        f"reference of {each.backbone} on {each.dataset}: {each.value:.6g}"
        + (f" ({each.run_id})" if each.run_id else "")
        for each in found.references
    )
    left_out = (found.left_out,) if found.left_out else ()
    estimators = notes_on(data.records, [found.key.measure], found.key.probe)
    return (
        *definitions, PARETO_NOTE, rule, *references, *left_out, *estimators,
        *data.notes(found.key, found.layer, finals_only=True),
    )  # fmt: skip


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"
