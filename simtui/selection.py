"""Owns what the user looks at: run, epoch, cell, layer, similarity; shared by all views and kept while data change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.analysis.options import MEAN_OF_LAYERS, By, Over, TableOptions
from engine.runs.results import SimilarityKey
from simtui.views.sorting import STUDY_ORDER, Order

Overlay = Literal["methods", "backbones", "all"]
Band = Literal["sd", "95 %", "runs"]
BANDS: tuple[Band, ...] = ("sd", "95 %", "runs")
RunsBy = Literal["", "backbone and method", "backbone", "method"]
RUNS_BY: tuple[RunsBy, ...] = ("", "backbone and method", "backbone", "method")
OVERLAYS: tuple[Overlay, ...] = ("methods", "backbones", "all")


@dataclass(frozen=True)
class Selection:
    """Names, not positions, wherever a refresh may move what they name.

    `job` is the run whose log is read; an empty one is the study.

    `epoch` is None for the last one there is, so that a running study is followed; `row` and `column` are the cell of
    the map (layer of the pre-trained model, layer of the run's model). `pinned` is the run that the map of another is
    held against; `is_difference` and `is_row_and_column` say what stands beside a map. An empty `measure` is the first
    that there is, an empty `pooling` that which all runs have. `run_filter` is the last that could be read (see
    `views.run_filter`); `runs_by` is empty where runs stand one by one; `marked` are names of runs.
    """

    run_id: str | None = None
    epoch: int | None = None
    probe: str = ""
    pooling: str = ""
    measure: str = ""
    row: int = 0
    column: int = 0
    pinned: str | None = None
    is_difference: bool = False
    is_row_and_column: bool = False
    layer: str = MEAN_OF_LAYERS
    overlay: Overlay = "methods"
    band: Band = "sd"
    backbone: str = ""
    method: str = ""
    by: By = "backbone and method"
    eta: float = TableOptions.eta
    epsilon: float = TableOptions.epsilon
    until: int = TableOptions.until
    metric: str = ""
    over: Over = "runs"
    image: str | None = None
    head: int | None = None
    patch: tuple[int, int] | None = None
    job: str = ""
    run_filter: str = ""
    runs_order: Order = STUDY_ORDER
    runs_by: RunsBy = ""
    marked: frozenset[str] = frozenset()
    forgetting_order: Order = STUDY_ORDER

    def options(self, key: SimilarityKey) -> TableOptions:
        """What an analysis of all runs is asked for."""
        return TableOptions(
            layer=self.layer,
            pooling=key.pooling,
            measure=key.measure,
            probe=key.probe,
            by=self.by,
            eta=self.eta,
            epsilon=self.epsilon,
            metric=self.metric or TableOptions.metric,
            over=self.over,
            until=self.until,
        )

    def key_among(self, keys: Sequence[SimilarityKey]) -> SimilarityKey:
        """The similarity that is there and nearest to the one chosen: same pooling and measure before same probe."""
        wanted = (self.pooling, self.measure, self.probe)
        return max(
            keys or [SimilarityKey(self.probe or "target", self.pooling or "cls", self.measure or "linear_cka")],
            key=lambda key: sum(
                weight * (a == b)
                for weight, a, b in zip((4, 2, 1), wanted, (key.pooling, key.measure, key.probe), strict=True)
            ),
        )

    def epoch_among(self, n_epochs: int) -> int:
        """The epoch to show where there are `n_epochs`."""
        last = max(n_epochs - 1, 0)
        return last if self.epoch is None else min(max(self.epoch, 0), last)


def after(values: Sequence[str], current: str, step: int = 1) -> str:
    """The value `step` places on, around the end; the first where `current` is not among them."""
    return values[(values.index(current) + step) % len(values)] if current in values else values[0]
