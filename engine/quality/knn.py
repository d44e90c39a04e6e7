"""k-nearest-neighbour accuracy of a representation, by DINO's protocol; works on finished features, knows no model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.errors import ShapeError
from engine.measures.check import Layer, as_layer
from engine.measures.directions import as_directions
from engine.measures.precision import full_precision
from engine.quality.labels import as_labels

# Similarities held at a time: 64 MB in float32.
_CHUNK_VALUES = 2**24


@torch.no_grad()
def knn_accuracy(
    bank: Any,
    bank_labels: Any,
    queries: Any,
    query_labels: Any,
    k: int = 20,
    temperature: float = 0.07,
    leave_one_out: bool = False,
) -> float:
    """Share of the queries whose nearest neighbours in the bank vote for their class.

    Rows are scaled to length one; the k bank rows of the highest cosine similarity s vote for their class with
    exp(s / temperature); the lower class wins a draw. Invariant to orthogonal maps and to the length of each row, not
    to translation. A row of zeros has cosine 0 with every other, as in DINO. Equal similarities at the k-th place are
    settled by torch's `topk`.

    Args:
        bank: `(m, d)` array or tensor, one row an image.
        bank_labels: `(m,)` integers from 0.
        queries: `(n, d)`, one row an image.
        query_labels: `(n,)` integers from 0; one that the bank lacks counts as an error.
        k: number of neighbours.
        temperature: of the votes, above 0.
        leave_one_out: query i is row i of the bank, and is left out of its own neighbours.
    Returns:
        Accuracy in [0, 1], higher is better.
    Raises:
        ShapeError: arrays that do not fit together, or k above the number of bank rows that are left.
        NonFiniteError: a feature is NaN or infinite.
        ValueError: k < 1 or a temperature that is not above 0.
    Source: Caron et al. 2021 (DINO), section 4.1 and its `eval_knn.py`; Wu et al. 2018, eq. 12.
    """
    if k < 1 or not temperature > 0:
        raise ValueError(f"k, temperature: are {k}, {temperature} (need 1 or more, above 0)")
    bank_layer, query_layer = as_layer(bank, "bank"), as_layer(queries, "queries")
    n_bank, n_queries = len(bank_layer.values), len(query_layer.values)
    device = bank_layer.values.device
    classes = as_labels(bank_labels, "bank_labels", n_bank).to(device)
    targets = as_labels(query_labels, "query_labels", n_queries).to(device)
    _check_fit(bank_layer, query_layer, k, leave_one_out)

    dtype = torch.promote_types(bank_layer.dtype, query_layer.dtype)
    directions = as_directions(bank_layer, dtype)
    query_directions = directions if queries is bank else as_directions(query_layer, dtype).to(device)
    n_right, size = 0, max(1, _CHUNK_VALUES // n_bank)
    for start in range(0, n_queries, size):
        with full_precision(device):
            similarity = query_directions[start : start + size] @ directions.T
        if leave_one_out:
            similarity.diagonal(start).fill_(-torch.inf)
        n_right += int((_vote(similarity, classes, k, temperature) == targets[start : start + size]).sum())
    return n_right / n_queries


def _vote(similarity: Tensor, classes: Tensor, k: int, temperature: float) -> Tensor:
    """The class that the k nearest of each row vote for."""
    nearest = similarity.topk(k, dim=1)
    # the best neighbour's vote counts as one, which changes no draw and lets no low temperature overflow
    weights = ((nearest.values - nearest.values[:, :1]).double() / temperature).exp()
    tally = torch.zeros(len(similarity), int(classes.max()) + 1, dtype=torch.float64, device=similarity.device)
    return tally.scatter_add_(1, classes[nearest.indices], weights).argmax(dim=1)


def _check_fit(bank: Layer, queries: Layer, k: int, leave_one_out: bool) -> None:
    (n_bank, width), (n_queries, query_width) = bank.values.shape, queries.values.shape
    if query_width != width:
        raise ShapeError(
            "queries",
            f"have {query_width} features (need {width}, as the bank)",
            "extract both with the same backbone and layer",
        )
    if leave_one_out and n_queries != n_bank:
        raise ShapeError(
            "queries",
            f"are {n_queries} (need {n_bank}, as the bank, to leave each one out)",
            "pass the bank itself as the queries",
        )
    if k > n_bank - leave_one_out:
        raise ShapeError(
            "k", f"is {k} (the bank has {n_bank - leave_one_out} neighbours to offer)", "lower k or enlarge the bank"
        )
