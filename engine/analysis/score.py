"""Which figures a study is judged by: accuracy, or mean AUROC where an image may have several labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.runs.record import RunRecord


@dataclass(frozen=True)
class Score:
    """A metric of the test images: its name in results, and what a screen writes beside it."""

    metric: str
    label: str


ACCURACY = Score("test_accuracy", "accuracy")
AUROC = Score("test_auroc", "AUROC")
_OF_TASK = {
    "single": (ACCURACY, Score("test_balanced_accuracy", "balanced"), AUROC),
    "ordinal": (ACCURACY, Score("test_quadratic_kappa", "kappa²"), Score("test_balanced_accuracy", "balanced"), AUROC),
    "multilabel": (AUROC, Score("test_average_precision", "mAP")),
}


def scores_of(records: Sequence[RunRecord]) -> tuple[Score, ...]:
    """Every score that the tasks of these runs report, the first ones first; runs that have not begun have no task."""
    begun = (record for record in records if record.provenance.n_classes)
    tasks = dict.fromkeys(record.provenance.task for record in begun) or {"single": None}
    return tuple(dict.fromkeys(score for task in tasks for score in _OF_TASK.get(task, _OF_TASK["single"])))


def score_in(columns: Sequence[str]) -> Score:
    """The score that a table of means has a column for."""
    return next((score for score in (ACCURACY, AUROC) if f"{score.metric}_mean" in columns), ACCURACY)


def score_of(records: Sequence[RunRecord]) -> Score:
    """The one by which runs are compared."""
    return scores_of(records)[0]
