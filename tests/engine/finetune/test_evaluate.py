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


def test_the_quality_of_layers_asks_nothing_of_the_origin_images() -> None:
    pooled = {"cls": np.random.default_rng(0).standard_normal((2, 4, 3))}
    asked = MeasureSection(similarity=("debiased_cka",), quality=("spectrum_alpha",))
    with pytest.raises(StudyError, match="spectrum_alpha") as caught:
        check_computable(pooled, asked)
    assert caught.value.fix.startswith("raise probe.n or the number of test images")
    check_computable(pooled, asked, "origin")
    few = {"cls": pooled["cls"][:, :3]}
    with pytest.raises(StudyError, match="debiased_cka") as caught:
        check_computable(few, asked, "origin")
    assert caught.value.fix == "raise probe.origin_n or the number of origin images, or leave it out"


FINDINGS = np.array([[1, 0, -1], [0, 1, -1], [1, -1, -1], [0, 0, -1]])
SCORES = torch.tensor([[2.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.5, 0.0, 0.0], [1.0, -2.0, 0.0]])


def test_metrics_of_several_labels_leave_out_what_is_not_known() -> None:
    found = classification_metrics(SCORES, FINDINGS, "test", ("ece", "brier"), "multilabel")
    assert set(found) == {"test_loss", "test_auroc", "test_average_precision", "test_ece", "test_brier"}
    # Class 0: positives 2.0 and 0.5 against 1.0 and -1.0: three of four pairs in order. Class 1: both of both.
    assert found["test_auroc"] == pytest.approx((0.75 + 1.0) / 2)
    assert found["test_average_precision"] == pytest.approx(((1 + 2 / 3) / 2 + 1.0) / 2)
    known = [(2.0, 1), (-1.0, 0), (0.5, 1), (1.0, 0), (-1.0, 0), (1.0, 1), (-2.0, 0)]
    probabilities = [1 / (1 + math.exp(-score)) for score, _ in known]
    expected = [-math.log(p if y else 1 - p) for p, (_, y) in zip(probabilities, known, strict=True)]
    assert found["test_loss"] == pytest.approx(np.mean(expected))
    pairs = zip(probabilities, known, strict=True)
    assert found["test_brier"] == pytest.approx(np.mean([2 * (p - y) ** 2 for p, (_, y) in pairs]))


def test_metrics_of_several_labels_that_no_image_tells_apart_are_not_numbers() -> None:
    labels = np.array([[1, -1], [1, -1]])
    found = classification_metrics(torch.zeros(2, 2), labels, "val", (), "multilabel")
    assert math.isnan(found["val_auroc"]) and math.isnan(found["val_average_precision"])
    unknown = classification_metrics(torch.zeros(2, 2), np.full((2, 2), -1), "val", ("ece",), "multilabel")
    assert math.isnan(unknown["val_ece"]) and unknown["val_loss"] == 0.0


def test_grades_report_quadratic_kappa() -> None:
    labels = np.array([0, 1, 2, 3, 3, 1])
    predicted = np.array([0, 1, 1, 3, 0, 2])
    logits = torch.nn.functional.one_hot(torch.from_numpy(predicted), 4).float() * 5
    found = classification_metrics(logits, labels, "test", (), "ordinal")
    n, weights = len(labels), np.subtract.outer(np.arange(4), np.arange(4)) ** 2
    observed = np.zeros((4, 4))
    np.add.at(observed, (labels, predicted), 1)
    chance = np.outer(np.bincount(labels, minlength=4), np.bincount(predicted, minlength=4)) / n
    assert found["test_quadratic_kappa"] == pytest.approx(1 - (weights * observed).sum() / (weights * chance).sum())
    assert found["test_accuracy"] == 0.5


def test_kappa_of_one_grade_alone_is_not_a_number() -> None:
    found = classification_metrics(torch.tensor([[1.0, 0.0]] * 3), np.zeros(3, np.int64), "test", (), "ordinal")
    assert math.isnan(found["test_quadratic_kappa"])
