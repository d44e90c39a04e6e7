"""Which figure a study is judged by follows from the task of its runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.analysis.forgetting import forgetting_table
from engine.analysis.options import TableOptions
from engine.analysis.runs import runs_table
from engine.analysis.score import ACCURACY, AUROC, score_in, score_of, scores_of
from engine.runs.record import Provenance, RunRecord, State
from engine.study import run_specs
from tests.engine.analysis.made_runs import study_of_records
from tests.simtui.studies import made_record, made_results, study_of


def of_task(task: str, seed: int = 0, n_classes: int = 3) -> RunRecord:
    spec = run_specs(study_of())[seed]
    record = made_record(spec, made_results(spec, 6, 2), 1)
    provenance = replace(record.provenance, task=task, n_classes=n_classes)
    last = {"test_accuracy": 0.5, "test_auroc": 0.75, "test_average_precision": 0.6, "test_quadratic_kappa": 0.4}
    return record.with_(provenance=provenance, last=last, first=last, state=State.DONE)


@pytest.mark.parametrize(("task", "metrics"), [
    ("single", ("test_accuracy", "test_balanced_accuracy", "test_auroc")),
    ("ordinal", ("test_accuracy", "test_quadratic_kappa", "test_balanced_accuracy", "test_auroc")),
    ("multilabel", ("test_auroc", "test_average_precision")),
])  # fmt: skip
def test_scores_of_a_task(task: str, metrics: tuple[str, ...]) -> None:
    records = [of_task(task)]
    assert tuple(score.metric for score in scores_of(records)) == metrics
    table = runs_table(records)
    assert [name for name in table.columns if name.startswith("test_")] == [*metrics, "test_ece"]


def test_runs_that_have_not_begun_do_not_decide() -> None:
    queued = of_task("single", 1, n_classes=0).with_(provenance=Provenance(), last={}, first={})
    assert score_of([queued, of_task("multilabel")]) is AUROC
    assert score_of([queued]) is ACCURACY and score_of([]) is ACCURACY


def test_forgetting_shows_the_score_of_the_task() -> None:
    found = forgetting_table(study_of_records([of_task("multilabel")]), TableOptions())
    assert "test_accuracy_mean" not in found.columns and score_in(found.columns) is AUROC
    row = dict(zip(found.columns, found.rows[0], strict=True))
    assert row["test_auroc_mean"] == 0.75
