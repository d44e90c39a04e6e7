"""`l2_sp`: full fine-tuning with a penalty on the distance from the pre-trained weights.

The loss of the task is joined by α/2 · ‖w − w*‖² over all parameters of the backbone and β/2 · ‖v‖² over the weights
(not the bias) of the head, which has no pre-trained values. Both are in the loss and take the place of AdamW's own
weight decay, which is off: it would pull the backbone towards zero.
Source: Li, Grandvalet & Davoine 2018, eq. 2 (L2-SP).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engine.finetune.classifier import Classifier
from engine.finetune.recipes.recipe import Recipe
from engine.finetune.settings import L2SpSettings
from engine.study import FinetuneSection, RunSpec


def make(spec: RunSpec, model: Classifier) -> Recipe:
    """See `recipes.make_recipe`."""
    return _L2Sp(spec, model)


class _L2Sp(Recipe):
    def __init__(self, spec: RunSpec, model: Classifier) -> None:
        super().__init__(spec, model)
        self._weights = L2SpSettings(**spec.settings)
        self._head = model.head
        self._backbone = list(model.backbone.parameters())
        self._start = [each.detach().clone() for each in self._backbone]

    def settings(self) -> FinetuneSection:
        return replace(self.spec.finetune, weight_decay=0.0)

    def penalty(self, kept: Any) -> Tensor:
        pairs = zip(self._backbone, self._start, strict=True)
        moved = torch.stack([(now - start).square().sum() for now, start in pairs]).sum()
        return self._weights.alpha / 2 * moved + self._weights.beta / 2 * self._head.weight.square().sum()
