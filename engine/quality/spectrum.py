"""In how many directions a representation varies, by the eigenvalues of its features; knows no model."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from engine.errors import ShapeError
from engine.measures.check import as_layer, power_of_two_below_one
from engine.quality.centring import find_centring

# Ranks, from 1, of the eigenvalues to which the power law is fitted.
_FIRST_RANK, _LAST_RANK = 4, 100
# Fewer points in the fit say nothing of a slope.
_FEWEST_RANKS = 10


@torch.no_grad()
def effective_rank(x: Any) -> float:
    """Number of directions that a representation uses: exp of the entropy of its normalised singular values (RankMe).

    As published, nothing is centred: a mean far from zero is one direction that outweighs all others. Subtract the
    columns' means first for a value that is blind to it. Invariant to orthogonal maps and isotropic scaling; not to
    translation, nor to other invertible maps.

    Args:
        x: `(n, d)` array or tensor, one row an image; computed in float64.
    Returns:
        Value in [1, min(n, d)], higher is more directions; NaN where x is constant over the images: what is left, the
        mean, tells nothing of them.
    Raises:
        ShapeError: not (n, d), or n < 2.
        NonFiniteError: a feature is NaN or infinite.
    Source: Garrido et al. 2023 (RankMe), eq. 1 and 2, with 0 log 0 = 0 instead of their 1e-7 on every share, which adds
        up to 0.2 % to the rank at d = 768; Roy & Vetterli 2007.
    """
    eigenvalues = _spectrum(x, 2, centred=False)
    if eigenvalues is None:
        return math.nan
    shares = eigenvalues.sqrt()
    shares = shares / shares.sum()
    return float(torch.special.entr(shares).sum().exp())


@torch.no_grad()
def participation_ratio(x: Any) -> float:
    """Number of directions in which a representation varies: squared sum of the covariance's eigenvalues over the sum
    of their squares.

    Features are centred. Invariant to orthogonal maps, isotropic scaling and translation; not to other invertible maps.
    Biased downwards when n is not much larger than the value itself: n images of d equal directions give about
    n d / (n + d).

    Args:
        x: `(n, d)` array or tensor, one row an image; computed in float64.
    Returns:
        Value in [1, min(n - 1, d)], higher is more directions; NaN where x is constant over the images.
    Raises:
        ShapeError: not (n, d), or n < 2.
        NonFiniteError: a feature is NaN or infinite.
    Source: Gao et al. 2017; Litwin-Kumar et al. 2017.
    """
    eigenvalues = _spectrum(x, 2)
    if eigenvalues is None:
        return math.nan
    return float(eigenvalues.sum().square() / eigenvalues.square().sum())


@torch.no_grad()
def spectrum_alpha(x: Any) -> float:
    """Decay of the covariance's eigenvalues: alpha of the power law, eigenvalue of rank j ~ j^-alpha.

    Features are centred. The slope is that of log eigenvalue over log rank, by least squares with weights 1 / rank, so
    that every octave of ranks counts alike. It is fitted to the ranks 4 to 100, or to d / 2 where that is less: the
    first few eigenvalues follow no law (one feature of a large spread makes one by itself), and the far tail bends down
    because n and d end, or because features are dead or add up to zero, as a layer norm leaves them. Compare layers of
    one width, or of 200 features and more. Invariant to orthogonal maps, isotropic scaling and translation; not to
    other invertible maps.

    Args:
        x: `(n, d)` array or tensor, one row an image, n several times 100; computed in float64.
    Returns:
        Value of 0 or more, higher is a faster decay and so fewer directions, neither of them better: near 1 is what
        the source finds to generalise best. NaN where x is constant over the images, or varies in fewer directions
        than are fitted.
    Raises:
        ShapeError: not (n, d), d < 26, or n not above the last rank of the fit.
        NonFiniteError: a feature is NaN or infinite.
    Source: Agrawal et al. 2022 (α-ReQ), ranks 4 to 100 and weights as in its published code; Stringer et al. 2019.
    """
    width = as_layer(x, "x").values.shape[1]
    last = min(_LAST_RANK, width // 2)
    least = _FIRST_RANK + _FEWEST_RANKS - 1
    if last < least:
        raise ShapeError(
            "x", f"has {width} features (need {2 * least} or more to fit a power law)", "use a wider layer"
        )
    eigenvalues = _spectrum(x, last + 1)
    if eigenvalues is None or not eigenvalues[last - 1] > 0:
        return math.nan
    ranks = torch.arange(_FIRST_RANK, last + 1, dtype=torch.float64, device=eigenvalues.device)
    log_eigenvalues = eigenvalues[_FIRST_RANK - 1 : last].log()
    offsets = ranks.log() - (ranks.log() / ranks).sum() / (1 / ranks).sum()
    return -float((offsets / ranks * log_eigenvalues).sum() / (offsets.square() / ranks).sum())


def _spectrum(x: Any, least: int, centred: bool = True) -> Tensor | None:
    """Eigenvalues of the features' covariance, or second moments, up to a factor, largest first, `(min(n, d),)`.

    Those within rounding of zero are zero. None where the images do not differ, up to rounding.

    Raises:
        ShapeError: not (n, d), or fewer than `least` images.
        NonFiniteError: a value is NaN or infinite.
    """
    layer = as_layer(x, "x")
    n, width = layer.values.shape
    if n < least:
        raise ShapeError("x", f"has {n} images (need {least} or more)", "pass more images")
    centring = find_centring(layer)
    if bool(centring.is_constant.all()):
        return None
    if centred:
        values = centring.apply(layer.values)
    else:
        values = layer.values.double()
        values = values * power_of_two_below_one(float(values.abs().max()))
    product = values @ values.T if n < width else values.T @ values  # the smaller of the two, of the same eigenvalues
    eigenvalues = torch.linalg.eigvalsh(product).flip(0)
    rounding = max(n, width) * torch.finfo(torch.float64).eps * eigenvalues[0]
    return torch.where(eigenvalues > rounding, eigenvalues, 0)
