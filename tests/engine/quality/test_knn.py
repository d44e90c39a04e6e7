"""k-NN accuracy: agreement with a plain loop and with scikit-learn, invariances, leaving one out, every error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from engine.errors import NonFiniteError, ShapeError
from engine.quality import knn, knn_accuracy


def clusters(seed: int, n: int = 90, d: int = 6, c: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes whose directions differ and whose rows differ in length."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, c, n)
    centres = np.random.default_rng(7).standard_normal((c, d))
    return (centres[labels] + rng.standard_normal((n, d))) * rng.uniform(0.1, 10, (n, 1)), labels


def by_loop(
    bank: np.ndarray,
    classes: np.ndarray,
    queries: np.ndarray,
    targets: np.ndarray,
    k: int = 20,
    temperature: float = 0.07,
    leave_one_out: bool = False,
) -> float:
    right = 0
    for i, query in enumerate(queries):
        similarity = [
            (float(row @ query / np.linalg.norm(row) / np.linalg.norm(query)), int(label))
            for j, (row, label) in enumerate(zip(bank, classes, strict=True))
            if not (leave_one_out and i == j)
        ]
        votes: dict[int, float] = {}
        for s, label in sorted(similarity, reverse=True)[:k]:
            votes[label] = votes.get(label, 0) + np.exp(s / temperature)
        right += max(votes, key=lambda label: votes[label]) == targets[i]
    return right / len(queries)


@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.07), (20, 1.0), (60, 10.0)])
def test_agrees_with_a_loop(k: int, temperature: float, leave_one_out: bool) -> None:
    bank, classes = clusters(0)
    queries, targets = (bank, classes) if leave_one_out else clusters(1, n=70)
    expected = by_loop(bank, classes, queries, targets, k, temperature, leave_one_out)
    assert 0.1 < expected < 1
    assert knn_accuracy(bank, classes, queries, targets, k, temperature, leave_one_out) == expected


@pytest.mark.parametrize("k", [1, 7, 20])
def test_agrees_with_scikit_learn(k: int) -> None:
    (bank, classes), (queries, targets) = clusters(2, n=400), clusters(3, n=300)
    peer = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    assert knn_accuracy(bank, classes, queries, targets, k) == peer.fit(bank, classes).score(queries, targets)


def test_dino_settings_are_the_default() -> None:
    (bank, classes), (queries, targets) = clusters(2), clusters(3)
    result = knn_accuracy(bank, classes, queries, targets)
    assert isinstance(result, float)
    assert result == by_loop(bank, classes, queries, targets)


def test_temperature_decides_between_one_near_and_many_far() -> None:
    angles = np.array([0.0, 0.5, 0.5, 0.5])
    bank, classes = np.stack([np.cos(angles), np.sin(angles)], axis=1), [0, 1, 1, 1]
    assert knn_accuracy(bank, classes, [[1.0, 0.0]], [0], k=4, temperature=0.07) == 1
    assert knn_accuracy(bank, classes, [[1.0, 0.0]], [1], k=4, temperature=1.0) == 1
    assert knn_accuracy(bank, [1, 0, 0, 0], [[1.0, 0.0]], [1], k=4, temperature=1e-6) == 1


def test_leaving_one_out_takes_an_image_from_its_own_neighbours() -> None:
    bank, random_labels = np.random.default_rng(0).standard_normal((200, 3)), np.arange(200) % 4
    assert knn_accuracy(bank, random_labels, bank, random_labels, k=1) == 1
    assert knn_accuracy(bank, random_labels, bank, random_labels, k=1, leave_one_out=True) < 0.4


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_chunks_change_nothing(leave_one_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    bank, classes = clusters(4)
    whole = knn_accuracy(bank, classes, bank, classes, 5, leave_one_out=leave_one_out)
    monkeypatch.setattr(knn, "_CHUNK_VALUES", 7 * len(bank) + 3)
    assert knn_accuracy(bank, classes, bank, classes, 5, leave_one_out=leave_one_out) == whole
    assert knn_accuracy(bank, classes, bank.copy(), classes, 5, leave_one_out=leave_one_out) == whole


def test_blind_to_rotation_and_length_but_not_to_translation() -> None:
    (bank, classes), (queries, targets) = clusters(5, n=300), clusters(6, n=300)
    before = knn_accuracy(bank, classes, queries, targets)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    lengths = np.geomspace(1e-200, 1e200, 300)[:, None]
    assert knn_accuracy(bank @ rotation, classes, queries @ rotation, targets) == before
    assert knn_accuracy(bank * lengths, classes, queries / lengths, targets) == before
    assert knn_accuracy(bank + 100, classes, queries + 100, targets) < before - 0.05


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_types_are_taken_as_the_numbers_they_hold(dtype: torch.dtype) -> None:
    (bank, classes), (queries, targets) = clusters(8), clusters(9)
    low_bank, low_queries = torch.from_numpy(bank).to(dtype), torch.from_numpy(queries).to(dtype)
    expected = knn_accuracy(low_bank.double(), classes, low_queries.double(), torch.from_numpy(targets))
    assert knn_accuracy(low_bank, torch.from_numpy(classes), low_queries, targets) == expected


def test_row_of_zeros_is_as_far_from_everything() -> None:
    assert knn_accuracy([[0.0, 0.0], [1.0, 0.0]], [0, 1], [[1.0, 0.1]], [1], k=1) == 1
    assert knn_accuracy([[0.0, 0.0], [-1.0, 0.0]], [0, 1], [[1.0, 0.1]], [0], k=1) == 1


def test_class_that_the_bank_lacks_is_an_error() -> None:
    assert knn_accuracy([[1.0, 0.0], [0.0, 1.0]], [0, 1], [[1.0, 0.0], [0.0, 1.0]], [0, 9], k=1) == 0.5


def test_lower_class_wins_a_draw() -> None:
    bank, classes = [[1.0, 1.0], [1.0, -1.0]], [3, 2]
    assert knn_accuracy(bank, classes, [[1.0, 0.0]], [2], k=2) == 1


GOOD: dict[str, Any] = {
    "bank": np.eye(4),
    "bank_labels": [0, 1, 0, 1],
    "queries": np.eye(4)[:3],
    "query_labels": [0, 1, 0],
    "k": 2,
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"bank": np.ones(4)}, r"^bank: has shape \(4,\)"),
        ({"queries": np.ones((3, 2))}, r"^queries: have 2 features \(need 4, as the bank\)"),
        ({"bank_labels": [0, 1, 0]}, r"^bank_labels: has shape \(3,\)"),
        ({"bank_labels": [0, 1, 0, -1]}, r"^bank_labels: row 3 is -1 \(need a class from 0\)"),
        ({"query_labels": [0.0, 1.0, 0.0]}, r"^query_labels: .* \(need integers"),
        ({"queries": np.ones((0, 4)), "query_labels": np.ones(0, int)}, r"^query_labels: .* at least one"),
        ({"leave_one_out": True}, r"^queries: are 3 \(need 4, as the bank, to leave each one out\)"),
        ({"k": 5}, r"^k: is 5 \(the bank has 4 neighbours to offer\)"),
        (
            {"k": 4, "leave_one_out": True, "queries": np.eye(4), "query_labels": [0, 1, 0, 1]},
            r"^k: is 4 \(the bank has 3 neighbours to offer\)",
        ),
    ],
)
def test_arrays_that_do_not_fit(change: dict[str, Any], problem: str) -> None:
    assert knn_accuracy(**GOOD) >= 0
    with pytest.raises(ShapeError, match=problem):
        knn_accuracy(**(GOOD | change))


@pytest.mark.parametrize("side", ["bank", "queries"])
def test_non_finite(side: str) -> None:
    features = GOOD[side].copy()
    features[2, 1] = np.nan
    with pytest.raises(NonFiniteError, match=f"^{side}: 1 of .* the first at image 2"):
        knn_accuracy(**(GOOD | {side: features}))


@pytest.mark.parametrize("change", [{"k": 0}, {"temperature": 0.0}, {"temperature": np.nan}])
def test_settings_without_meaning(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="need 1 or more, above 0"):
        knn_accuracy(**(GOOD | change))
