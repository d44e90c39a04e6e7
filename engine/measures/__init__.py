"""Similarity of representations: pure functions of arrays, with no knowledge of files, studies or models.

Every measure of `MEASURES` is also a function here, by its name. Torch is loaded when the first of them is asked for,
not before: a screen can read the table without it. For that reason no module here may bear the name of a function.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.measures.table import MEASURES, Measure

if TYPE_CHECKING:
    from engine.measures.cka import debiased_cka, linear_cka
    from engine.measures.pairs import heatmap, heatmaps, why_undefined

__all__ = ["MEASURES", "Measure", "debiased_cka", "heatmap", "heatmaps", "linear_cka", "why_undefined"]


def __getattr__(name: str) -> Any:
    if name in MEASURES:
        return MEASURES[name].function
    if name in ("heatmap", "heatmaps", "why_undefined"):
        return getattr(import_module("engine.measures.pairs"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
