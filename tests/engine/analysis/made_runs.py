"""Runs for tests of analyses, made in memory: only the last epoch holds what a test asks for, earlier ones do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from engine.analysis.study_data import RunData, StudyData
from engine.runs.record import Provenance, RunRecord, State
from engine.runs.results import SimilarityKey
from engine.study import BackboneSection, run_specs
from tests.simtui.studies import study_of

KEY = SimilarityKey("target", "cls", "linear_cka")
COLUMN = "linear_cka_cls_target"
EARLIER = 0.123  # what no table of final results may show
_SPEC = run_specs(study_of(("bundled:supervised",), seeds=1, epochs=2))[0]


def made_run(
    name: str, similarity: float | Sequence[float] = 0.9, score: float = 0.8, *,
    backbone: str = "bundled:supervised", paradigm: str = "supervised", dataset: str = "dermoscopy",
    method: str = "full", seed: int = 0, state: State = State.DONE, n_epochs: int = 3,
    metric: str = "test_accuracy", quality: Mapping[str, Sequence[float]] | None = None,
    key: SimilarityKey = KEY, more: Mapping[SimilarityKey, float] | None = None, provenance: Provenance | None = None,
) -> RunData:  # fmt: skip
    """A run of two epochs and two layers.

    Args:
        similarity: to θ* at the last epoch, of both layers or of each.
        n_epochs: how many are held, epoch 0 among them; 3 of a run that is whole.
        quality: other metrics, each with its value at every epoch.
        more: other similarities at the last epoch, of both layers.
    """
    spec = replace(_SPEC, backbone=BackboneSection(name=backbone), method=method, seed=seed, dataset=dataset)
    where = provenance or Provenance()
    record = RunRecord(name, spec, state, epochs_done=n_epochs - 1, provenance=replace(where, paradigm=paradigm))
    diagonal = {each: _rows(value, n_epochs) for each, value in {key: similarity, **(more or {})}.items()}
    scores = np.array([EARLIER] * (n_epochs - 1) + [score], np.float32)
    others = {each: np.array(values, np.float32) for each, values in (quality or {}).items()}
    return RunData(record, ("block 1", "block 2"), diagonal, {metric: scores, **others})


def study(*runs: RunData) -> StudyData:
    """These runs as a study."""
    return StudyData(runs)


def _rows(last: float | Sequence[float], n_epochs: int) -> np.ndarray:
    rows = np.full((n_epochs, 2), EARLIER, np.float32)
    rows[-1] = last
    return rows


def study_of_records(records: Sequence[RunRecord]) -> StudyData:
    """Runs with results that say what their records say of both ends (`first`, `last`), and nothing else."""
    return StudyData(tuple(_of_record(record) for record in records))


def _of_record(record: RunRecord) -> RunData:
    keys = {
        f"{measure}_{pooling}{suffix}": SimilarityKey(probe, pooling, measure)
        for measure in record.spec.measure.similarity
        for pooling in ("cls", "feat")
        for probe, suffix in (("target", ""), ("origin", "_origin"))
    }
    run = RunData(record, ("block 1",), {}, {})
    for name in {**record.first, **record.last}:
        values = np.full(record.spec.epochs + 1, np.nan)
        values[0], values[-1] = (ends.get(name) for ends in (record.first, record.last))
        held = {keys[name]: values[:, None]} if name in keys else {}
        quality = {} if name in keys else {name: values}
        run = replace(run, diagonal={**run.diagonal, **held}, quality={**run.quality, **quality})
    return run
