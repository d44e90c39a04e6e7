"""What a recipe is, and the training loop that all three share; knows nothing of how a loss is made."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pretraining.corpus import Corpus


@dataclass(frozen=True)
class Batch:
    """`images` `(n, 3, s, s)` float32 in [0, 1], `labels` `(n,)` int64 and one caption an image."""

    images: Tensor
    labels: Tensor
    captions: list[str]


@dataclass(frozen=True)
class Settings:
    """How long and how fast to train. The learning rate warms up over `warmup` of the steps, then falls as a cosine."""

    n_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.05
    warmup: float = 0.1
    max_gradient_norm: float = 1.0
    seed: int = 0


class Recipe(Protocol):
    """One paradigm of pre-training."""

    settings: Settings
    trained: nn.Module  # the optimiser moves its parameters
    backbone: nn.Module  # what is saved: `build(name)`

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The scalar to descend on a batch; random draws come from the generator."""

    def after_step(self, done: float) -> None:
        """Called after every step with the share of the training that is done, in (0, 1]."""


def train(recipe: Recipe, corpus: Corpus, report: Callable[[int, float, float], None] | None = None) -> None:
    """Trains a recipe on a corpus in random order, deterministic by seed on one machine and number of threads.

    Args:
        report: called after every step with steps done, loss and seconds since the start.
    """
    settings = recipe.settings
    generator = torch.Generator().manual_seed(settings.seed)
    optimiser = torch.optim.AdamW(_parameter_groups(recipe.trained, settings.weight_decay), betas=(0.9, 0.98))
    order = _endless_order(len(corpus.labels), settings.batch_size, generator)
    recipe.trained.train()
    start_s = time.monotonic()
    for step in range(settings.n_steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings, step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = recipe.loss(_batch(corpus, next(order)), generator)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"step {step}: loss is {loss.item()}")
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(recipe.trained.parameters(), settings.max_gradient_norm)
        optimiser.step()
        recipe.after_step((step + 1) / settings.n_steps)
        if report is not None:
            report(step + 1, loss.item(), time.monotonic() - start_s)


def learning_rate(settings: Settings, step: int) -> float:
    """The rate of a step: linear warm-up from one part of the peak, then half a cosine down to 1 % of it."""
    n_warmup = max(1, round(settings.warmup * settings.n_steps))
    if step < n_warmup:
        return settings.learning_rate * (step + 1) / n_warmup
    done = (step - n_warmup) / max(1, settings.n_steps - n_warmup)
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay for matrices only, as in all three papers."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _endless_order(n: int, batch_size: int, generator: torch.Generator):  # type: ignore[no-untyped-def]
    while True:
        for chosen in torch.randperm(n, generator=generator).split(batch_size):
            if len(chosen) == batch_size:
                yield chosen


def _batch(corpus: Corpus, chosen: Tensor) -> Batch:
    rows = chosen.numpy()
    images = torch.from_numpy(corpus.pixels[rows]).permute(0, 3, 1, 2).float().div_(255)
    return Batch(images.contiguous(), torch.from_numpy(corpus.labels[rows]), [corpus.captions[row] for row in rows])
