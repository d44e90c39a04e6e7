"""How well a linear classifier on finished features does: ridge and logistic regression; knows no model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.errors import ShapeError, TrainingError
from engine.measures.check import as_layer, check_finite
from engine.quality.centring import find_centring
from engine.quality.labels import as_labels

# Ridge penalties that leave-one-out chooses among, from hardly any to one that leaves little.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)
# Below it, an image's own pull on its prediction is one up to rounding, and leave-one-out divides by what is left.
_LEAST_PENALTY = 1e-9
# Largest entry of the gradient, of a mean loss, at which the logistic regression counts as converged.
_GRADIENT_TOLERANCE = 1e-6
_MAX_STEPS = 5000


@dataclass(frozen=True)
class _Task:
    """Features centred on the training rows, float64 and on one device; classes counted from 0 in ascending order.

    Attributes:
        train: `(n, d)`.
        train_classes: `(n,)`.
        test: `(m, d)`.
        test_classes: `(m,)`; -1 for a class that the training rows lack.
        n_classes: number of classes of the training rows.
        is_constant: features in which the training rows do not differ, `(d,)`.
    """

    train: Tensor
    train_classes: Tensor
    test: Tensor
    test_classes: Tensor
    n_classes: int
    is_constant: Tensor


@torch.no_grad()
def ridge_probe(
    train: Any, train_labels: Any, test: Any, test_labels: Any, *, penalty: float | Sequence[float] = PENALTIES
) -> float:
    """Share of the test images that ridge regression onto one-hot classes predicts right; closed form.

    Features and targets are centred, so the intercept is not penalised; the class of the highest score is predicted,
    the lower one in a draw. The penalty is a multiple of the training rows' mean squared norm (scikit-learn's alpha is
    that product), which makes the value invariant to orthogonal maps, isotropic scaling and translation of both sides
    together; not to scaling of single features. Of several penalties, the one of the smallest mean squared
    leave-one-out error on the training rows is taken; no test image has a part in it. Features that are constant over
    the training rows predict the largest class.

    Args:
        train: `(n, d)` array or tensor, one row an image; computed in float64.
        train_labels: `(n,)` integers from 0.
        test: `(m, d)`, one row an image.
        test_labels: `(m,)` integers from 0; one that the training rows lack counts as an error.
        penalty: one, or several to choose from, 1e-9 or more.
    Returns:
        Accuracy in [0, 1], higher is better.
    Raises:
        ShapeError: arrays that do not fit together, or training rows of a single class.
        NonFiniteError: a feature is NaN or infinite.
        ValueError: no penalty, or one below 1e-9 or infinite.
    Source: Hastie, Tibshirani & Friedman 2009, section 3.4.1; leave-one-out: eq. 7.64.
    """
    penalties = list(penalty) if isinstance(penalty, Sequence) else [penalty]
    if not penalties or not all(_LEAST_PENALTY <= value < math.inf for value in penalties):
        raise ValueError(f"penalty: is {penalty} (need {_LEAST_PENALTY} or more, finite, at least one)")
    task = _as_task(train, train_labels, test, test_labels)
    axes, squares = _principal_axes(task.train)
    scores = task.train @ axes
    targets = torch.nn.functional.one_hot(task.train_classes, task.n_classes).double()
    shares = targets.mean(dim=0)
    targets -= shares

    unit = task.train.square().sum() / len(task.train)
    pulls = scores.T @ targets
    best = penalties[0]
    if len(penalties) > 1:
        best = min(penalties, key=lambda value: _leave_one_out_error(scores, squares + value * unit, pulls, targets))
    predictions = (task.test @ axes @ (pulls / (squares + best * unit)[:, None]) + shares).argmax(dim=1)
    return float((predictions == task.test_classes).double().mean())


@torch.no_grad()
def logistic_probe(train: Any, train_labels: Any, test: Any, test_labels: Any, *, penalty: float = 1.0) -> float:
    """Share of the test images that multinomial logistic regression with an L2 penalty predicts right.

    Features are standardised by the training rows; those that are constant there are left out. Minimises the summed
    cross-entropy plus penalty / 2 times the squared weights, without the intercepts, by L-BFGS in float64 from zero:
    no chance is involved. The penalty is 1 / C of scikit-learn for three classes and more; for two, it penalises one
    difference of weights there, and 2 / C is the same. Invariant to scaling and translation of single features of both
    sides together; not to orthogonal maps.

    Args:
        train: `(n, d)` array or tensor, one row an image; computed in float64.
        train_labels: `(n,)` integers from 0.
        test: `(m, d)`, one row an image.
        test_labels: `(m,)` integers from 0; one that the training rows lack counts as an error.
        penalty: above 0.
    Returns:
        Accuracy in [0, 1], higher is better.
    Raises:
        ShapeError: arrays that do not fit together, or training rows of a single class.
        NonFiniteError: a feature is NaN or infinite.
        TrainingError: the gradient of the mean loss is still above 1e-6 after 5000 steps.
        ValueError: a penalty that is not above 0 and finite.
    Source: Hastie, Tibshirani & Friedman 2009, eq. 18.11; protocol: Radford et al. 2021 (CLIP), appendix A.3.
    """
    if not 0 < penalty < math.inf:
        raise ValueError(f"penalty: is {penalty} (need a finite number above 0)")
    task = _as_task(train, train_labels, test, test_labels)
    largest = task.train.abs().amax(dim=0)
    largest = torch.where(task.is_constant | (largest == 0), torch.inf, largest)  # what is left out becomes zero
    spread = (task.train / largest).std(dim=0, correction=0)
    spread = torch.where(spread > 0, spread, 1)
    x, test_x = (_with_ones(values / largest / spread) for values in (task.train, task.test))
    weights = _fit_logistic(x, task.train_classes, task.n_classes, penalty)
    return float(((test_x @ weights).argmax(dim=1) == task.test_classes).double().mean())


def _as_task(train: Any, train_labels: Any, test: Any, test_labels: Any) -> _Task:
    train_layer, test_layer = as_layer(train, "train"), as_layer(test, "test")
    device = train_layer.values.device
    (n, width), (n_test, test_width) = train_layer.values.shape, test_layer.values.shape
    labels = as_labels(train_labels, "train_labels", n).to(device)
    test_labels = as_labels(test_labels, "test_labels", n_test).to(device)
    if test_width != width:
        raise ShapeError(
            "test",
            f"has {test_width} features (need {width}, as train)",
            "extract both with the same backbone and layer",
        )
    classes, train_classes = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise ShapeError(
            "train_labels", f"hold class {int(classes)} alone (need two classes or more)", "add images of other classes"
        )
    nearest = torch.searchsorted(classes, test_labels).clamp_(max=len(classes) - 1)
    test_classes = torch.where(classes[nearest] == test_labels, nearest, -1)
    centring = find_centring(train_layer)
    check_finite(test_layer.values, test_layer.values, "test")
    x, test_x = centring.apply(train_layer.values), centring.apply(test_layer.values)
    return _Task(x, train_classes, test_x, test_classes, len(classes), centring.is_constant)


def _principal_axes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Directions in which centred rows vary, `(d, k)`, and their squared singular values, `(k,)`.

    From the side that is smaller, features or images; without the directions that are zero up to rounding.
    """
    is_wide = x.shape[1] > len(x)
    squares, axes = torch.linalg.eigh(x @ x.T if is_wide else x.T @ x)
    kept = squares > max(x.shape) * torch.finfo(torch.float64).eps * squares[-1]
    squares, axes = squares[kept], axes[:, kept]
    return (x.T @ axes / squares.sqrt() if is_wide else axes), squares


def _leave_one_out_error(scores: Tensor, penalised: Tensor, pulls: Tensor, targets: Tensor) -> float:
    """Mean squared error, on each row, of the ridge regression on all others and their mean; nothing is refitted."""
    own_pull = 1 / len(scores) + (scores.square() / penalised).sum(dim=1, keepdim=True)
    residuals = targets - scores @ (pulls / penalised[:, None])
    return float((residuals / (1 - own_pull)).square().mean())


def _with_ones(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)


def _fit_logistic(x: Tensor, classes: Tensor, n_classes: int, penalty: float) -> Tensor:
    """Weights `(d + 1, c)`, the intercepts in the last row, for rows whose last feature is one."""
    rows, n = torch.arange(len(x), device=x.device), len(x)
    weights = x.new_zeros(x.shape[1], n_classes)
    gradient = torch.zeros_like(weights)

    def loss() -> Tensor:
        """Mean loss; leaves its gradient behind, which autograd could not find in a caller's inference mode."""
        log_probabilities = (x @ weights).log_softmax(dim=1)
        value = penalty / (2 * n) * weights[:-1].square().sum() - log_probabilities[rows, classes].mean()
        errors = log_probabilities.exp()
        errors[rows, classes] -= 1
        torch.matmul(x.T, errors / n, out=gradient)
        gradient[:-1] += penalty / n * weights[:-1]
        return value

    weights.grad = gradient
    solver = torch.optim.LBFGS(
        [weights],
        max_iter=_MAX_STEPS,
        max_eval=10 * _MAX_STEPS,
        tolerance_grad=_GRADIENT_TOLERANCE,
        tolerance_change=0,  # a small step is no sign of convergence
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    solver.step(loss)
    loss()
    left = float(gradient.abs().max())
    if not left <= _GRADIENT_TOLERANCE:
        raise TrainingError(
            "logistic probe",
            f"has a gradient of {left:.1g} after {_MAX_STEPS} steps (need {_GRADIENT_TOLERANCE})",
            "raise the penalty",
        )
    return weights
