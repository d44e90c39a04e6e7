"""`ema`: full fine-tuning, looked at and kept through an exponential moving average of its weights.

After step n the average is moved by `1 − d` of its distance to the weights, d = min(decay, (1 + n) / (10 + n)): early
steps count for more, so that a short run is not left with its start. Training itself does not see the average.
Source: Polyak & Juditsky 1992 (averaging); TensorFlow's `ExponentialMovingAverage` (the rise of d).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from engine.finetune.classifier import Classifier
from engine.finetune.recipes.recipe import Recipe
from engine.finetune.settings import EmaSettings
from engine.study import RunSpec


def make(spec: RunSpec, model: Classifier) -> Recipe:
    """See `recipes.make_recipe`."""
    return _Ema(spec, model)


class _Ema(Recipe):
    def __init__(self, spec: RunSpec, model: Classifier) -> None:
        super().__init__(spec, model)
        self._decay = EmaSettings(**spec.settings).decay
        self._average = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def after_step(self, n_done: int) -> None:
        share = 1 - min(self._decay, (1 + n_done) / (10 + n_done))
        averages, values = self._average.state_dict(), self.model.state_dict()
        for name, average in averages.items():
            if average.is_floating_point():
                average.lerp_(values[name], share)
            else:
                average.copy_(values[name])

    def looked_at(self) -> Classifier:
        return self._average

    def state(self) -> dict[str, Tensor]:
        return dict(self._average.state_dict())

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self._average.load_state_dict(dict(tensors))
