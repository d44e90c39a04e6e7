"""Image-text pre-training: CLIP's contrastive loss between scenes and their captions (Radford et al. 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engine.backbones.bundled import INPUT_SIZE, build
from pretraining.augment import random_crops
from pretraining.captions import tokenise
from pretraining.recipe import Batch, Settings

MAX_LOGIT_SCALE = math.log(100)  # as CLIP bounds it


class ImageText:
    """open_clip's model and loss; colours are left alone, because the captions name them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.backbone = self.trained = build("image-text")
        from open_clip.loss import ClipLoss  # after build(), which makes open_clip importable

        self.contrast = ClipLoss()

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        crops = random_crops(batch.images, INPUT_SIZE, (0.7, 1.0), generator)
        images, texts, scale = self.trained(2 * crops - 1, tokenise(batch.captions))
        loss: Tensor = self.contrast(images.float(), texts.float(), scale.float())
        return loss

    def after_step(self, done: float) -> None:
        with torch.no_grad():
            self.trained.get_parameter("logit_scale").clamp_(max=MAX_LOGIT_SCALE)
