"""How much of the origin domain is forgotten: k-NN accuracy there before and after fine-tuning, over seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.analysis import bootstrap
from engine.analysis.distribution import final_metric, final_similarity
from engine.analysis.estimators import POOLINGS, measures_of, notes_on
from engine.analysis.options import By, TableOptions
from engine.analysis.score import score_of
from engine.analysis.study_data import RunData, StudyData
from engine.analysis.table import Cell, Spread, Table
from engine.finetune.methods import method_of
from engine.runs.record import RunRecord
from engine.runs.results import SimilarityKey

NO_ORIGIN = "this study has no origin set: add [origin] to the study file to measure forgetting"
NO_ORIGIN_PROBE = "this study compares no origin images: add [origin], and probe.origin_n > 0"
PROTOCOL = (
    "origin k-NN: cosine, k = 20, temperature 0.07, each image left out of its own bank; "
    "drop = before − after, over the runs that are done"
)
SCRATCH = "scratch: before is the randomly initialised network, so its drop says nothing about forgetting"
POOLED = "the runs of several backbones count alike in a group: its interval does not speak for other backbones"
_FIGURES = (
    "n_seeds",
    "origin_knn_before_mean", "origin_knn_before_sd", "origin_knn_after_mean", "origin_knn_after_sd",
    "drop_mean", "drop_sd", "drop_low", "drop_high",
    "drop_relative_mean", "drop_relative_sd", "drop_relative_low", "drop_relative_high",
)  # fmt: skip
_GROUP_COLUMNS: Mapping[By, tuple[str, ...]] = {
    "backbone and method": ("backbone", "paradigm", "method"),
    "backbone": ("backbone", "paradigm"),
    "method": ("method",),
    "paradigm": ("paradigm",),
}


@dataclass(frozen=True)
class _Ends:
    """A finished run: its origin k-NN before and after, and `_finals` after; NaN for no value."""

    record: RunRecord
    before: float
    after: float
    finals: tuple[float, ...]


def forgetting_table(data: StudyData, options: TableOptions) -> Table:
    """One row a group of `options.by`, over its finished runs; sd is the sample standard deviation over seeds.

    By backbone or paradigm only what trains pre-trained weights is a basis of comparison, so the other methods are
    left out. The last columns are the study's score (accuracy, or AUROC) and the final similarities that it asks for,
    each the mean over the blocks: on the probe images of the target domain, then on those of the origin domain.
    """
    finals = _finals(data.records)
    ends = [_ends_of_run(run, finals) for run in data.done]
    return _table(ends, data.records, options.by, data.notes(finals_only=True))


def _finals(records: Sequence[RunRecord]) -> dict[str, SimilarityKey | None]:
    """The columns of the score, for which there is no key, and of each similarity."""
    named = {
        f"{measure}_{pooling}{suffix}": SimilarityKey(probe, pooling, measure)
        for probe, suffix in (("target", ""), ("origin", "_origin"))
        for measure in measures_of(records)
        for pooling in POOLINGS
    }
    return {score_of(records).metric: None, **named}


def _ends_of_run(run: RunData, finals: Mapping[str, SimilarityKey | None]) -> _Ends:
    knn = run.metric("origin_knn")
    values = (final_metric(run, name) if key is None else final_similarity(run, key) for name, key in finals.items())
    before = float(knn[0]) if len(knn) else math.nan
    return _Ends(run.record, before, final_metric(run, "origin_knn"), tuple(values))


def _table(ends: Sequence[_Ends], records: Sequence[RunRecord], by: By, notes: Sequence[str] = ()) -> Table:
    basis = _basis(ends)
    kept = [each for each in ends if "method" in by or each.record.spec.method in basis]
    groups: dict[tuple[str, ...], list[_Ends]] = {}
    for each in kept:
        spec = each.record.spec
        named = {"backbone": spec.backbone.name, "paradigm": each.record.provenance.paradigm, "method": spec.method}
        groups.setdefault(tuple(named[column] for column in _GROUP_COLUMNS[by]), []).append(each)
    finals = tuple(_finals(records))
    columns = (*_GROUP_COLUMNS[by], *_FIGURES, *(f"{name}_{what}" for name in finals for what in ("mean", "sd")))
    rows = tuple((*names, *_figures(runs)) for names, runs in groups.items())
    estimators = (note for probe in ("target", "origin") for note in notes_on(records, measures_of(records), probe))
    left_out = [] if len(kept) == len(ends) else [_left_out(ends, by, basis)]
    pooled = any(len({each.record.spec.backbone.name for each in runs}) > 1 for runs in groups.values())
    said = (*_notes(kept, finals), *left_out, *([POOLED] if pooled else []), bootstrap.NOTE)
    return Table("forgetting", columns, rows, (*said, *dict.fromkeys(estimators), *notes))


def _basis(ends: Sequence[_Ends]) -> tuple[str, ...]:
    """The methods by whose runs backbones and paradigms are compared: `full` alone, where there are such runs."""
    found = dict.fromkeys(each.record.spec.method for each in ends)
    can_forget = [each for each in found if method_of(each).starts_pretrained and method_of(each).trains_backbone]
    return ("full",) if "full" in can_forget or not can_forget else tuple(can_forget)


def _figures(runs: Sequence[_Ends]) -> tuple[Cell, ...]:
    before, after = np.array([[each.before, each.after] for each in runs], np.float64).T
    drop = before - after
    relative = np.full_like(drop, np.nan)
    np.divide(drop, before, out=relative, where=before != 0)
    intervals = zip(*bootstrap.mean_interval(np.column_stack([drop, relative])), strict=True)
    cells: list[Cell] = [len(runs)]
    for values in (before, after):
        spread = Spread.of(values.tolist())
        cells += spread.mean, spread.sd
    for values, (low, high) in zip((drop, relative), intervals, strict=True):
        spread = Spread.of(values.tolist()).within(low, high)
        cells += spread.mean, spread.sd, spread.low, spread.high
    for finals in zip(*(each.finals for each in runs), strict=True):
        spread = Spread.of(finals)
        cells += spread.mean, spread.sd
    return tuple(cells)


def _notes(kept: Sequence[_Ends], finals: Sequence[str]) -> tuple[str, ...]:
    """What was measured and what was not, of the runs that are in the table."""
    figures = {"origin_knn": [each.before - each.after for each in kept]}
    figures |= {name: [each.finals[i] for each in kept] for i, name in enumerate(finals)}
    n_without = {name: sum(not math.isfinite(value) for value in values) for name, values in figures.items()}
    is_measured = any(math.isfinite(each.after) for each in kept)
    notes = [PROTOCOL if is_measured or not kept else NO_ORIGIN]
    if any(each.record.spec.method == "scratch" for each in kept):
        notes.append(SCRATCH)
    if kept and all(n == len(kept) for name, n in n_without.items() if name.endswith("_origin")):
        notes.append(NO_ORIGIN_PROBE)
    if n_zero := sum(each.before == 0 and math.isfinite(each.after) for each in kept):
        notes.append(f"drop_relative: {n_zero} of {len(kept)} runs have none, as their k-NN before is 0")
    notes += (
        f"{name}: {n} of {len(kept)} runs have none (undefined, or not measured)"
        for name, n in n_without.items()
        if 0 < n < len(kept)
    )
    return tuple(notes)


def _left_out(ends: Sequence[_Ends], by: By, basis: Sequence[str]) -> str:
    counts = Counter(each.record.spec.method for each in ends if each.record.spec.method not in basis)
    reasons = ", ".join(f"{method} ({n}, {_why_left_out(method)})" for method, n in counts.items())
    return f"by {by}: only what trains pre-trained weights ({', '.join(basis)}) can forget; runs left out: {reasons}"


def _why_left_out(name: str) -> str:
    method = method_of(name)
    if not method.starts_pretrained:
        return "never pre-trained"
    return "not full fine-tuning" if method.trains_backbone else "a frozen backbone"
