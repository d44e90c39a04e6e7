"""What training minimises: known losses, weights, and which images an epoch sees."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from engine.finetune.objective import MAX_POSITIVE_WEIGHT, Objective, task_loss

LABELS = np.array([0] * 90 + [1] * 9 + [2])
FINDINGS = np.array([[1, 0]] * 2 + [[0, 1]] * 8 + [[0, -1]] * 10)


def objective(task: Any, labels: np.ndarray, n: int, weights: str = "none", sampling: str = "shuffle") -> Objective:
    return Objective(task, labels, n, class_weights=weights, sampling=sampling)


@pytest.mark.parametrize("task", ["single", "ordinal"])
def test_one_class_an_image_is_cross_entropy(task: Any) -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(1))) / 2
    assert float(objective(task, np.array([0, 0]), 2).loss(logits)) == pytest.approx(expected)


def test_rows_choose_their_labels() -> None:
    found = objective("single", np.array([0, 1, 1]), 2)
    logits = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
    assert float(found.loss(logits, np.array([0, 2]))) == pytest.approx(math.log1p(math.exp(-3)))


def test_unknown_labels_take_no_part() -> None:
    labels = torch.tensor([[1, -1], [-1, 0]])
    logits = torch.tensor([[1.0, 50.0], [-50.0, -1.0]], requires_grad=True)
    loss = task_loss("multilabel", logits, labels)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log1p(math.exp(-1)))
    assert logits.grad is not None and logits.grad[0, 1] == logits.grad[1, 0] == 0.0


def test_a_batch_of_unknown_labels_has_no_loss_and_no_gradient() -> None:
    logits = torch.ones(2, 2, requires_grad=True)
    loss = task_loss("multilabel", logits, torch.full((2, 2), -1))
    loss.backward()
    assert float(loss.detach()) == 0.0 and logits.grad is not None and not logits.grad.any()


def test_balanced_weights_make_every_class_count_alike() -> None:
    weighted = objective("single", LABELS, 3, "balanced")
    for wrong in range(3):
        # A model that is sure of `wrong` for all is as far off whichever class that is.
        logits = torch.full((100, 3), 0.0)
        logits[:, wrong] = 2.0
        found = float(weighted.loss(logits))
        low, high = math.log(math.exp(2) + 2) - 2, math.log(math.exp(2) + 2)
        assert found == pytest.approx((low + 2 * high) / 3)


def test_balanced_weights_of_findings_weigh_positives_as_much_as_negatives() -> None:
    weights = task_loss("multilabel", torch.zeros(20, 2), torch.from_numpy(FINDINGS))
    balanced = objective("multilabel", FINDINGS, 2, "balanced").loss(torch.zeros(20, 2))
    # Finding 0: 2 positives at 9, 18 negatives; finding 1: 8 at 1/4, 2 negatives; 30 known labels.
    assert float(weights) == pytest.approx(math.log(2))
    assert float(balanced) == pytest.approx(math.log(2) * (2 * 9 + 18 + 8 / 4 + 2) / 30)


def test_weights_of_rare_findings_are_bounded() -> None:
    labels = np.zeros((1000, 1), np.int64)
    labels[0] = 1
    found = float(objective("multilabel", labels, 1, "balanced").loss(torch.zeros(1, 1), np.array([0])))
    assert found == pytest.approx(MAX_POSITIVE_WEIGHT * math.log(2))


def test_shuffling_sees_every_image_once() -> None:
    found = objective("single", LABELS, 3)
    first, second = (found.order(torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert sorted(first) == list(range(100)) and list(first) != list(second)


def test_balanced_sampling_sees_every_class_alike() -> None:
    found = objective("single", LABELS, 3, sampling="balanced")
    order = np.concatenate([found.order(torch.Generator().manual_seed(seed)) for seed in range(60)])
    shares = np.bincount(LABELS[order]) / len(order)
    assert len(order) == 6000 and shares == pytest.approx([1 / 3] * 3, abs=0.03)


def test_balanced_sampling_of_findings_goes_by_the_rarest() -> None:
    labels = np.array([[1, 0]] * 80 + [[1, 1]] * 10 + [[0, 0]] * 10)
    found = objective("multilabel", labels, 2, sampling="balanced")
    order = np.concatenate([found.order(torch.Generator().manual_seed(seed)) for seed in range(60)])
    counts = Counter(map(tuple, labels[order].tolist()))
    assert [counts[each] / len(order) for each in ((1, 0), (1, 1), (0, 0))] == pytest.approx([1 / 3] * 3, abs=0.03)
