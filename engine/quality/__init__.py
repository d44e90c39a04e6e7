"""Quality of classifiers and of representations: pure functions of arrays, with no knowledge of files or models.

Torch is loaded when the first function is asked for, not before: a screen can read the table without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.quality.table import QUALITY, Metric

if TYPE_CHECKING:
    from engine.quality.calibration import (
        ReliabilityBins,
        brier_score,
        expected_calibration_error,
        negative_log_likelihood,
        reliability_bins,
    )
    from engine.quality.hypersphere import alignment, uniformity
    from engine.quality.knn import knn_accuracy
    from engine.quality.probe import PENALTIES, logistic_probe, ridge_probe
    from engine.quality.spectrum import effective_rank, participation_ratio, spectrum_alpha

__all__ = [
    "PENALTIES", "QUALITY", "Metric", "ReliabilityBins", "alignment", "brier_score", "effective_rank",
    "expected_calibration_error", "knn_accuracy", "logistic_probe", "negative_log_likelihood", "participation_ratio",
    "reliability_bins", "ridge_probe", "spectrum_alpha", "uniformity",
]  # fmt: skip

_MODULES = {
    "ReliabilityBins": "calibration", "brier_score": "calibration", "expected_calibration_error": "calibration",
    "negative_log_likelihood": "calibration", "reliability_bins": "calibration",
    "alignment": "hypersphere", "uniformity": "hypersphere",
    "knn_accuracy": "knn",
    "PENALTIES": "probe", "logistic_probe": "probe", "ridge_probe": "probe",
    "effective_rank": "spectrum", "participation_ratio": "spectrum", "spectrum_alpha": "spectrum",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"engine.quality.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
