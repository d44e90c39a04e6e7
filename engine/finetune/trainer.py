"""Trains any model on any batches for one epoch at a time; knows nothing of backbones, features or files.

The random state of an epoch comes from (seed, epoch) alone, so a run that resumes is the run that was not interrupted.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import TrainingError
from engine.files import digest
from engine.finetune.checkpoints import optimiser_tensors, restore_optimiser
from engine.finetune.optimiser import Optimiser
from engine.study import RunSpec

StepReport = Callable[[int, int, int, float], None]
"""step (from 1), steps of the epoch, images of the epoch so far, loss of the step"""
BatchOf = Callable[[np.ndarray, torch.Generator], Tensor]
"""rows of the training split, random state -> what the model takes, on its device"""


class Trainer:
    """Cross-entropy, AdamW, warm-up and cosine decay, gradients clipped by norm."""

    def __init__(
        self,
        spec: RunSpec,
        model: nn.Module,
        labels: np.ndarray,
        batch_of: BatchOf,
        *,
        learning_rate: float,
        n_blocks: int,
        precision: str,
    ) -> None:
        self._spec, self._model, self._batch_of, self._precision = spec, model, batch_of, precision
        self._device = next(model.parameters()).device
        self._labels = torch.from_numpy(labels)
        self._n_steps = math.ceil(len(labels) / spec.finetune.batch_size)
        self._optimiser = Optimiser(model, learning_rate, spec.finetune, n_blocks, self._n_steps, spec.epochs)

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
        order = torch.randperm(len(self._labels), generator=generator).numpy()
        size = self._spec.finetune.batch_size
        self._model.train()
        total, n_seen = 0.0, 0
        for step in range(self._n_steps):
            rows = np.sort(order[step * size : (step + 1) * size])
            batch = self._batch_of(rows, generator)
            with self._autocast():
                loss = F.cross_entropy(self._model(batch).float(), self._labels[rows].to(self._device))
            value = float(loss.detach())
            self._check(value, epoch, step)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._spec.finetune.gradient_clip)
            self._optimiser.step((epoch - 1) * self._n_steps + step)
            total, n_seen = total + value * len(rows), n_seen + len(rows)
            report(step + 1, self._n_steps, n_seen, value)
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


def generator_of(seed: int, what: str, number: int = 0) -> torch.Generator:
    """A random state of its own for each use of a seed, on the CPU, so that every device draws the same numbers."""
    return torch.Generator().manual_seed(int(digest([seed, what, number])[:15], 16))


def draw_head(head: nn.Linear, seed: int) -> None:
    """Draws a linear head: truncated normal weights of sd 0.02, biases zero, as timm does."""
    with torch.no_grad():
        nn.init.trunc_normal_(head.weight, std=0.02, generator=generator_of(seed, "head"))
        head.bias.zero_()
