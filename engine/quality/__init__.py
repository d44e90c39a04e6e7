"""Quality of classifiers and of representations: pure functions of arrays, with no knowledge of files or models."""

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
    "PENALTIES",
    "ReliabilityBins",
    "alignment",
    "brier_score",
    "effective_rank",
    "expected_calibration_error",
    "knn_accuracy",
    "logistic_probe",
    "negative_log_likelihood",
    "participation_ratio",
    "reliability_bins",
    "ridge_probe",
    "spectrum_alpha",
    "uniformity",
]
