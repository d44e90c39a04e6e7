"""Supervised pre-training: cross-entropy over the classes of the scenes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.backbones.bundled import INPUT_SIZE, WIDTH, build
from engine.data.synthetic.scenes import CLASSES
from pretraining.augment import jitter, random_crops
from pretraining.recipe import Batch, Settings


class Supervised:
    """The backbone under a linear head, as timm's own training does it. The head is not saved."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.backbone = build("supervised")
        self.trained: nn.Module = nn.Sequential(self.backbone, nn.Linear(WIDTH, len(CLASSES)))

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        crops = jitter(random_crops(batch.images, INPUT_SIZE, (0.5, 1.0), generator), 0.6, generator)
        return classification_loss(self.trained(2 * crops - 1), batch.labels)

    def after_step(self, done: float) -> None:
        pass


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits `(n, classes)`, a tenth of the weight spread over all classes (Szegedy et al. 2016)."""
    return functional.cross_entropy(logits.float(), labels, label_smoothing=0.1)
