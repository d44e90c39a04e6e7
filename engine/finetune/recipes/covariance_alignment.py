"""`covariance_alignment`: full fine-tuning with a penalty on embeddings whose covariance is no rotation of θ*'s.

Our own formulation, in the spirit of arXiv 2503.07399, which keeps representations alike up to an orthogonal map that
is learned along. With C and C* the covariances of the embeddings of one batch under the model and under the frozen θ*
(eval mode, the same augmented images), the penalty is `weight` · ‖Q C Qᵀ − C*‖² / ‖C*‖² (Frobenius). Q is orthogonal
for any value of its parameters: the Cayley transform (I + S)⁻¹ (I − S) of S = P − Pᵀ, P trained by the same optimiser
from zero, so that Q starts as the identity. One Q serves all batches: matching the spectrum of each is not enough.

Blind to a rotation of the embedding and to a translation, as linear CKA is, but not to its scale. A batch of one image
has no covariance and no penalty.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from engine.finetune.classifier import Classifier
from engine.finetune.recipes.recipe import Recipe, Teacher
from engine.finetune.settings import CovarianceAlignmentSettings
from engine.study import RunSpec


def make(spec: RunSpec, model: Classifier) -> Recipe:
    """See `recipes.make_recipe`."""
    return _CovarianceAlignment(spec, model)


class _CovarianceAlignment(Recipe):
    def __init__(self, spec: RunSpec, model: Classifier) -> None:
        super().__init__(spec, model)
        self._classifier, self._teacher = model, Teacher(model.backbone)
        self._weight = CovarianceAlignmentSettings(**spec.settings).weight
        self._map = OrthogonalMap(model.head.in_features).to(model.head.weight.device)
        self.extra = self._map

    def forward(self, batch: Tensor) -> tuple[Tensor, Any]:
        embedding = self._classifier.backbone(batch)
        return self._classifier.head(embedding), (embedding, self._teacher.embedding(batch))

    def penalty(self, kept: Any) -> Tensor | None:
        embedding, target = (each.float() for each in kept)
        if len(embedding) < 2:
            return None
        return self._weight * misalignment(covariance(embedding), covariance(target), self._map())


class OrthogonalMap(nn.Module):
    """A trained rotation of `n_features` dimensions, the identity at first; orthogonal up to rounding at any step."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.generator = nn.Parameter(torch.zeros(n_features, n_features))

    def forward(self) -> Tensor:
        """The matrix, `(d, d)`."""
        skew = self.generator - self.generator.T
        one = torch.eye(len(skew), device=skew.device)
        found: Tensor = torch.linalg.solve(one + skew, one - skew)
        return found


def covariance(x: Tensor) -> Tensor:
    """The covariance of the columns of `(n, d)`, `(d, d)`, with n − 1 in the denominator; n ≥ 2."""
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)


def misalignment(found: Tensor, target: Tensor, rotation: Tensor) -> Tensor:
    """‖Q C Qᵀ − C*‖² / ‖C*‖²; 0 where `target` is zero: there is nothing to align with."""
    size = target.square().sum()
    distance = (rotation @ found @ rotation.T - target).square().sum()
    return distance / size if size > 0 else distance * 0
