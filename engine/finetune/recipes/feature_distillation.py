"""`feature_distillation`: full fine-tuning with a penalty on the distance from θ*'s embeddings of the same images.

The penalty is `weight` · mean over the batch of ‖f − f*‖² / mean of ‖f*‖², f the embedding that the head sits on and f*
that of the frozen θ*, in eval mode, on the same augmented images. Divided by the size of f*, so that one weight means
the same for every backbone; not invariant to rotation: a rotated embedding is a distant one.
Source: Mukhoti et al. 2024 (LDIFS: distance in feature space), on the last features; Hinton et al. 2015 (distillation).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from engine.finetune.classifier import Classifier
from engine.finetune.recipes.recipe import Recipe, Teacher
from engine.finetune.settings import FeatureDistillationSettings
from engine.study import RunSpec


def make(spec: RunSpec, model: Classifier) -> Recipe:
    """See `recipes.make_recipe`."""
    return _FeatureDistillation(spec, model)


class _FeatureDistillation(Recipe):
    def __init__(self, spec: RunSpec, model: Classifier) -> None:
        super().__init__(spec, model)
        self._classifier, self._teacher = model, Teacher(model.backbone)
        self._weight = FeatureDistillationSettings(**spec.settings).weight

    def forward(self, batch: Tensor) -> tuple[Tensor, Any]:
        embedding = self._classifier.backbone(batch)
        return self._classifier.head(embedding), (embedding, self._teacher.embedding(batch))

    def penalty(self, kept: Any) -> Tensor:
        embedding, target = (each.float() for each in kept)
        return self._weight * relative_distance(embedding, target)


def relative_distance(x: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of the rows of two `(n, d)`, relative to the mean squared norm of those of `target`."""
    distance: Tensor = (x - target).square().sum(1).mean() / target.square().sum(1).mean()
    return distance
