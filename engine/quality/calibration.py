"""How far a classifier's confidence can be trusted; works on finished probabilities, knows no model."""

from __future__ import annotations

from typing import Any

import torch

from engine.measures.check import as_layer, check_finite
from engine.quality.labels import as_labels

# Half-precision softmax rows of 1,000 classes sum to one within this; logits do not.
_SUM_TOLERANCE = 0.02


@torch.no_grad()
def expected_calibration_error(probabilities: Any, labels: Any, n_bins: int = 15) -> float:
    """Mean distance between confidence and accuracy, over bins of equal width, weighted by their images (L1 norm).

    The confidence of an image is its largest probability, its prediction the first class that has it. Bin b of m holds
    the confidences in ((b - 1) / m, b / m]: a confidence of exactly 1.0 belongs to the last bin, one of 0 to the first.
    The bounds are rounded to the type of the probabilities, so that 0.2 falls as 0.2 does in every type.

    Args:
        probabilities: `(n, c)` array or tensor, one row an image, rows sum to one (softmax outputs, not logits).
        labels: `(n,)` integers in [0, c), the same images in the same order.
        n_bins: number of bins over [0, 1].
    Returns:
        Value in [0, 1], lower is better.
    Raises:
        ShapeError: not (n, c), no images, other numbers of rows and labels, or a label that has no column.
        NonFiniteError: a probability is NaN or infinite.
        ValueError: rows that are no probabilities, or n_bins < 1.
    Source: Naeini et al. 2015; Guo et al. 2017, eq. 3.
    """
    if n_bins < 1:
        raise ValueError(f"n_bins: is {n_bins} (need 1 or more)")
    values = as_layer(probabilities, "probabilities").values.cpu()
    n, n_classes = values.shape
    targets = as_labels(labels, "labels", n, n_classes)
    check_finite(values, values, "probabilities")
    if values.min() < 0 or (values.double().sum(dim=1) - 1).abs().max() > _SUM_TOLERANCE:
        raise ValueError(
            "probabilities: a row does not sum to one or is negative somewhere (pass softmax outputs, not logits)"
        )

    dtype = values.dtype if values.is_floating_point() else torch.float64
    upper_bounds = (torch.arange(1, n_bins + 1, dtype=torch.float64) / n_bins).to(dtype).double()
    predictions = values.argmax(dim=1, keepdim=True)
    confidences = values.gather(1, predictions).squeeze(1).double()
    correct = (predictions.squeeze(1) == targets).double()
    # a half-precision confidence may lie a rounding above one
    bins = torch.searchsorted(upper_bounds, confidences).clamp_(max=n_bins - 1)
    gaps = torch.bincount(bins, weights=confidences - correct, minlength=n_bins)
    return float(gaps.abs().sum() / n)
