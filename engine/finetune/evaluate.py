"""Metrics of a classifier from its logits; the standard ones are scikit-learn's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    cohen_kappa_score,
    recall_score,
    roc_auc_score,
)
from torch import Tensor

from engine.data.options import Task
from engine.errors import ShapeError, StudyError
from engine.finetune.objective import task_loss
from engine.measures import MEASURES, heatmap
from engine.measures.check import as_layer
from engine.quality import QUALITY
from engine.study import MeasureSection


def classification_metrics(
    logits: Tensor, labels: np.ndarray, split: str, quality: Sequence[str], task: Task = "single"
) -> dict[str, float]:
    """Loss, accuracy and what else a task reports and a study asks for, of one split.

    Args:
        logits: `(n, n_classes)`, on any device.
        labels: `(n,)` integers in [0, n_classes); `(n, n_classes)` of 1, 0 and -1 (not known) for "multilabel".
        split: prefix of the names, `val` or `test`.
        quality: names of `QUALITY`; those that need probabilities are computed.
    Returns:
        `{split}_loss` (mean loss without class weights, in nats), and `{split}_{name}` for each of `quality`. With one
        class an image: `_accuracy`, `_balanced_accuracy` (mean recall over the classes that are there), `_auroc` (mean
        one-vs-rest over the classes that are there; NaN with fewer than two classes), and for grades
        `_quadratic_kappa` (Cohen's, quadratic weights; NaN where all images and predictions are of one grade). With
        several: `_auroc` and `_average_precision`, the means over the classes that have known positives and
        negatives, NaN where none has; `quality` is computed over all known pairs of image and class, each as a
        decision between two.
    """
    logits = logits.double().cpu()
    loss = float(task_loss(task, logits, torch.from_numpy(labels)))
    if task == "multilabel":
        found, probabilities, targets = _of_findings(logits, labels)
    else:
        found, probabilities, targets = _of_classes(logits, labels), logits.softmax(dim=1), labels
        if task == "ordinal":
            found["quadratic_kappa"] = _quadratic_kappa(labels, logits)
    asked = [QUALITY[name] for name in quality if QUALITY[name].needs == "probabilities"]
    found |= {each.name: each.function(probabilities, targets) if len(targets) else math.nan for each in asked}
    return {f"{split}_{name}": value for name, value in {"loss": loss, **found}.items()}


def _of_classes(logits: Tensor, labels: np.ndarray) -> dict[str, float]:
    probabilities = logits.softmax(dim=1)
    predictions = probabilities.argmax(dim=1).numpy()
    present = np.unique(labels)
    # balanced_accuracy_score warns where a prediction is of a class that is not there.
    recall = recall_score(labels, predictions, labels=present, average="macro", zero_division=0.0)
    aurocs = [math.nan]
    if len(present) > 1:
        aurocs = [roc_auc_score(labels == c, probabilities[:, c].numpy()) for c in present]
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "balanced_accuracy": float(recall),
        "auroc": float(np.mean(aurocs)),
    }


def _quadratic_kappa(labels: np.ndarray, logits: Tensor) -> float:
    predictions = logits.argmax(dim=1).numpy()
    if len(np.union1d(labels, predictions)) < 2:
        return math.nan  # 0 / 0: nothing to agree or disagree on
    return float(cohen_kappa_score(labels, predictions, weights="quadratic", labels=range(logits.shape[1])))


def _of_findings(logits: Tensor, labels: np.ndarray) -> tuple[dict[str, float], Tensor, np.ndarray]:
    """Ranking metrics over the classes; and every known pair of image and class as a decision between two."""
    scores = logits.numpy()
    known = labels >= 0
    ranked = [
        (labels[known[:, c], c], scores[known[:, c], c])
        for c in range(labels.shape[1])
        if len(np.unique(labels[known[:, c], c])) == 2
    ]
    found = {
        "auroc": float(np.mean([roc_auc_score(*pair) for pair in ranked])) if ranked else math.nan,
        "average_precision": float(np.mean([average_precision_score(*pair) for pair in ranked]))
        if ranked
        else math.nan,
    }
    positive = logits.sigmoid()[torch.from_numpy(known)]
    return found, torch.stack([1 - positive, positive], dim=1), labels[known]


def layer_metrics(pooled: Mapping[str, Sequence[np.ndarray]], quality: Sequence[str]) -> dict[str, np.ndarray]:
    """What a study asks for of every layer, from the outputs of the layers on the probe images.

    Args:
        pooled: pooling -> its layers, each `(n, d_i)`.
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


def check_computable(
    pooled: Mapping[str, Sequence[np.ndarray]], measure: MeasureSection, domain: str = "target"
) -> None:
    """Computes everything that a study asks of the layers once, so that it fails before any training.

    Args:
        pooled: as `layer_metrics`.
        domain: whose images they are; the quality of layers is measured on those of "target" alone.
    Raises:
        StudyError: names the measure or metric for which the probe images or the features are too few, or which cannot
            compare layers of different widths.
    """
    # Of each width one layer: what a metric needs depends on n and d alone.
    first = {pooling: list({each.shape[1]: each for each in layers}.values()) for pooling, layers in pooled.items()}
    more = {"target": "probe.n or the number of test images", "origin": "probe.origin_n or the number of origin images"}

    def similarity(name: str) -> None:
        for layers in first.values():
            if MEASURES[name].needs_equal_widths and len(layers) > 1:
                problem = f"matches features one by one; the layers have {', '.join(str(x.shape[1]) for x in layers)}"
                raise StudyError(f'measure.similarity "{name}"', problem, "leave it out, or take ViTs alone")
            for layer in layers:
                heatmap([as_layer(layer, "a layer")], [as_layer(layer, "a layer")], name)

    for kind, names, compute in (
        ("similarity", measure.similarity, similarity),
        ("quality", measure.quality if domain == "target" else (), lambda name: layer_metrics(first, [name])),
    ):
        for name in names:
            try:
                compute(name)
            except ShapeError as error:
                raise StudyError(
                    f'measure.{kind} "{name}"', f"{error.where} {error.problem}",
                    f"raise {more[domain]}, or leave it out",
                ) from error  # fmt: skip
