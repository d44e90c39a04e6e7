"""Owns which part of a study a table shows, with the default of each choice; knows no table."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from engine.analysis.estimators import measures_of
from engine.errors import StudyError
from engine.measures.table import MEASURES
from engine.runs.record import RunRecord
from engine.runs.results import SimilarityKey

MEAN_OF_LAYERS = "mean of layers"
By = Literal["backbone and method", "backbone", "method", "paradigm"]
Over = Literal["runs", "runs and epochs"]
BY: tuple[By, ...] = get_args(By)
OVER: tuple[Over, ...] = get_args(Over)


@dataclass(frozen=True)
class TableOptions:
    """What a user chooses; what a table does not need is not looked at.

    Attributes:
        run: a run's name or a part of it that fits only one.
        epoch: None for the last.
        layer: one block, compared with the same block of the pre-trained model, or the mean over all blocks.
        measure: None for the first that the study asks for.
        probe: whose images are compared: "target" or "origin".
        by: how runs are grouped.
        eta: η of T_X(η, ε): the lowest similarity inside.
        epsilon: ε of T_X(η, ε): the highest accuracy divergence inside, as a share of 1.
        reference: what accuracy divergence is measured from: a run's name or a part of it, or an accuracy ("0.85");
            None for the best run of the same backbone and dataset.
        metric: a quality metric of `Results.quality`, or of `layer_quality` without its pooling.
        over: one point a run, at its last epoch, or one point an epoch of each run, epoch 0 left out.
        width: of the intervals of similarity, as in the paper's figure 5.
        min_count: intervals with fewer points have no mean.
        until: the last epoch that an early prediction may look at.
        image: an image of the attention set, by its id or a part of it that fits only one, or the path of any image.
        head: an attention head; None for the mean over the heads.
        interval: of every cell over the images, with what unrelated layers would score.
        beside: a second run, by its name or a part of it, whose map is held against that of `run`.
    """

    run: str | None = None
    epoch: int | None = None
    layer: str = MEAN_OF_LAYERS
    pooling: str = "cls"
    measure: str | None = None
    probe: str = "target"
    by: By = "backbone and method"
    eta: float = 0.8
    epsilon: float = 0.02
    reference: str | None = None
    metric: str = "test_ece"
    over: Over = "runs"
    width: float = 0.05
    min_count: int = 3
    until: int = 3
    image: str | None = None
    head: int | None = None
    interval: bool = False
    beside: str | None = None

    def key(self, records: Sequence[RunRecord]) -> SimilarityKey:
        """The similarity that is asked for.

        Raises:
            StudyError: there is no such measure at all.
        """
        measure = self.measure or next(iter(measures_of(records)), "linear_cka")
        if measure not in MEASURES:
            near = difflib.get_close_matches(measure, MEASURES, 1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise StudyError(f'measure "{measure}"', f"no such measure{hint}", f"choose one of {', '.join(MEASURES)}")
        return SimilarityKey(self.probe, self.pooling, measure)


def find_run(records: Sequence[RunRecord], name: str) -> RunRecord:
    """The one run whose name is, or contains, `name`.

    Raises:
        StudyError: none or several.
    """
    exact = [record for record in records if record.run_id == name]
    found = exact or [record for record in records if name in record.run_id]
    if len(found) == 1:
        return found[0]
    if not found:
        raise StudyError(f"run {name!r}", "no run has this in its name", "see the names with `simtui export DIR runs`")
    names = ", ".join(record.run_id for record in found[:3])
    raise StudyError(f"run {name!r}", f"fits {len(found)} runs: {names}", "give more of the name")
