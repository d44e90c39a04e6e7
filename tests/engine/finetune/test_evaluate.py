"""Metrics of a classifier and of layers: known values, what is asked for and nothing else, and too few images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from engine.errors import StudyError
from engine.finetune.evaluate import check_computable, classification_metrics, layer_metrics
from engine.quality import brier_score, effective_rank, uniformity
from engine.study import MeasureSection

LABELS = np.array([0, 0, 1, 1])
LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [1.0, 2.0]])


def test_metrics_of_a_classifier() -> None:
    found = classification_metrics(LOGITS, LABELS, "test", ("ece", "brier", "knn"))
    assert set(found) == {
        "test_loss", "test_accuracy", "test_balanced_accuracy", "test_auroc", "test_ece", "test_brier",
    }  # fmt: skip
    assert found["test_accuracy"] == found["test_balanced_accuracy"] == 0.75
    assert found["test_auroc"] == 0.875  # three of four pairs of classes in order, and one drawn
    losses = [math.log1p(math.exp(-2)), math.log1p(math.exp(1)), math.log1p(math.exp(-3)), math.log1p(math.exp(-1))]
    assert found["test_loss"] == pytest.approx(np.mean(losses))
    assert found["test_brier"] == pytest.approx(brier_score(LOGITS.double().softmax(dim=1), LABELS))
    assert set(classification_metrics(LOGITS, LABELS, "val", ())) == {
        "val_loss", "val_accuracy", "val_balanced_accuracy", "val_auroc",
    }  # fmt: skip


def test_metrics_of_layers_by_pooling() -> None:
    rng = np.random.default_rng(0)
    pooled = {"cls": rng.standard_normal((3, 40, 8)), "feat": rng.standard_normal((3, 40, 8))}
    found = layer_metrics(pooled, ("ece", "effective_rank", "uniformity"))
    assert set(found) == {"effective_rank_cls", "effective_rank_feat", "uniformity_cls", "uniformity_feat"}
    assert found["effective_rank_feat"] == pytest.approx([effective_rank(x) for x in pooled["feat"]])
    assert found["uniformity_cls"] == pytest.approx([uniformity(x) for x in pooled["cls"]])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            MeasureSection(similarity=("linear_cka", "mutual_knn")),
            r'^measure.similarity "mutual_knn": k is 10 \(need 1 to 7',
        ),
        (MeasureSection(quality=("spectrum_alpha",)), r'^measure.quality "spectrum_alpha": x has 8 features'),
    ],
)
def test_what_cannot_be_computed_is_refused_before_any_training(asked: MeasureSection, message: str) -> None:
    pooled = {"cls": np.random.default_rng(0).standard_normal((3, 9, 8))}
    check_computable(pooled, MeasureSection())
    with pytest.raises(StudyError, match=message):
        check_computable(pooled, asked)


def test_too_few_images_for_a_measure_are_refused_by_its_name() -> None:
    pooled = {"cls": np.random.default_rng(0).standard_normal((3, 3, 8))}
    check_computable(pooled, MeasureSection(similarity=("linear_cka",), quality=()))
    with pytest.raises(StudyError, match=r'^measure.similarity "debiased_cka": a layer has 3 images \(need 4'):
        check_computable(pooled, MeasureSection(similarity=("debiased_cka",)))
