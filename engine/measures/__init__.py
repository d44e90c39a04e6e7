"""Similarity of representations: pure functions of arrays, with no knowledge of files, studies or models.

Every measure of `MEASURES` is also a function here, by its name. Torch is loaded when the first of them is asked for,
not before: a screen can read the table without it. For that reason no module here may bear the name of a function.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.measures.table import MEASURES, Measure

if TYPE_CHECKING:
    from engine.measures.accumulate import CkaAccumulator
    from engine.measures.alignment import procrustes, procrustes_angle, procrustes_distance, row_cosine
    from engine.measures.canonical import linear_regression, mean_cca, mean_squared_cca, pwcca, svcca
    from engine.measures.cka import debiased_cka, linear_cka
    from engine.measures.dissimilarity import rsa
    from engine.measures.minibatch import minibatch_cka
    from engine.measures.neighbours import mutual_knn, mutual_knn_jaccard
    from engine.measures.pairs import Comparison, heatmap, heatmaps, why_undefined
    from engine.measures.rbf import rbf_cka
    from engine.measures.uncertainty import Interval, Null, bootstrap_interval, permutation_null

__all__ = [
    "MEASURES", "CkaAccumulator", "Comparison", "Interval", "Measure", "Null", "bootstrap_interval", "debiased_cka",
    "heatmap", "heatmaps", "linear_cka", "linear_regression", "mean_cca", "mean_squared_cca", "minibatch_cka",
    "mutual_knn", "mutual_knn_jaccard", "permutation_null", "procrustes", "procrustes_angle", "procrustes_distance",
    "pwcca", "rbf_cka", "row_cosine", "rsa", "svcca", "why_undefined",
]  # fmt: skip

# What is not a measure of the table, and the module that has it.
_OTHERS = {
    "CkaAccumulator": "accumulate",
    "Comparison": "pairs", "heatmap": "pairs", "heatmaps": "pairs", "why_undefined": "pairs",
    "Interval": "uncertainty", "Null": "uncertainty",
    "bootstrap_interval": "uncertainty", "permutation_null": "uncertainty",
    "procrustes_angle": "alignment", "procrustes_distance": "alignment",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in MEASURES:
        return MEASURES[name].function
    if name in _OTHERS:
        return getattr(import_module(f"engine.measures.{_OTHERS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
