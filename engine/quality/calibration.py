"""How far a classifier's confidence can be trusted; works on finished probabilities, knows no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from engine.measures.check import as_layer, check_finite
from engine.quality.labels import as_labels

Binning = Literal["equal_width", "equal_mass"]
Norm = Literal["l1", "l2", "max"]

# Half-precision softmax rows of 1,000 classes sum to one within this; logits do not.
_SUM_TOLERANCE = 0.02


@dataclass(frozen=True)
class ReliabilityBins:
    """Images by their confidence: what a reliability diagram draws; each an array `(n_bins,)`, low confidence first.

    Attributes:
        lower: bounds that a bin leaves to the bin below it, float64; the first, with none below it, keeps its own.
        upper: bounds that belong to their bin, float64. Where it equals the lower one, no confidence falls between.
        n_images: images in the bin, int64; 0 where it is empty.
        confidence: their mean confidence, float64; NaN where the bin is empty.
        accuracy: share of them that is predicted right, float64; NaN where the bin is empty.
        excess: their confidences less their right predictions, summed, float64: above 0 where the classifier is too
            sure, and 0 where the bin is empty. All calibration errors are computed on it.
    """

    lower: np.ndarray
    upper: np.ndarray
    n_images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    excess: np.ndarray


def expected_calibration_error(
    probabilities: Any, labels: Any, n_bins: int = 15, *, binning: Binning = "equal_width", norm: Norm = "l1"
) -> float:
    """Distance between confidence and accuracy, over bins of confidence: by default of equal width, in the L1 norm.

    The bins are those of `reliability_bins`. With the gap of a bin the distance of its mean confidence from its
    accuracy, the norm is `l1` for the mean of the gaps, weighted by images; `l2` for the root of the mean of their
    squares, weighted alike; `max` for the largest gap of a bin that has images (maximum calibration error). For the
    same bins, l1 <= l2 <= max. All are the plain estimators, biased upwards where bins hold few images. Invariant to
    the order of the images.

    Args:
        probabilities: `(n, c)` array or tensor, one row an image, rows sum to one (softmax outputs, not logits).
        labels: `(n,)` integers in [0, c), the same images in the same order.
        n_bins: number of bins.
        binning: `equal_width` over [0, 1], or `equal_mass` for bins of equally many images.
        norm: `l1`, `l2` or `max`.
    Returns:
        Value in [0, 1], lower is better.
    Raises:
        ShapeError: not (n, c), no images, other numbers of rows and labels, or a label that has no column.
        NonFiniteError: a probability is NaN or infinite.
        ValueError: rows that are no probabilities, n_bins < 1, or no such binning or norm.
    Source: Naeini et al. 2015 (also for `max`); Guo et al. 2017, eq. 3 and 5; `l2` and `equal_mass`: Kumar et al. 2019.
    """
    if norm not in ("l1", "l2", "max"):
        raise ValueError(f"norm: is {norm!r} (need l1, l2 or max)")
    bins = reliability_bins(probabilities, labels, n_bins, binning=binning)
    excess, n_images = torch.from_numpy(bins.excess).abs(), torch.from_numpy(bins.n_images)
    if norm == "l1":
        return float(excess.sum() / int(n_images.sum()))
    gaps = excess / n_images.clamp(min=1)  # an empty bin has no excess: its gap is 0
    if norm == "max":
        return float(gaps.max())
    return float(((gaps.square() * n_images).sum() / n_images.sum()).sqrt())


@torch.no_grad()
def reliability_bins(
    probabilities: Any, labels: Any, n_bins: int = 15, *, binning: Binning = "equal_width"
) -> ReliabilityBins:
    """Confidence and accuracy of the images of each bin of confidence.

    The confidence of an image is its largest probability, its prediction the first class that has it.

    `equal_width`: bin b of m holds the confidences in ((b - 1) / m, b / m]: a confidence of exactly 1.0 belongs to the
    last bin, one of 0 to the first. The bounds are rounded to the type of the probabilities, so that 0.2 falls as 0.2
    does in every type.

    `equal_mass`: the upper bound of bin b is the confidence of place ceil(b n / m) in ascending order, and it belongs
    to the bin. So all images of equal confidence share a bin, the lowest that one of them has a place in, whatever the
    order of the rows; without ties the bins differ by one image at most. A confidence shared by so many images that
    it is the bound of several bins leaves the upper ones of these empty, and so do fewer images than bins.

    Args:
        probabilities: `(n, c)` array or tensor, one row an image, rows sum to one (softmax outputs, not logits).
        labels: `(n,)` integers in [0, c), the same images in the same order.
        n_bins: number of bins.
        binning: `equal_width` over [0, 1], or `equal_mass` for bins of equally many images.
    Returns:
        The bins, empty ones included.
    Raises:
        As `expected_calibration_error`.
    Source: Guo et al. 2017, section 2; Kumar et al. 2019 (bins of equal mass).
    """
    if n_bins < 1:
        raise ValueError(f"n_bins: is {n_bins} (need 1 or more)")
    if binning not in ("equal_width", "equal_mass"):
        raise ValueError(f"binning: is {binning!r} (need equal_width or equal_mass)")
    values, targets = _as_probabilities(probabilities, labels)
    predictions = values.argmax(dim=1, keepdim=True)
    confidences = values.gather(1, predictions).squeeze(1).double()
    correct = (predictions.squeeze(1) == targets).double()

    steps = torch.arange(1, n_bins + 1)
    if binning == "equal_width":
        dtype = values.dtype if values.is_floating_point() else torch.float64
        upper = (steps.double() / n_bins).to(dtype).double()
    else:
        n = len(confidences)
        upper = confidences.sort().values[(steps * n + n_bins - 1) // n_bins - 1]
    # a half-precision confidence may lie a rounding above one
    bins = torch.searchsorted(upper, confidences).clamp_(max=n_bins - 1)
    n_images = torch.bincount(bins, minlength=n_bins)
    return ReliabilityBins(
        lower=torch.cat([upper.new_zeros(1), upper[:-1]]).numpy(),
        upper=upper.numpy(),
        n_images=n_images.numpy(),
        confidence=(torch.bincount(bins, weights=confidences, minlength=n_bins) / n_images).numpy(),
        accuracy=(torch.bincount(bins, weights=correct, minlength=n_bins) / n_images).numpy(),
        excess=torch.bincount(bins, weights=confidences - correct, minlength=n_bins).numpy(),
    )


@torch.no_grad()
def brier_score(probabilities: Any, labels: Any) -> float:
    """Mean squared distance of the probabilities from the truth, summed over the classes, not averaged.

    A proper score: it has its best mean at the true probabilities. Invariant to the order of images and of classes.
    Twice the form for two classes that counts one of them only.

    Args:
        probabilities: `(n, c)` array or tensor, one row an image, rows sum to one (softmax outputs, not logits).
        labels: `(n,)` integers in [0, c), the same images in the same order.
    Returns:
        Value in [0, 2], lower is better; 2 where all images are wholly sure of a wrong class.
    Raises:
        ShapeError: not (n, c), no images, other numbers of rows and labels, or a label that has no column.
        NonFiniteError: a probability is NaN or infinite.
        ValueError: rows that are no probabilities.
    Source: Brier 1950, eq. 2.
    """
    values, targets = _as_probabilities(probabilities, labels)
    errors = values.double()
    errors = errors - torch.nn.functional.one_hot(targets, errors.shape[1])
    return float(errors.square().sum(dim=1).mean())


@torch.no_grad()
def negative_log_likelihood(probabilities: Any, labels: Any) -> float:
    """Mean of -log p over the images, p the probability of an image's true class, in nats.

    A proper score: it has its best mean at the true probabilities. Invariant to the order of images and of classes.
    A true class of probability 0 makes it infinite, as it should: no clamp hides that the model ruled the truth out. In
    float16 a softmax output below 3e-8 is stored as 0: take the softmax in float32.

    Args:
        probabilities: `(n, c)` array or tensor, one row an image, rows sum to one (softmax outputs, not logits).
        labels: `(n,)` integers in [0, c), the same images in the same order.
    Returns:
        Value in [0, inf], lower is better; log c where all classes are equally likely.
    Raises:
        As `brier_score`.
    Source: Guo et al. 2017, eq. 6, divided by n.
    """
    values, targets = _as_probabilities(probabilities, labels)
    # subtracted, not negated: a perfect model scores 0.0, not -0.0
    return float(0 - values.gather(1, targets[:, None]).double().log().mean())


def _as_probabilities(probabilities: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Probabilities `(n, c)` as they are and labels `(n,)` int64, both on the CPU, or says why they are none."""
    values = as_layer(probabilities, "probabilities").values.cpu()
    targets = as_labels(labels, "labels", *values.shape)
    check_finite(values, values, "probabilities")
    if values.min() < 0 or (values.double().sum(dim=1) - 1).abs().max() > _SUM_TOLERANCE:
        raise ValueError(
            "probabilities: a row does not sum to one or is negative somewhere (pass softmax outputs, not logits)"
        )
    return values, targets
