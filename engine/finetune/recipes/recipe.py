"""What a method may change of plain training, hook by hook; plain training is what the hooks do as they stand here."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.backbones.backbone import Backbone
from engine.finetune.methods import method_of
from engine.study import FinetuneSection, RunSpec


@dataclass(frozen=True)
class Phase:
    """Epochs that share one optimiser and one schedule of the learning rate, which peaks at `learning_rate`."""

    n_epochs: int
    learning_rate: float


class Recipe:
    """Plain training of a model; a method overrides what it does otherwise.

    Attributes:
        model: what is trained.
        extra: parameters that are trained beside it and belong to no checkpoint.
    """

    def __init__(self, spec: RunSpec, model: nn.Module) -> None:
        self.spec, self.model = spec, model
        self.extra = nn.Module()

    def settings(self) -> FinetuneSection:
        """The study's settings as the optimiser is to have them."""
        return self.spec.finetune

    def phases(self) -> Sequence[Phase]:
        """How the epochs are divided, first to last."""
        return (Phase(self.spec.epochs, learning_rate(self.spec)),)

    def begin(self, epoch: int) -> None:
        """Before every epoch, and before one is gone on from: which parameters are trained, and in which mode."""
        self.model.train()

    def forward(self, batch: Tensor) -> tuple[Tensor, Any]:
        """Logits `(n, n_classes)` of a batch as the model takes it, and what `penalty` needs; under autocast.

        What `penalty` needs are tensors of one row an image, in lists and tuples, or None: where several devices share
        a batch, this is called with the rows of one, and `penalty` with those of all.
        """
        return self.model(batch), None

    def penalty(self, kept: Any) -> Tensor | None:
        """What is added to the loss of the task, a scalar in float32 or float64; not under autocast."""
        return None

    def after_step(self, n_done: int) -> None:
        """After every step of the optimiser; `n_done` of them have been made, this one among them."""

    def looked_at(self) -> Any:
        """The model that is evaluated, compared and kept in checkpoints: named and built as what is trained."""
        return self.model

    def state(self) -> dict[str, Tensor]:
        """What resuming needs beside the model, `extra` and the optimiser."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave."""


def learning_rate(spec: RunSpec) -> float:
    """The peak learning rate: the study's for this method, else the method's own; 0 where nothing is trained."""
    return spec.finetune.learning_rate.get(spec.method, method_of(spec.method).learning_rate)


class Teacher:
    """θ*: a copy of the backbone as it is now, in eval mode, that nothing trains."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = copy.deepcopy(backbone).requires_grad_(False).eval()

    @torch.no_grad()
    def embedding(self, batch: Tensor) -> Tensor:
        """`(n, d)` of the same images as the model sees them."""
        found: Tensor = self.backbone(batch)
        return found
