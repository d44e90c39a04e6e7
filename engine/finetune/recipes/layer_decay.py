"""`layer_decay`: full fine-tuning whose learning rate falls from block to block towards the input.

The rate of block i of L is `decay ** (L − i)` times that of the head: early features, which transfer, move least.
Source: Howard & Ruder 2018 (discriminative fine-tuning); as used for vision transformers by Bao et al. 2022 (BEiT).
"""

from __future__ import annotations

from dataclasses import replace

from engine.finetune.classifier import Classifier
from engine.finetune.recipes.recipe import Recipe
from engine.finetune.settings import LayerDecaySettings
from engine.study import FinetuneSection, RunSpec


def make(spec: RunSpec, model: Classifier) -> Recipe:
    """See `recipes.make_recipe`."""
    return _LayerDecay(spec, model)


class _LayerDecay(Recipe):
    def settings(self) -> FinetuneSection:
        return replace(self.spec.finetune, layer_decay=LayerDecaySettings(**self.spec.settings).decay)
