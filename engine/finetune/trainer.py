"""Trains any model on any batches for one epoch at a time; knows nothing of backbones, features or files.

The random state of an epoch comes from (seed, epoch) alone, so a run that resumes is the run that was not interrupted.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from itertools import accumulate
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
from engine.finetune.recipes.recipe import Phase, Recipe
from engine.finetune.shared_batch import SharedBatch
from engine.finetune.team import ALONE, Share, Team
from engine.study import RunSpec

StepReport = Callable[[int, int, int, float, float], None]
"""step (from 1), steps of the epoch, images of the epoch so far, loss of the step, seconds waited for images so far"""


class Batches(Protocol):
    """What the model is trained on, in two stages."""

    def gather(self, rows: np.ndarray) -> Tensor:
        """Rows of the training split, read ahead in a thread of its own."""

    def prepare(self, gathered: Tensor, generator: torch.Generator, share: Share) -> Tensor:
        """What the model takes, on its device; only this stage may draw random numbers, and does for the whole batch.

        Args:
            share: which rows of the batch were gathered.
        """


class Trainer:
    """The task's loss and the recipe's penalty, AdamW, warm-up and cosine decay, gradients clipped by norm.

    The processes of a team make the same steps, each computing its share of the batch.
    """

    def __init__(
        self,
        spec: RunSpec,
        recipe: Recipe,
        objective: Objective,
        batches: Batches,
        *,
        depths: Depths,
        precision: str,
        team: Team = ALONE,
    ) -> None:
        self._spec, self._recipe, self._batches, self._precision = spec, recipe, batches, precision
        self._model, self._extra = recipe.model, recipe.extra
        self._device = next(self._model.parameters()).device
        self._objective, self._depths, self._team = objective, depths, team
        self._ends = _ends(len(objective), spec.finetune.batch_size, _normalises_batches(self._model))
        self._n_steps = len(self._ends)
        phases = recipe.phases()
        self._phases = list(zip(accumulate((each.n_epochs for each in phases), initial=0), phases, strict=False))
        self._recipe.begin(1)
        self._n_before, self._optimiser = self._make_optimiser(1)
        self._model.eval()

    def train_epoch(self, epoch: int, report: StepReport) -> dict[str, float]:
        """Trains epoch 1, 2, …

        Returns:
            `train_loss`: the mean loss of the task over the images as they were trained on, in nats; `train_penalty`:
            the mean of what the method adds to it, where it adds something.
        Raises:
            TrainingError: the loss is not finite; the weights of this epoch are not to be kept.
            ProcessLostError: another process of the team has ended.
        """
        generator = generator_of(self._spec.seed, "epoch", epoch)
        # Dropout and stochastic depth draw from the global state.
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        order = self._objective.order(generator)
        parts = [np.sort(part) for part in np.split(order, self._ends[:-1])]
        shares = [self._team.share(len(part)) for part in parts]
        gathered = Prefetched(
            self._batches.gather, [part[share.rows] for part, share in zip(parts, shares, strict=True)]
        )
        self._enter(epoch)
        parameters = [*self._model.parameters(), *self._extra.parameters()]
        total, n_seen, penalties = 0.0, 0, []
        for step, (rows, share, part) in enumerate(zip(parts, shares, gathered, strict=True)):
            batch = self._batches.prepare(part, generator, share)
            with self._autocast(), self._sharing(share):
                outputs = self._recipe.forward(batch)
            logits, kept = self._team.whole(share, outputs)
            loss = self._objective.loss(logits.float(), rows)
            value = float(loss.detach())
            self._check(value, "loss", epoch, step)
            penalty = self._recipe.penalty(kept)
            if penalty is not None:
                penalties.append(float(penalty.detach()) * len(rows))
                self._check(penalties[-1], "penalty", epoch, step)
                loss = loss + penalty.to(loss)
            self._team.backward(loss, parameters)
            torch.nn.utils.clip_grad_norm_(parameters, self._spec.finetune.gradient_clip)
            self._optimiser.step((epoch - 1 - self._n_before) * self._n_steps + step)
            self._recipe.after_step((epoch - 1) * self._n_steps + step + 1)
            total, n_seen = total + value * len(rows), n_seen + len(rows)
            report(step + 1, self._n_steps, n_seen, value, gathered.waited_s)
        self._team.check_alike(self._model, epoch)
        losses = {"train_loss": total / n_seen}
        return losses | {"train_penalty": sum(penalties) / n_seen} if penalties else losses

    def state(self) -> dict[str, Tensor]:
        """What resuming needs: weights, buffers, the optimiser's state and the recipe's, by name."""
        parts = {"model": self._model.state_dict(), "extra": self._extra.state_dict(), "recipe": self._recipe.state()}
        named = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
        return named | optimiser_tensors(self._optimiser.adamw)

    def restore(self, tensors: Mapping[str, Tensor], epoch: int) -> None:
        """Puts back what `state` gave after an epoch."""
        self._enter(max(epoch, 1))
        self._model.load_state_dict(_part(tensors, "model."))
        self._extra.load_state_dict(_part(tensors, "extra."))
        self._recipe.restore(_part(tensors, "recipe."))
        restore_optimiser(self._optimiser.adamw, tensors)

    def _enter(self, epoch: int) -> None:
        """What the recipe does before an epoch; a new optimiser where a phase begins."""
        self._recipe.begin(epoch)
        if self._phase_of(epoch)[0] != self._n_before:
            self._n_before, self._optimiser = self._make_optimiser(epoch)

    def _phase_of(self, epoch: int) -> tuple[int, Phase]:
        """How many epochs come before the phase of an epoch, and the phase."""
        return next(each for each in reversed(self._phases) if each[0] < epoch)

    def _make_optimiser(self, epoch: int) -> tuple[int, Optimiser]:
        n_before, phase = self._phase_of(epoch)
        made = Optimiser(
            self._model,
            self._extra,
            phase.learning_rate,
            self._recipe.settings(),
            self._depths,
            self._n_steps,
            phase.n_epochs,
        )
        return n_before, made

    def _sharing(self, share: Share) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext() if self._team.size == 1 else SharedBatch(share)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self._precision == "bfloat16":
            return torch.autocast(self._device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def _check(self, loss: float, what: str, epoch: int, step: int) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"epoch {epoch}, step {step + 1}",
                f"the {what} is {loss}; the last good epoch is {epoch - 1}",
                f"lower finetune.learning_rate.{self._spec.method} in the study file and start it in a new folder",
            )


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


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
