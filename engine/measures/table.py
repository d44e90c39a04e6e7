"""The table of similarity measures, their labels and properties; imports no torch, so that screens can read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Invariance = Literal["orthogonal", "isotropic scaling", "translation", "invertible linear"]


@dataclass(frozen=True)
class Measure:
    """What a caller, a screen or an export needs to know of a similarity measure.

    Attributes:
        name: name in studies, exports and of the function in `engine.measures`.
        family: module of `engine.measures` that computes it, by `prepare`, `compare` and `undefined`.
        label: what a screen writes beside the number; names the estimator.
        short: as a column's title.
        range: lowest and highest value; higher is more alike.
        is_symmetric: whether (x, y) and (y, x) have the same value.
        invariances: maps of the features of either side alone that leave the value as it is.
        invariances_of_y: more such maps, of the second side only.
        min_n: fewest images for which it is defined.
        images_a_feature: n / d below which unrelated representations score well above 0; 0 where they never do.
        options: what its function takes beside x and y, with the default of each.
        can_be_resampled: whether `bootstrap_interval` can do without a decomposition a resample.
        needs_equal_widths: whether both sides must have the same number of features.
        reference: paper, equation, estimator.
    """

    name: str
    family: str
    label: str
    short: str
    reference: str
    invariances: frozenset[Invariance]
    invariances_of_y: frozenset[Invariance] = frozenset()
    range: tuple[float, float] = (0.0, 1.0)
    is_symmetric: bool = True
    min_n: int = 2
    images_a_feature: float = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    can_be_resampled: bool = False
    needs_equal_widths: bool = False

    @property
    def function(self) -> Callable[[Any, Any], Tensor]:
        """The function of two representations; loads torch."""
        function: Callable[[Any, Any], Tensor] = getattr(import_module(f"engine.measures.{self.family}"), self.name)
        return function

    def caution(self, n: int, d: int) -> str | None:
        """What to know before a value at `n` images and `d` features is believed; None where there is nothing."""
        if n >= self.images_a_feature * d:
            return None
        return f"{self.label} is inflated: n = {n} is not >> d = {d}"


_EUCLIDEAN: frozenset[Invariance] = frozenset({"orthogonal", "isotropic scaling", "translation"})
_AFFINE: frozenset[Invariance] = _EUCLIDEAN | {"invertible linear"}
_ROTATION_SCALE: frozenset[Invariance] = frozenset({"orthogonal", "isotropic scaling"})

MEASURES = {
    measure.name: measure
    for measure in (
        Measure(
            "linear_cka", "cka", "linear CKA (biased)", "CKA",
            "Kornblith et al. 2019, eq. 4, linear kernel, biased HSIC",
            _EUCLIDEAN, images_a_feature=10, can_be_resampled=True,
        ),
        Measure(
            "debiased_cka", "cka", "linear CKA (debiased)", "debiased CKA",
            "Kornblith et al. 2019, eq. 4, linear kernel, with the unbiased HSIC of Song et al. 2012, eq. 5",
            _EUCLIDEAN, range=(-1.0, 1.0), min_n=4, can_be_resampled=True,
        ),
        Measure(
            "minibatch_cka", "minibatch", "minibatch CKA (debiased)", "minibatch CKA",
            "Nguyen et al. 2021: unbiased HSICs averaged over batches, then the ratio",
            _EUCLIDEAN, range=(-1.0, 1.0), min_n=4, options={"batch_size": 256, "seed": 0},
        ),
        Measure(
            "rbf_cka", "rbf", "RBF CKA (biased)", "RBF CKA",
            "Kornblith et al. 2019, eq. 4, RBF kernel, bandwidth a share of the median distance, biased HSIC",
            _EUCLIDEAN, images_a_feature=10, options={"threshold": 0.5}, can_be_resampled=True,
        ),
        Measure(
            "mean_cca", "canonical", "mean CCA", "CCA",
            "Raghu et al. 2017; Kornblith et al. 2019, table 1: mean canonical correlation",
            _AFFINE, images_a_feature=100, min_n=3,
        ),
        Measure(
            "mean_squared_cca", "canonical", "mean squared CCA", "CCA²",
            "Kornblith et al. 2019, table 1: mean squared canonical correlation, R²_CCA",
            _AFFINE, images_a_feature=10, min_n=3,
        ),
        Measure(
            "svcca", "canonical", "SVCCA (99 %)", "SVCCA",
            "Raghu et al. 2017: mean canonical correlation of the components with 99 % of the variance",
            _EUCLIDEAN, images_a_feature=100, min_n=3, options={"variance": 0.99},
        ),
        Measure(
            "pwcca", "canonical", "PWCCA (pre-trained side)", "PWCCA",
            "Morcos et al. 2018: canonical correlations weighted by what they account for in θ*",
            frozenset({"isotropic scaling", "translation"}), frozenset({"orthogonal", "invertible linear"}),
            is_symmetric=False, images_a_feature=100, min_n=3,
        ),
        Measure(
            "linear_regression", "canonical", "linear regression R²", "regression R²",
            "Kornblith et al. 2019, table 1: share of the variance of θ* that a linear map of θ explains",
            _EUCLIDEAN, frozenset({"invertible linear"}), is_symmetric=False, images_a_feature=10, min_n=3,
        ),
        Measure(
            "procrustes", "alignment", "Procrustes similarity", "Procrustes",
            "Williams et al. 2021; Ding et al. 2021: nuclear norm of XᵀY over |X| |Y|",
            _EUCLIDEAN, images_a_feature=100,
        ),
        Measure(
            "row_cosine", "alignment", "mean row cosine", "cosine",
            "mean over the images of cos(x_i, y_i), features matched one by one",
            frozenset({"isotropic scaling"}), range=(-1.0, 1.0), can_be_resampled=True, needs_equal_widths=True,
        ),
        Measure(
            "rsa", "dissimilarity", "RSA (Spearman)", "RSA",
            "Kriegeskorte et al. 2008: rank correlation of the dissimilarities, 1 - Pearson, of all pairs of images",
            frozenset({"isotropic scaling"}), range=(-1.0, 1.0), min_n=3, options={"correlation": "spearman"},
            can_be_resampled=True,
        ),
        Measure(
            "mutual_knn", "neighbours", "k-NN overlap (k = 10)", "k-NN overlap",
            "Huh et al. 2024: mean share of common neighbours by cosine",
            _ROTATION_SCALE, min_n=3, options={"k": 10}, can_be_resampled=True,
        ),
        Measure(
            "mutual_knn_jaccard", "neighbours", "k-NN Jaccard (k = 10)", "k-NN Jaccard",
            "Klabunde et al. 2023: mean Jaccard index of the neighbourhoods by cosine",
            _ROTATION_SCALE, min_n=3, options={"k": 10}, can_be_resampled=True,
        ),
    )
}  # fmt: skip
