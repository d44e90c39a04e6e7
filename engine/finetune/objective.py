"""What training minimises, and in which order it sees the images; knows nothing of models and files.

Cross-entropy for one class an image (grades too); binary cross-entropy over the known labels where there are several.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.data.options import Task
from engine.data.splits import strata

MAX_POSITIVE_WEIGHT = 100.0


class Objective:
    """The loss of the training images by row, and their order in an epoch."""

    def __init__(self, task: Task, labels: np.ndarray, n_classes: int, *, class_weights: str, sampling: str) -> None:
        """Prepares weights and strata.

        Args:
            labels: `(n,)` classes; `(n, n_classes)` of 1, 0 and -1 (not known) where the task is "multilabel".
            class_weights: "none", or "balanced": each class weighs as much as any other; with several labels an
                image, the positives of each class weigh as much as its negatives (at most 100 times one).
            sampling: "shuffle", or "balanced": as many draws as images, each class as likely as any other, with
                replacement; an image of several classes is drawn as one of its rarest.
        """
        self._task = task
        self._labels = torch.from_numpy(labels)
        self._weights = _weights(task, labels, n_classes) if class_weights == "balanced" else None
        self._sampling = _sampling_weights(labels) if sampling == "balanced" else None

    def __len__(self) -> int:
        """How many training images there are."""
        return len(self._labels)

    def order(self, generator: torch.Generator) -> np.ndarray:
        """`(n,)` rows of an epoch, in the order in which they are seen."""
        if self._sampling is None:
            return torch.randperm(len(self), generator=generator).numpy()
        return torch.multinomial(self._sampling, len(self), replacement=True, generator=generator).numpy()

    def loss(self, logits: Tensor, rows: np.ndarray | None = None) -> Tensor:
        """The mean loss in nats of `(k, n_classes)` logits of these rows (all without `rows`), on their device."""
        labels = self._labels if rows is None else self._labels[torch.from_numpy(rows)]
        return task_loss(self._task, logits, labels.to(logits.device), self._weights)


def task_loss(task: Task, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean loss in nats: cross-entropy, or binary cross-entropy over the labels that are known.

    Args:
        logits: `(n, n_classes)`.
        labels: `(n,)`, or `(n, n_classes)` of 1, 0 and -1, on the same device.
        weights: `(n_classes,)` of the classes; with several labels an image, of their positives.
    Returns:
        A scalar; 0 where no label is known.
    """
    weights = None if weights is None else weights.to(logits)
    if task != "multilabel":
        return F.cross_entropy(logits, labels, weight=weights)
    known = (labels >= 0).to(logits.dtype)
    targets = labels.clamp(min=0).to(logits.dtype)
    each = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def _weights(task: Task, labels: np.ndarray, n_classes: int) -> Tensor:
    if task == "multilabel":
        n_positive, n_negative = (labels == 1).sum(0), (labels == 0).sum(0)
        ratios = np.clip(n_negative / np.maximum(n_positive, 1), 1 / MAX_POSITIVE_WEIGHT, MAX_POSITIVE_WEIGHT)
        return torch.from_numpy(np.where(n_positive > 0, ratios, 1.0))
    n_of_class = np.bincount(labels, minlength=n_classes)
    return torch.from_numpy(len(labels) / (n_classes * np.maximum(n_of_class, 1)))


def _sampling_weights(labels: np.ndarray) -> Tensor:
    rows = [label if isinstance(label, int) else tuple(label) for label in labels.tolist()]
    found = np.array(strata(rows))
    _, inverse, counts = np.unique(found, return_inverse=True, return_counts=True)
    return torch.from_numpy(1.0 / counts[inverse])
