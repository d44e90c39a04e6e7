"""Metrics of a classifier from its logits; the standard ones are scikit-learn's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score
from torch import Tensor

from engine.errors import ShapeError, StudyError
from engine.measures import heatmap
from engine.measures.check import as_layer
from engine.quality import QUALITY
from engine.study import MeasureSection


def classification_metrics(logits: Tensor, labels: np.ndarray, split: str, quality: Sequence[str]) -> dict[str, float]:
    """Loss, accuracy, balanced accuracy, macro AUROC and what else a study asks for, of one split.

    Args:
        logits: `(n, n_classes)`, on any device.
        labels: `(n,)` integers in [0, n_classes).
        split: prefix of the names, `val` or `test`.
        quality: names of `QUALITY`; those that need probabilities are computed.
    Returns:
        `{split}_loss` (mean cross-entropy in nats), `{split}_accuracy`, `{split}_balanced_accuracy` (mean recall over
        the classes that are there), `{split}_auroc` (mean one-vs-rest over the classes that are there; NaN with fewer
        than two classes), and `{split}_{name}` for each of `quality`.
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
    asked = [QUALITY[name] for name in quality if QUALITY[name].needs == "probabilities"]
    return {
        f"{split}_loss": float(F.cross_entropy(logits, torch.from_numpy(labels))),
        f"{split}_accuracy": float(accuracy_score(labels, predictions)),
        f"{split}_balanced_accuracy": float(recall),
        f"{split}_auroc": float(np.mean(aurocs)),
        **{f"{split}_{each.name}": each.function(probabilities, labels) for each in asked},
    }


def layer_metrics(pooled: Mapping[str, np.ndarray], quality: Sequence[str]) -> dict[str, np.ndarray]:
    """What a study asks for of every layer, from the outputs of the blocks on the probe images.

    Args:
        pooled: pooling -> `(n_layers, n, d)`.
        quality: names of `QUALITY`; those that need layers are computed.
    Returns:
        `{name}_{pooling}` -> `(n_layers,)` float64; NaN where a layer is constant over the images.
    Raises:
        ShapeError: too few images or features for a metric.
    """
    return {
        f"{name}_{pooling}": np.array([QUALITY[name].function(layer) for layer in layers])
        for name in quality
        if QUALITY[name].needs == "layers"
        for pooling, layers in pooled.items()
    }


def check_computable(pooled: Mapping[str, np.ndarray], measure: MeasureSection) -> None:
    """Computes everything that a study asks of the layers once, so that it fails before any training.

    Raises:
        StudyError: names the measure or metric for which the probe images or the features are too few.
    """
    first = {pooling: layers[:1] for pooling, layers in pooled.items()}

    def similarity(name: str) -> None:
        for layers in first.values():
            layer = as_layer(layers[0], "a layer")
            heatmap([layer], [layer], name)

    for kind, names, compute in (
        ("similarity", measure.similarity, similarity),
        ("quality", measure.quality, lambda name: layer_metrics(first, [name])),
    ):
        for name in names:
            try:
                compute(name)
            except ShapeError as error:
                raise StudyError(
                    f'measure.{kind} "{name}"', f"{error.where} {error.problem}",
                    "raise probe.n or the number of test images, or leave it out",
                ) from error  # fmt: skip
