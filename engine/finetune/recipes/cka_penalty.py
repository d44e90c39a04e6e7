"""`cka_penalty`: full fine-tuning with 1 − CKA to θ* as a penalty, on chosen blocks.

The penalty is `weight` · mean over blocks and poolings of 1 − debiased linear CKA between a block's pooled outputs of
one batch and those of the frozen θ* (eval mode, the same augmented images). The debiased estimator, because the biased
one is near 1 for any two models where a batch has fewer images than features, and would say that nothing is to be done.
Computed in float64, whatever the precision of training. A batch of fewer than 4 images has no debiased CKA and no
penalty; a block that is constant over a batch, or holds its images all equally far apart, counts as unchanged there.
Source: `engine.measures.debiased_cka` for the estimator; CKA as a loss: Saha et al. 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engine.errors import StudyError
from engine.finetune.classifier import Classifier
from engine.finetune.recipes.recipe import Recipe, Teacher
from engine.finetune.settings import CkaPenaltySettings
from engine.measures.cka import Moments, ratio
from engine.measures.gram import Products
from engine.measures.table import MEASURES
from engine.study import RunSpec

_MIN_N = MEASURES["debiased_cka"].min_n


def make(spec: RunSpec, model: Classifier) -> Recipe:
    """See `recipes.make_recipe`.

    Raises:
        StudyError: a block that is asked for is not there.
    """
    return _CkaPenalty(spec, model)


class _CkaPenalty(Recipe):
    def __init__(self, spec: RunSpec, model: Classifier) -> None:
        super().__init__(spec, model)
        settings = CkaPenaltySettings(**spec.settings)
        self._classifier, self._teacher = model, Teacher(model.backbone)
        self._weight = settings.weight
        self._layers = _chosen(settings.layers, model.backbone.info.n_blocks, model.backbone.info.name)

    def forward(self, batch: Tensor) -> tuple[Tensor, Any]:
        outputs = self._classifier.backbone.forward_blocks(batch)
        with torch.no_grad():
            target = self._teacher.backbone.forward_blocks(batch)
        poolings = self._classifier.backbone.info.poolings
        pairs = [
            tuple([getattr(each, pooling)[i] for i in self._layers] for each in (outputs, target))
            for pooling in poolings
        ]
        return self._classifier.head(outputs.embedding), pairs

    def penalty(self, kept: Any) -> Tensor | None:
        if len(kept[0][0][0]) < _MIN_N:
            return None
        losses = torch.cat([1 - debiased_cka_of_layers(x, y) for x, y in kept])
        return self._weight * losses.nan_to_num(0.0).mean()


def debiased_cka_of_layers(x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
    """Debiased CKA of each layer of `x` with the same layer of `y`, with gradients; as `engine.measures.debiased_cka`.

    Args:
        x: L layers, each `(n, d_i)`, n ≥ 4.
        y: as many, of the same images.
    Returns:
        `(L,)` float64; NaN where it is undefined, and then without a gradient.
    """
    found = []
    for pair in zip(x, y, strict=True):
        grams, norms = zip(*map(_gram, pair), strict=True)
        plain = Products(*((a * b).sum().reshape(shape) for a, b, shape in _pairs(*grams)))
        q_products = Products(*((a * b).sum().reshape(shape) for a, b, shape in _pairs(*norms)))
        sums = (norms[0].sum().reshape(1), norms[1].sum().reshape(1))
        value = ratio(Moments(len(pair[0]), plain, q_products, sums), "debiased_cka").reshape(())
        found.append(value if torch.isfinite(value) else value.detach())
    return torch.stack(found)


def _gram(layer: Tensor) -> tuple[Tensor, Tensor]:
    """The Gram matrix of a layer that is centred and scaled to rows of mean squared norm one, and its diagonal."""
    values = layer.double()
    centred = values - values.mean(0)
    scale = centred.detach().square().sum(1).mean().sqrt()
    centred = centred / torch.where(scale > 0, scale, 1.0)
    gram = centred @ centred.T
    return gram, gram.diagonal()


def _pairs(a: Tensor, b: Tensor) -> tuple[tuple[Tensor, Tensor, tuple[int, ...]], ...]:
    return (a, a, (1,)), (a, b, (1, 1)), (b, b, (1,))


def _chosen(layers: str | Sequence[int], n_blocks: int, backbone: str) -> list[int]:
    if isinstance(layers, str):
        return list(range(n_blocks // 2 if layers == "last half" else 0, n_blocks))
    if max(layers) >= n_blocks:
        problem = f"{max(layers)} is not there: {backbone} has blocks 0 to {n_blocks - 1}"
        raise StudyError("method.cka_penalty.layers", problem, 'name others, or "last half"')
    return list(layers)
