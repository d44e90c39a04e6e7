"""Quality of classifiers and of representations: pure functions of arrays, with no knowledge of files or models."""

from engine.quality.calibration import expected_calibration_error
from engine.quality.knn import knn_accuracy

__all__ = ["expected_calibration_error", "knn_accuracy"]
