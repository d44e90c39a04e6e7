"""CKA by its textbook definition, in float64 numpy, with centring matrices: nothing is shared with the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def _biased_hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    h = np.eye(len(k)) - 1 / len(k)
    return float(np.trace(h @ k @ h @ h @ l @ h))


def _unbiased_hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """Song et al. 2012, eq. 5, term by term."""
    n, ones = len(k), np.ones(len(k))
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    both = (
        np.trace(k @ l) + ones @ k @ ones * (ones @ l @ ones) / ((n - 1) * (n - 2)) - 2 / (n - 2) * ones @ k @ l @ ones
    )
    return float(both / (n * (n - 3)))


HSIC: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "linear_cka": _biased_hsic,
    "debiased_cka": _unbiased_hsic,
}


def cka(x: ArrayLike, y: ArrayLike, measure: str) -> float:
    # a common shift of the rows changes neither estimator, and keeps float64 exact at large offsets
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    hsic = HSIC[measure]
    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


def cka_map(xs: Sequence[ArrayLike], ys: Sequence[ArrayLike], measure: str) -> np.ndarray:
    return np.array([[cka(x, y, measure) for y in ys] for x in xs])
