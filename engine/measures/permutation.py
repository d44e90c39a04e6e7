"""What similarity unrelated representations reach: exact moments over all n! orders of the images of one side.

Works on sums that a measure has at hand, so nothing is permuted and nothing is random; knows no measure.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Symmetric:
    """Symmetric matrices `(n, n)` of `L` layers whose rows sum to zero, by what permutations see of them, `(L,)` each.

    Attributes:
        trace: sum of the diagonal.
        square: sum of all squared entries.
        diagonal_square: sum of the squared entries of the diagonal.
    """

    trace: Tensor
    square: Tensor
    diagonal_square: Tensor


def permutation_moments(x: Symmetric, y: Symmetric, n: int, normalise: bool = True) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of Σ_ij A_ij B_p(i)p(j) over all permutations p, `(L, M)` float64 each.

    Args:
        normalise: divide by the roots of both squares, as CKA does.
    Source: Kazi-Aoual et al. 1995, for centred matrices; as in Josse, Pagès, Husson 2008, section 3.
    """
    t_x, q_x, d_x = (value[:, None] for value in (x.trace, x.square, x.diagonal_square))
    t_y, q_y, d_y = (value[None, :].to(t_x) for value in (y.trace, y.square, y.diagonal_square))
    mean = t_x * t_y / (n - 1)
    variance = torch.zeros_like(mean)
    if n > 2:
        variance = 2 * ((n - 1) * q_x - t_x**2) * ((n - 1) * q_y - t_y**2) / ((n - 1) ** 2 * (n + 1) * (n - 2))
    if n > 3:
        rest_x, rest_y = (n * (n + 1) * d - (n - 1) * (t**2 + 2 * q) for t, q, d in ((t_x, q_x, d_x), (t_y, q_y, d_y)))
        variance = variance + rest_x * rest_y / ((n + 1) * n * (n - 1) * (n - 2) * (n - 3))
    sd = variance.clamp(min=0).sqrt()
    if not normalise:
        return mean, sd
    scale = torch.sqrt(q_x * q_y)
    return mean / scale, sd / scale
