"""The table of quality metrics that a study can ask for; imports no torch, so that screens and studies can read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

Needs = Literal["probabilities", "origin", "layers"]


@dataclass(frozen=True)
class Metric:
    """What a study, a screen or an export needs to know of a quality metric.

    Attributes:
        name: name in studies and exports.
        needs: what it is computed from: `probabilities` of the test and validation images, the `origin` set, or the
            outputs of `layers` on the probe images (one value a layer and pooling).
        label: what a screen writes beside the number.
        function_name: of `engine.quality`.
        reference: paper, and what was decided where it leaves a choice.
    """

    name: str
    needs: Needs
    label: str
    function_name: str
    reference: str

    @property
    def function(self) -> Callable[..., float]:
        """The function itself; loads torch."""
        function: Callable[..., float] = getattr(import_module("engine.quality"), self.function_name)
        return function


QUALITY = {
    metric.name: metric
    for metric in (
        Metric("ece", "probabilities", "ECE", "expected_calibration_error",
               "expected calibration error, 15 bins of equal width, L1 norm; Guo et al. 2017"),
        Metric("brier", "probabilities", "Brier score", "brier_score",
               "squared error of the probabilities, summed over the classes, 0 to 2; Brier 1950"),
        Metric("knn", "origin", "origin k-NN", "knn_accuracy",
               "k-NN accuracy, cosine, k = 20, temperature 0.07; Caron et al. 2021"),
        Metric("effective_rank", "layers", "effective rank (RankMe)", "effective_rank",
               "exp of the entropy of the singular values, not centred; Garrido et al. 2023"),
        Metric("participation_ratio", "layers", "participation ratio", "participation_ratio",
               "(sum of the covariance's eigenvalues)² over the sum of their squares"),
        Metric("spectrum_alpha", "layers", "α of the eigenspectrum", "spectrum_alpha",
               "decay exponent of the covariance's eigenvalues; Agrawal et al. 2022 (α-ReQ)"),
        Metric("uniformity", "layers", "uniformity", "uniformity",
               "log of the mean Gaussian potential of pairs on the unit sphere; Wang, Isola 2020"),
    )
}  # fmt: skip
