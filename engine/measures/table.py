"""The table of similarity measures, their labels and properties; imports no torch, so that screens can read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
        family: module of `engine.measures` that computes it, by `all_pairs(xs, ys, names)`.
        label: what a screen writes beside the number; names the estimator.
        range: lowest and highest value; higher is more alike.
        symmetric: whether (x, y) and (y, x) have the same value.
        invariances: maps of the features of either side alone that leave the value as it is.
        min_n: fewest images for which it is defined.
        reference: paper, equation, estimator.
    """

    name: str
    family: str
    label: str
    range: tuple[float, float]
    symmetric: bool
    invariances: frozenset[Invariance]
    min_n: int
    reference: str

    @property
    def function(self) -> Callable[[Any, Any], Tensor]:
        """The function of two representations; loads torch."""
        function: Callable[[Any, Any], Tensor] = getattr(import_module(f"engine.measures.{self.family}"), self.name)
        return function


_CKA_INVARIANCES: frozenset[Invariance] = frozenset({"orthogonal", "isotropic scaling", "translation"})

MEASURES = {
    measure.name: measure
    for measure in (
        Measure(
            name="linear_cka",
            family="cka",
            label="linear CKA (biased)",
            range=(0.0, 1.0),
            symmetric=True,
            invariances=_CKA_INVARIANCES,
            min_n=2,
            reference="Kornblith et al. 2019, eq. 4, linear kernel, biased HSIC",
        ),
        Measure(
            name="debiased_cka",
            family="cka",
            label="linear CKA (debiased)",
            range=(-1.0, 1.0),
            symmetric=True,
            invariances=_CKA_INVARIANCES,
            min_n=4,
            reference="Kornblith et al. 2019, eq. 4, linear kernel, with the unbiased HSIC of Song et al. 2012, eq. 5",
        ),
    )
}
