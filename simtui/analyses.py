"""The table of analyses that a view can ask the reader for: what each is made from lies in the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from engine.analysis.options import TableOptions
from engine.analysis.study_data import StudyData
from engine.errors import SimtuiError
from simtui.actions import CORRELATION, DISTRIBUTIONS, FORGETTING, LAYERS, PREDICTION, SPACE, TRAJECTORIES


@dataclass(frozen=True)
class Found:
    """What an analysis says of all runs, and the data that it was made from.

    `value` is what the engine's function gives, or the expected error that stands in its place.
    """

    value: Any
    data: StudyData


def found_of(view: str, data: StudyData, options: TableOptions) -> Found:
    """Makes the analysis of a view."""
    module, function = ANALYSES[view]
    try:
        return Found(getattr(import_module(f"engine.analysis.{module}"), function)(data, options), data)
    except SimtuiError as error:
        return Found(error, data)


# By name, and loaded by the first view that asks.
ANALYSES: Mapping[str, tuple[str, str]] = {
    TRAJECTORIES: ("trajectory", "trajectories"),
    LAYERS: ("layer_profile", "layer_profiles"),
    SPACE: ("space", "space"),
    CORRELATION: ("correlation", "correlation"),
    FORGETTING: ("forgetting", "forgetting_table"),
    PREDICTION: ("prediction", "prediction"),
    DISTRIBUTIONS: ("distribution", "distributions"),
}
