"""Metrics of a classifier from its logits; the standard ones are scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score
from torch import Tensor

from engine.quality import expected_calibration_error


def classification_metrics(logits: Tensor, labels: np.ndarray, split: str) -> dict[str, float]:
    """Loss, accuracy, balanced accuracy, macro AUROC and expected calibration error of one split.

    Args:
        logits: `(n, n_classes)`, on any device.
        labels: `(n,)` integers in [0, n_classes).
        split: prefix of the names, `val` or `test`.
    Returns:
        `{split}_loss` (mean cross-entropy in nats), `{split}_accuracy`, `{split}_balanced_accuracy` (mean recall over
        the classes that are there), `{split}_auroc` (mean one-vs-rest over the classes that are there; NaN with fewer
        than two classes), `{split}_ece` (15 bins of equal width, L1).
    """
    logits = logits.double().cpu()
    probabilities = logits.softmax(dim=1)
    predictions = probabilities.argmax(dim=1).numpy()
    present = np.unique(labels)
    # balanced_accuracy_score warns where a prediction is of a class that is not there.
    recall = recall_score(labels, predictions, labels=present, average="macro", zero_division=0.0)
    aurocs = [math.nan]
    if len(present) > 1:
        aurocs = [roc_auc_score(labels == c, probabilities[:, c].numpy()) for c in present]
    return {
        f"{split}_loss": float(F.cross_entropy(logits, torch.from_numpy(labels))),
        f"{split}_accuracy": float(accuracy_score(labels, predictions)),
        f"{split}_balanced_accuracy": float(recall),
        f"{split}_auroc": float(np.mean(aurocs)),
        f"{split}_ece": float(expected_calibration_error(probabilities, torch.from_numpy(labels))),
    }
