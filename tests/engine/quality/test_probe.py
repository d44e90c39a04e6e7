"""Linear probes: known values, agreement with scikit-learn, leave-one-out by refitting, invariances, every error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from engine.errors import NonFiniteError, ShapeError, TrainingError
from engine.quality import PENALTIES, logistic_probe, probe, ridge_probe

Probe = Callable[..., float]
Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
BOTH = pytest.mark.parametrize("method", [ridge_probe, logistic_probe])
seeds = st.integers(0, 2**32 - 1)


def split(seed: int, n: int = 120, d: int = 12, c: int = 4, n_test: int = 400) -> Split:
    """Overlapping classes, features of other spreads and means: train, its labels, test, its labels."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(c), rng.integers(0, c, n + n_test - c)])
    spreads = np.geomspace(0.1, 3, d)
    x = (rng.standard_normal((c, d))[labels] * 2 / math.sqrt(d) + rng.standard_normal((n + n_test, d))) * spreads + 4
    return x[:n], labels[:n], x[n:], labels[n:]


def unit_of(train: np.ndarray) -> float:
    """Mean squared norm of the centred rows: what the ridge penalty is a multiple of."""
    return float(((train - train.mean(axis=0)) ** 2).sum(axis=1).mean())


def sklearn_ridge(train: np.ndarray, labels: np.ndarray, alpha: float) -> Ridge:
    return Ridge(alpha=alpha, solver="svd").fit(train, np.eye(labels.max() + 1)[labels])


def sklearn_ridge_accuracy(data: Split, penalty: float) -> float:
    train, labels, test, test_labels = data
    model = sklearn_ridge(train, labels, penalty * unit_of(train))
    return float((model.predict(test).argmax(axis=1) == test_labels).mean())


def refitted_errors(train: np.ndarray, labels: np.ndarray) -> list[float]:
    """Mean squared leave-one-out error of every penalty, by one fit an image; the penalty's unit stays that of all."""
    targets, rest = np.eye(labels.max() + 1)[labels], [np.delete(np.arange(len(train)), i) for i in range(len(train))]
    errors = []
    for penalty in PENALTIES:
        models = [Ridge(alpha=penalty * unit_of(train), solver="svd").fit(train[i], targets[i]) for i in rest]
        predicted = np.concatenate([model.predict(row[None]) for model, row in zip(models, train, strict=True)])
        errors.append(float(((predicted - targets) ** 2).mean()))
    return errors


@BOTH
def test_known_values(method: Probe) -> None:
    train, labels = [[-2.0], [-1.0], [1.0], [2.0]], [0, 0, 1, 1]
    assert method(train, labels, [[-0.1], [0.1], [5.0]], [0, 1, 1]) == 1
    assert method(train, labels, [[-0.1], [0.1], [5.0]], [1, 0, 1]) == pytest.approx(1 / 3)
    assert isinstance(method(train, labels, [[5.0]], [1]), float)


def test_known_ridge_penalty() -> None:
    """Centred on -.5, x has a sum of squares of 3, and of products with the targets of 1.5.

    So at 1 the score is .25 + 1.5 * 1.5 / (3 + .75 penalty): one half where the penalty is 8.
    """
    train, labels = [[-1.0], [-1.0], [-1.0], [1.0]], [0, 0, 0, 1]
    assert ridge_probe(train, labels, [[1.0]], [1], penalty=7.99) == 1
    assert ridge_probe(train, labels, [[1.0]], [1], penalty=8.01) == 0


def test_known_logistic_penalty() -> None:
    """Three classes that are apart, one of them far more frequent: a large penalty leaves the intercepts alone."""
    train, labels = [[1.0, 0.0]] * 8 + [[0.0, 1.0], [-1.0, -1.0]], [0] * 8 + [1, 2]
    test, test_labels = [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0], [-1.0, -1.0]], [0, 1, 2, 2]
    assert logistic_probe(train, labels, test, test_labels) == 1
    assert logistic_probe(train, labels, test, test_labels, penalty=1e4) == 1 / 4


@given(seed=seeds, penalty=st.sampled_from(PENALTIES), shape=st.sampled_from([(120, 12), (13, 12), (12, 12), (30, 90)]))
@settings(max_examples=25, deadline=None)
def test_ridge_agrees_with_scikit_learn(seed: int, penalty: float, shape: tuple[int, int]) -> None:
    data = split(seed, *shape)
    assert ridge_probe(*data, penalty=penalty) == sklearn_ridge_accuracy(data, penalty)
    assert ridge_probe(*data, penalty=[penalty]) == sklearn_ridge_accuracy(data, penalty)


@pytest.mark.parametrize("shape", [(40, 12), (12, 12), (30, 60)])
def test_leave_one_out_agrees_with_refitting(shape: tuple[int, int]) -> None:
    for seed in range(3):
        train, labels, _, _ = split(seed, *shape)
        centred, targets = torch.from_numpy(train - train.mean(axis=0)), torch.from_numpy(np.eye(4)[labels])
        targets -= targets.mean(dim=0)
        axes, squares = probe._principal_axes(centred)
        scores = centred @ axes
        errors = [
            probe._leave_one_out_error(scores, squares + p * unit_of(train), scores.T @ targets, targets)
            for p in PENALTIES
        ]
        assert errors == pytest.approx(refitted_errors(train, labels), rel=1e-8)


@pytest.mark.parametrize("shape", [(40, 12), (30, 60)])
def test_penalty_of_the_least_leave_one_out_error_is_taken(shape: tuple[int, int]) -> None:
    differed = 0
    for seed in range(6):
        data = split(seed, *shape)
        best = PENALTIES[int(np.argmin(refitted_errors(*data[:2])))]
        expected = sklearn_ridge_accuracy(data, best)
        assert ridge_probe(*data) == expected
        assert ridge_probe(*data, penalty=PENALTIES[::-1]) == expected
        differed += expected not in (sklearn_ridge_accuracy(data, PENALTIES[0]), sklearn_ridge_accuracy(data, 1e3))
    assert differed > 0


@given(seed=seeds, penalty=st.sampled_from([0.1, 1.0, 30.0]), shape=st.sampled_from([(120, 12), (12, 12), (30, 90)]))
@settings(max_examples=15, deadline=None)
def test_logistic_agrees_with_scikit_learn(seed: int, penalty: float, shape: tuple[int, int]) -> None:
    train, labels, test, test_labels = split(seed, *shape)
    scaler = StandardScaler().fit(train)
    peer = LogisticRegression(C=1 / penalty, tol=1e-9, max_iter=10_000).fit(scaler.transform(train), labels)
    near = np.sort(peer.predict_proba(scaler.transform(test)), axis=1)[:, -2:]
    settled = near[:, 1] - near[:, 0] > 0.01  # nearer than that, the tolerances of the two solvers decide
    expected = peer.score(scaler.transform(test[settled]), test_labels[settled])
    assert logistic_probe(train, labels, test[settled], test_labels[settled], penalty=penalty) == expected


def test_logistic_weights_agree_with_scikit_learn() -> None:
    train, labels, _, _ = split(1)
    x = StandardScaler().fit_transform(train)
    peer = LogisticRegression(C=1 / 0.3, tol=1e-10, max_iter=10_000).fit(x, labels)
    weights = probe._fit_logistic(
        torch.from_numpy(np.pad(x, ((0, 0), (0, 1)), constant_values=1)), torch.from_numpy(labels), 4, 0.3
    ).numpy()
    np.testing.assert_allclose(weights[:-1].T, peer.coef_, atol=1e-3)
    np.testing.assert_allclose(weights[-1] - weights[-1].mean(), peer.intercept_ - peer.intercept_.mean(), atol=1e-3)


def test_two_classes_are_penalised_as_twice_c() -> None:
    differed = 0
    for seed in range(8):
        train, labels, test, test_labels = split(seed, n=20, c=2, n_test=1000)
        scaler = StandardScaler().fit(train)
        same, other = (
            LogisticRegression(C=c, tol=1e-9, max_iter=10_000)
            .fit(scaler.transform(train), labels)
            .score(scaler.transform(test), test_labels)
            for c in (2 / 5, 1 / 5)
        )
        assert logistic_probe(train, labels, test, test_labels, penalty=5.0) == pytest.approx(same, abs=0.0011)
        differed += abs(same - other) > 0.003
    assert differed > 0


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_invariances_of_ridge(seed: int) -> None:
    rng, (train, labels, test, test_labels) = np.random.default_rng(seed), split(seed)
    rotation, shift = np.linalg.qr(rng.standard_normal((12, 12)))[0], 1000 * rng.standard_normal(12)
    scale = rng.choice([-1, 1]) * 10.0 ** rng.uniform(-250, 250)
    before = ridge_probe(train, labels, test, test_labels)
    for change in (lambda x: x @ rotation, lambda x: x * scale, lambda x: x + shift):
        assert ridge_probe(change(train), labels, change(test), test_labels) == pytest.approx(before, abs=0.0026)
    assert ridge_probe(train, labels, test + shift, test_labels) < before


def test_ridge_is_not_blind_to_scaling_of_single_features_and_logistic_not_to_rotation() -> None:
    train, labels, test, test_labels = split(0, n=40)
    scales = np.geomspace(1e-3, 1e3, 12)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0]
    ridge, logistic = ridge_probe(*split(0, n=40)), logistic_probe(*split(0, n=40), penalty=30)
    assert abs(ridge_probe(train * scales, labels, test * scales, test_labels) - ridge) > 0.02
    assert abs(logistic_probe(train @ rotation, labels, test @ rotation, test_labels, penalty=30) - logistic) > 0.02


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_invariances_of_logistic(seed: int) -> None:
    rng, (train, labels, test, test_labels) = np.random.default_rng(seed), split(seed)
    scales, shift = rng.choice([-1, 1], 12) * 10.0 ** rng.uniform(-60, 60, 12), 1000 * rng.standard_normal(12)
    before = logistic_probe(train, labels, test, test_labels)
    for change in (lambda x: x * scales, lambda x: x + shift):
        assert logistic_probe(change(train), labels, change(test), test_labels) == pytest.approx(before, abs=0.0026)


def test_ridge_is_the_same_from_either_side() -> None:
    """Features of zeros change nothing but the side from which the regression is solved."""
    for seed in range(5):
        train, labels, test, test_labels = split(seed)
        wider = (np.pad(x, ((0, 0), (0, 200))) for x in (train, test))
        wide_train, wide_test = wider
        for penalty in (1e-3, 1.0, PENALTIES):
            before = ridge_probe(train, labels, test, test_labels, penalty=penalty)
            assert ridge_probe(wide_train, labels, wide_test, test_labels, penalty=penalty) == before


@BOTH
def test_classes_need_not_be_without_gaps(method: Probe) -> None:
    train, labels, test, test_labels = split(2)
    names = np.array([3, 10, 11, 10**9])
    before = method(train, labels, test, test_labels)
    assert 0.4 < before < 1
    assert method(train, names[labels], test, names[test_labels]) == before


@BOTH
def test_class_that_the_training_rows_lack_is_an_error(method: Probe) -> None:
    train, labels = [[-2.0], [-1.0], [1.0], [2.0]], [2, 2, 5, 5]
    assert method(train, labels, [[-1.0], [1.0], [1.0], [1.0], [-1.0]], [2, 5, 9, 4, 0]) == 2 / 5


@BOTH
@pytest.mark.parametrize("value", [0.0, 1 / 3, 1e30])
def test_constant_features_predict_the_largest_class_and_the_lower_in_a_draw(method: Probe, value: float) -> None:
    train = np.full((5, 3), value)
    assert method(train, [0, 4, 4, 4, 1], np.full((4, 3), value), [4, 4, 0, 1]) == 1 / 2
    assert method(train[:4], [7, 3, 7, 3], np.full((3, 3), value), [3, 3, 7]) == 2 / 3


@pytest.mark.parametrize("nudge", [0, np.finfo(float).eps])
def test_feature_that_is_constant_in_training_has_no_say_in_logistic_regression(nudge: float) -> None:
    """Nor one that is constant up to rounding, which standardising would blow up."""
    train, labels, test, test_labels = split(3)
    one_more = 1 / 3 + nudge * (labels[:, None] > 1), 1e12 * np.random.default_rng(0).standard_normal((400, 1))
    more_train, more_test = (np.hstack([x, more]) for x, more in zip((train, test), one_more, strict=True))
    before = logistic_probe(train, labels, test, test_labels)
    assert logistic_probe(more_train, labels, more_test, test_labels) == before


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_types_are_taken_as_the_numbers_they_hold(method: Probe, dtype: torch.dtype) -> None:
    train, labels, test, test_labels = split(4)
    low_train, low_test = torch.from_numpy(train).to(dtype), torch.from_numpy(test).to(dtype)
    expected = method(low_train.double(), labels, low_test.double(), test_labels)
    assert method(low_train, torch.from_numpy(labels), low_test, torch.from_numpy(test_labels)) == expected


@BOTH
def test_the_callers_modes_change_nothing_and_are_left_alone(method: Probe) -> None:
    data = split(5)
    before = method(*data)
    with torch.inference_mode():
        assert method(*data) == before
    with torch.autocast("cpu", torch.bfloat16):
        assert method(*data) == before
    assert torch.is_grad_enabled()
    train = torch.from_numpy(data[0]).requires_grad_()
    assert method(train, *data[1:]) == before
    assert train.grad is None


def test_logistic_regression_that_has_not_converged_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    data = split(6)
    assert logistic_probe(*data) > 0.4
    monkeypatch.setattr(probe, "_MAX_STEPS", 3)
    with pytest.raises(
        TrainingError, match=r"^logistic probe: has a gradient of .* after 3 steps \(need 1e-06\)\n  fix"
    ):
        logistic_probe(*data)


GOOD: dict[str, Any] = {
    "train": np.eye(4),
    "train_labels": [0, 1, 0, 1],
    "test": np.eye(4)[:3],
    "test_labels": [0, 1, 0],
}


@BOTH
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"train": np.ones(4)}, r"^train: has shape \(4,\)"),
        ({"test": np.ones((3, 2))}, r"^test: has 2 features \(need 4, as train\)"),
        ({"train_labels": [0, 1, 0]}, r"^train_labels: has shape \(3,\)"),
        ({"train_labels": [0, 1, 0, -1]}, r"^train_labels: row 3 is -1 \(need a class from 0\)"),
        ({"train_labels": [3, 3, 3, 3]}, r"^train_labels: hold class 3 alone \(need two classes or more\)"),
        ({"test_labels": [0.0, 1.0, 0.0]}, r"^test_labels: .* \(need integers"),
        ({"test": np.ones((0, 4)), "test_labels": np.ones(0, int)}, r"^test_labels: .* at least one"),
        ({"train": np.ones((0, 4)), "train_labels": np.ones(0, int)}, r"^train_labels: .* at least one"),
    ],
)
def test_arrays_that_do_not_fit(method: Probe, change: dict[str, Any], problem: str) -> None:
    assert method(**GOOD) >= 0
    with pytest.raises(ShapeError, match=problem):
        method(**(GOOD | change))


@BOTH
@pytest.mark.parametrize("side", ["train", "test"])
def test_non_finite(method: Probe, side: str) -> None:
    features = GOOD[side].copy()
    features[2, 1] = np.nan
    with pytest.raises(NonFiniteError, match=f"^{side}: 1 of .* the first at image 2"):
        method(**(GOOD | {side: features}))


@pytest.mark.parametrize("penalty", [0.0, -1.0, 1e-10, math.nan, math.inf, [], [1.0, 0.0]])
def test_ridge_penalties_without_meaning(penalty: Any) -> None:
    with pytest.raises(ValueError, match=r"^penalty: is .* \(need 1e-09 or more, finite, at least one\)"):
        ridge_probe(**GOOD, penalty=penalty)


@pytest.mark.parametrize("penalty", [0.0, -1.0, math.nan, math.inf])
def test_logistic_penalties_without_meaning(penalty: float) -> None:
    with pytest.raises(ValueError, match=r"^penalty: is .* \(need a finite number above 0\)"):
        logistic_probe(**GOOD, penalty=penalty)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@BOTH
def test_on_a_gpu_as_on_the_cpu(method: Probe) -> None:
    train, labels, test, test_labels = split(7)
    on_gpu = method(torch.from_numpy(train).cuda(), labels, torch.from_numpy(test).cuda(), test_labels)
    assert on_gpu == pytest.approx(method(train, labels, test, test_labels), abs=0.0026)
