"""Every measure by its textbook definition, in float64 numpy and scipy: nothing is shared with the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy.linalg
import scipy.spatial
import scipy.stats
import sklearn.linear_model
import sklearn.neighbors
import torch
from numpy.typing import ArrayLike
from scipy.spatial.distance import pdist, squareform


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


def _alignment(hsic: Callable[[np.ndarray, np.ndarray], float], k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    return _alignment(_biased_hsic, x @ x.T, y @ y.T)


def debiased_cka(x: np.ndarray, y: np.ndarray) -> float:
    return _alignment(_unbiased_hsic, x @ x.T, y @ y.T)


def minibatch_cka(x: np.ndarray, y: np.ndarray, batch_size: int = 256, seed: int = 0) -> float:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).numpy()
    batches = np.array_split(order, -(-len(x) // batch_size))
    pairs = ((x, y), (x, x), (y, y))
    xy, xx, yy = (sum(_unbiased_hsic(a[b] @ a[b].T, c[b] @ c[b].T) for b in batches) for a, c in pairs)
    return xy / np.sqrt(xx * yy)


def rbf_cka(x: np.ndarray, y: np.ndarray, threshold: float = 0.5) -> float:
    def kernel(z: np.ndarray) -> np.ndarray:
        squares = squareform(pdist(z, "sqeuclidean"))
        return np.exp(-squares / (2 * threshold**2 * np.median(squares)))

    return _alignment(_biased_hsic, kernel(x), kernel(y))


def _canonical_correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """By whitening with Cholesky factors of the covariances: no singular vectors of x or y."""
    a, b = (scipy.linalg.cholesky(z.T @ z, lower=True) for z in (x, y))
    both = scipy.linalg.solve_triangular(a, x.T @ y, lower=True)
    return np.linalg.svd(scipy.linalg.solve_triangular(b, both.T, lower=True), compute_uv=False)


def mean_cca(x: np.ndarray, y: np.ndarray) -> float:
    return float(_canonical_correlations(x, y).mean())


def mean_squared_cca(x: np.ndarray, y: np.ndarray) -> float:
    return float((_canonical_correlations(x, y) ** 2).mean())


def svcca(x: np.ndarray, y: np.ndarray, variance: float = 0.99) -> float:
    def components(z: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(z.T @ z)
        values, vectors = values[::-1], vectors[:, ::-1]
        k = int(np.argmax(np.cumsum(values) / values.sum() >= variance - 1e-12)) + 1
        return z @ vectors[:, :k]

    return mean_cca(components(x), components(y))


def pwcca(x: np.ndarray, y: np.ndarray) -> float:
    qx, _ = np.linalg.qr(x)
    qy, _ = np.linalg.qr(y)
    u, rho, _ = np.linalg.svd(qx.T @ qy)
    h = qx @ u[:, : len(rho)]
    weights = np.abs(h.T @ x).sum(axis=1)
    return float((weights * rho).sum() / weights.sum())


def linear_regression(x: np.ndarray, y: np.ndarray) -> float:
    left = x - sklearn.linear_model.LinearRegression().fit(y, x).predict(y)
    return float(1 - (left**2).sum() / (x**2).sum())


def procrustes(x: np.ndarray, y: np.ndarray) -> float:
    d = max(x.shape[1], y.shape[1])
    x, y = (np.pad(z, ((0, 0), (0, d - z.shape[1]))) for z in (x, y))
    return float(np.sqrt(1 - scipy.spatial.procrustes(x, y)[2]))


def row_cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean([a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in zip(x, y, strict=True)]))


def rsa(x: np.ndarray, y: np.ndarray, correlation: str = "spearman") -> float:
    correlate = {"spearman": scipy.stats.spearmanr, "pearson": scipy.stats.pearsonr}[correlation]
    return float(correlate(pdist(x, "correlation"), pdist(y, "correlation")).statistic)


def _neighbours(x: np.ndarray, k: int) -> list[set[int]]:
    model = sklearn.neighbors.NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(x)
    return [set(row) for row in model.kneighbors(return_distance=False)]  # without a query, no point is its own


def mutual_knn(x: np.ndarray, y: np.ndarray, k: int = 10) -> float:
    pairs = zip(_neighbours(x, k), _neighbours(y, k), strict=True)
    return float(np.mean([len(a & b) / k for a, b in pairs]))


def mutual_knn_jaccard(x: np.ndarray, y: np.ndarray, k: int = 10) -> float:
    pairs = zip(_neighbours(x, k), _neighbours(y, k), strict=True)
    return float(np.mean([len(a & b) / len(a | b) for a, b in pairs]))


UNCENTRED = ("row_cosine", "rsa", "mutual_knn", "mutual_knn_jaccard")
DEFINITIONS: Mapping[str, Callable[..., float]] = {
    function.__name__: function
    for function in (
        linear_cka, debiased_cka, minibatch_cka, rbf_cka, mean_cca, mean_squared_cca, svcca, pwcca, linear_regression,
        procrustes, row_cosine, rsa, mutual_knn, mutual_knn_jaccard,
    )
}  # fmt: skip


def similarity(x: ArrayLike, y: ArrayLike, measure: str, **options: object) -> float:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if measure not in UNCENTRED:  # keeps float64 exact at large offsets and large or small scales
        x, y = (z - z.mean(axis=0) for z in (x, y))
    x, y = (z / np.abs(z).max() for z in (x, y))
    return DEFINITIONS[measure](x, y, **options)


def similarity_map(xs: Sequence[ArrayLike], ys: Sequence[ArrayLike], measure: str) -> np.ndarray:
    return np.array([[similarity(x, y, measure) for y in ys] for x in xs])
