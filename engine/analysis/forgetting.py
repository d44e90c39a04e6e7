"""How much of the origin domain is forgotten: k-NN accuracy there before and after fine-tuning, over seeds."""

from __future__ import annotations

from collections.abc import Sequence

from engine.analysis.estimators import measures_of, notes_on, similarity_metrics
from engine.analysis.score import score_of
from engine.analysis.table import Cell, Spread, Table
from engine.runs.record import RunRecord, State

HEAD = (
    "backbone", "paradigm", "method", "n_seeds",
    "origin_knn_before_mean", "origin_knn_before_sd", "origin_knn_after_mean", "origin_knn_after_sd",
    "drop_mean", "drop_sd", "drop_relative_mean", "drop_relative_sd",
)  # fmt: skip
NO_ORIGIN = "this study has no origin set: add [origin] to the study file to measure forgetting"
PROTOCOL = (
    "origin k-NN: cosine, k = 20, temperature 0.07, each image left out of its own bank; "
    "drop = before − after, over the runs that are done"
)
SCRATCH = "scratch: before is the randomly initialised network, so its drop says nothing about forgetting"


def forgetting_table(records: Sequence[RunRecord]) -> Table:
    """One row a backbone and method, over its finished runs; sd is the sample standard deviation over seeds.

    The last columns are the study's score (accuracy, or AUROC) and the final similarities that it asks for, each the
    mean over the blocks.
    """
    similarities, score = similarity_metrics(records), score_of(records).metric
    groups: dict[tuple[str, str, str], list[RunRecord]] = {}
    for record in records:
        if record.state is State.DONE:
            groups.setdefault((record.spec.backbone.name, record.provenance.paradigm, record.spec.method), []).append(
                record
            )
    rows = tuple((*key, *_figures(runs, [score, *similarities])) for key, runs in groups.items())
    measured = any(record.last.get("origin_knn") is not None for runs in groups.values() for record in runs)
    notes: tuple[str, ...] = (PROTOCOL,) if measured or not groups else (NO_ORIGIN,)
    if any(method == "scratch" for _, _, method in groups):
        notes += (SCRATCH,)
    columns = (*HEAD, *(f"{name}_{what}" for name in (score, *similarities) for what in ("mean", "sd")))
    return Table("forgetting", columns, rows, (*notes, *notes_on(records, measures_of(records))))


def _figures(runs: Sequence[RunRecord], finals: Sequence[str]) -> tuple[Cell, ...]:
    before = [run.first.get("origin_knn") for run in runs]
    after = [run.last.get("origin_knn") for run in runs]
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if b is not None and a is not None]
    spreads = (
        Spread.of(before),
        Spread.of(after),
        Spread.of(b - a for b, a in pairs),
        Spread.of((b - a) / b if b else None for b, a in pairs),
        *(Spread.of(run.last.get(name) for run in runs) for name in finals),
    )
    return (len(runs), *(value for spread in spreads for value in (spread.mean, spread.sd)))
