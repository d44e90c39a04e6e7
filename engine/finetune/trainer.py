"""Trains any model on any batches for one epoch at a time; knows nothing of backbones, features or files.

The random state of an epoch comes from (seed, epoch) alone, so a run that resumes is the run that was not interrupted.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from engine.data.prefetch import Prefetched
from engine.errors import StudyError, TrainingError
from engine.files import digest
from engine.finetune.checkpoints import optimiser_tensors, restore_optimiser
from engine.finetune.objective import Objective
from engine.finetune.optimiser import Depths, Optimiser
from engine.study import RunSpec

StepReport = Callable[[int, int, int, float, float], None]
"""step (from 1), steps of the epoch, images of the epoch so far, loss of the step, seconds waited for images so far"""


class Batches(Protocol):
    """What the model is trained on, in two stages."""

    def gather(self, rows: np.ndarray) -> Tensor:
        """Rows of the training split, read ahead in a thread of its own."""

    def prepare(self, gathered: Tensor, generator: torch.Generator) -> Tensor:
        """What the model takes, on its device; only this stage may draw random numbers."""


class Trainer:
    """The task's loss, AdamW, warm-up and cosine decay, gradients clipped by norm."""

    def __init__(
        self,
        spec: RunSpec,
        model: nn.Module,
        objective: Objective,
        batches: Batches,
        *,
        learning_rate: float,
        depths: Depths,
        precision: str,
    ) -> None:
        self._spec, self._model, self._batches, self._precision = spec, model, batches, precision
        self._device = next(model.parameters()).device
        self._objective = objective
        self._ends = _ends(len(objective), spec.finetune.batch_size, _normalises_batches(model))
        self._n_steps = len(self._ends)
        self._optimiser = Optimiser(model, learning_rate, spec.finetune, depths, self._n_steps, spec.epochs)

    def train_epoch(self, epoch: int, report: StepReport) -> float:
        """Trains epoch 1, 2, …

        Returns:
            The mean loss over the images as they were trained on, in nats.
        Raises:
            TrainingError: the loss is not finite; the weights of this epoch are not to be kept.
        """
        generator = generator_of(self._spec.seed, "epoch", epoch)
        # Dropout and stochastic depth draw from the global state.
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        order = self._objective.order(generator)
        parts = [np.sort(part) for part in np.split(order, self._ends[:-1])]
        gathered = Prefetched(self._batches.gather, parts)
        self._model.train()
        total, n_seen = 0.0, 0
        for step, (rows, part) in enumerate(zip(parts, gathered, strict=True)):
            batch = self._batches.prepare(part, generator)
            with self._autocast():
                logits = self._model(batch)
            loss = self._objective.loss(logits.float(), rows)
            value = float(loss.detach())
            self._check(value, epoch, step)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._spec.finetune.gradient_clip)
            self._optimiser.step((epoch - 1) * self._n_steps + step)
            total, n_seen = total + value * len(rows), n_seen + len(rows)
            report(step + 1, self._n_steps, n_seen, value, gathered.waited_s)
        return total / n_seen

    def state(self) -> dict[str, Tensor]:
        """What resuming needs: weights, buffers and the optimiser's state, by name."""
        model = {f"model.{name}": value for name, value in self._model.state_dict().items()}
        return model | optimiser_tensors(self._optimiser.adamw)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        prefix = "model."
        self._model.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        restore_optimiser(self._optimiser.adamw, tensors)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self._precision == "bfloat16":
            return torch.autocast(self._device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def _check(self, loss: float, epoch: int, step: int) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"epoch {epoch}, step {step + 1}",
                f"the loss is {loss}; the last good epoch is {epoch - 1}",
                f"lower finetune.learning_rate.{self._spec.method} in the study file and start it in a new folder",
            )


def _normalises_batches(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def _ends(n: int, batch_size: int, normalises_batches: bool) -> list[int]:
    """Where the batches of an epoch end. Batch normalisation cannot do with one image: it joins the batch before.

    Raises:
        StudyError: every batch would be of one image.
    """
    ends = [*range(batch_size, n, batch_size), n]
    if normalises_batches and min(n, batch_size) == 1:
        problem = "the backbone normalises each batch, which takes two images at least"
        raise StudyError(f"finetune.batch_size = {batch_size}, {n} training images", problem, "raise what is 1")
    if normalises_batches and len(ends) > 1 and ends[-1] - ends[-2] == 1:
        del ends[-2]
    return ends


def generator_of(seed: int, what: str, number: int = 0) -> torch.Generator:
    """A random state of its own for each use of a seed, on the CPU, so that every device draws the same numbers."""
    return torch.Generator().manual_seed(int(digest([seed, what, number])[:15], 16))


def draw_head(head: nn.Linear, seed: int) -> None:
    """Draws a linear head: truncated normal weights of sd 0.02, biases zero, as timm does."""
    with torch.no_grad():
        nn.init.trunc_normal_(head.weight, std=0.02, generator=generator_of(seed, "head"))
        head.bias.zero_()
