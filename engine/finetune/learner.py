"""The ways in which a classifier learns: on images (the backbone is trained) or on cached features (it is frozen).

All do the same things for `run.py`: train an epoch, say what they make of the images, give and take back their state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from engine.activations.extract import standardised
from engine.backbones import initialise
from engine.backbones.backbone import Backbone, BackboneInfo
from engine.data.pixels import Pixels
from engine.errors import DamagedError
from engine.finetune.augment import Augmentation, augmented
from engine.finetune.checkpoints import load_checked
from engine.finetune.classifier import Classifier
from engine.finetune.inputs import Inputs
from engine.finetune.methods import method_of
from engine.finetune.observe import Observation, logits_of, objective_of, observe, origin_embedding, train_loss
from engine.finetune.optimiser import Depths
from engine.finetune.recipes import make_recipe
from engine.finetune.recipes.recipe import Recipe
from engine.finetune.reference import Reference
from engine.finetune.team import ALONE, Share, Team
from engine.finetune.trainer import StepReport, Trainer, draw_head
from engine.runs.record import remake_run
from engine.study import FinetuneSection, RunSpec, needs_run


class Learner(Protocol):
    """A classifier that changes epoch by epoch."""

    @property
    def backbone(self) -> Backbone:
        """The backbone as it is looked at, in eval mode or to be put into it."""

    def train_loss(self) -> float:
        """The loss of the task on the training images as they are, in nats: what epoch 0 shows."""

    def train_epoch(self, epoch: int, report: StepReport) -> dict[str, float]:
        """Trains epoch 1, 2, …; returns its figures, see `Trainer.train_epoch`."""

    def observe(self) -> Observation | None:
        """Looks at the validation and test images in eval mode; None where there is nothing to look at."""

    def origin_embedding(self) -> np.ndarray | None:
        """`(n, d)` of the origin images under the weights as they are now; None where the study has no origin set."""

    def weights(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""

    def state(self) -> dict[str, Tensor]:
        """What resuming needs, by name."""

    def restore(self, tensors: Mapping[str, Tensor], epoch: int) -> None:
        """Puts back what `state` gave after an epoch."""


def make_learner(
    spec: RunSpec,
    backbone: Backbone,
    reference: Reference,
    inputs: Inputs,
    precision: str,
    runs_path: Path,
    team: Team = ALONE,
) -> Learner:
    """The learner of a method, ready for its first epoch, on the device of `backbone`.

    Args:
        backbone: θ*, which the learner may change.
        runs_path: the folder of all runs, for what is made from another.
        team: of the processes that train a backbone together; in those that do not lead, each method of the learner is
            to be called when `Team.tell` says so.
    Raises:
        StudyError: the method cannot be used on this backbone, or the run that it needs is not done.
        MachineError: the method needs a library that is not installed.
    """
    method = method_of(spec.method)
    if needed := needs_run(spec):
        model = _classifier(spec, backbone, reference, inputs)
        made: Learner = import_module(method.module).make(spec, model, inputs, runs_path / needed)
        return made
    if method.trains_backbone:
        return ImageLearner(spec, backbone, reference, inputs, precision, team)
    return FeatureLearner(spec, backbone, reference, inputs)


class ImageLearner:
    """Trains backbone and head on augmented images, by the recipe of the method."""

    def __init__(
        self,
        spec: RunSpec,
        backbone: Backbone,
        reference: Reference,
        inputs: Inputs,
        precision: str,
        team: Team = ALONE,
    ) -> None:
        self._inputs, self._team = inputs, team
        if not method_of(spec.method).starts_pretrained:
            initialise(backbone, spec.seed)
        backbone.requires_grad_(True)
        device, info = next(backbone.parameters()).device, backbone.info
        model = _classifier(spec, backbone, reference, inputs)
        self._recipe = make_recipe(spec, model)
        self._objective = objective_of(spec, inputs)
        batches = _ImageBatches(inputs.splits["train"].pixels, info, spec.finetune, device)
        self._trainer = Trainer(
            spec, self._recipe, self._objective, batches, depths=_depths(backbone), precision=precision, team=team
        )

    @property
    def backbone(self) -> Backbone:
        """See `Learner`."""
        return self._seen.backbone

    def train_loss(self) -> float:
        """See `Learner`."""
        self._team.tell("train_loss", 0)
        return train_loss(self._seen, self._inputs, self._objective, self._team)

    def train_epoch(self, epoch: int, report: StepReport) -> dict[str, float]:
        """See `Learner`."""
        self._team.tell("train_epoch", epoch)
        return self._trainer.train_epoch(epoch, report)

    def observe(self) -> Observation:
        """See `Learner`."""
        self._team.tell("observe", 0)
        return observe(self._seen, self._inputs, self._team)

    def origin_embedding(self) -> np.ndarray | None:
        """See `Learner`."""
        self._team.tell("origin_embedding", 0)
        return origin_embedding(self._seen, self._inputs, self._team)

    def weights(self) -> dict[str, Tensor]:
        """See `Learner`."""
        return dict(self._seen.state_dict())

    def state(self) -> dict[str, Tensor]:
        """See `Learner`."""
        return self._trainer.state()

    def restore(self, tensors: Mapping[str, Tensor], epoch: int) -> None:
        """See `Learner`."""
        self._team.tell("restore", epoch)
        self._trainer.restore(tensors, epoch)

    @property
    def _seen(self) -> Classifier:
        seen: Classifier = self._recipe.looked_at()
        return seen


class FeatureLearner:
    """Trains a linear head on the features of the frozen backbone, extracted once for all runs: `linear`."""

    def __init__(self, spec: RunSpec, backbone: Backbone, reference: Reference, inputs: Inputs) -> None:
        self._inputs, self._reference, self.backbone = inputs, reference, backbone
        features = torch.from_numpy(reference.embeddings["train"]).to(next(backbone.parameters()).device)
        self._head = _head(spec, reference, inputs).to(features.device)
        self._objective = objective_of(spec, inputs)
        batches = _FeatureBatches(features)
        self._trainer = Trainer(
            spec, Recipe(spec, self._head), self._objective, batches, depths=Depths(0), precision="float32"
        )

    def train_loss(self) -> float:
        """See `Learner`."""
        return float(self._objective.loss(logits_of(self._head, self._reference.embeddings["train"]).double()))

    def train_epoch(self, epoch: int, report: StepReport) -> dict[str, float]:
        """See `Learner`."""
        return self._trainer.train_epoch(epoch, report)

    def observe(self) -> Observation:
        """See `Learner`."""
        embeddings = self._reference.embeddings
        logits = {split: logits_of(self._head, embeddings[split]) for split in ("val", "test")}
        return Observation(logits, self._reference.probes)

    def origin_embedding(self) -> np.ndarray | None:
        """See `Learner`."""
        return self._reference.origin_embedding

    def weights(self) -> dict[str, Tensor]:
        """Only the head: the backbone is the pre-trained one, named by its digest in `run.json`."""
        return {f"head.{name}": value for name, value in self._head.state_dict().items()}

    def state(self) -> dict[str, Tensor]:
        """See `Learner`."""
        return self._trainer.state()

    def restore(self, tensors: Mapping[str, Tensor], epoch: int) -> None:
        """See `Learner`."""
        self._trainer.restore(tensors, epoch)


def restore_backbone(backbone: Backbone, path: Path) -> None:
    """Puts the weights of a run's checkpoint into a backbone of the same architecture; the head is left out.

    Images are from then on normalised as the checkpoint says, where it says anything: an imported one may.

    Raises:
        DamagedError: not a checkpoint of simtui's, changed since it was written, or of another backbone.
    """
    facts, tensors = load_checked(path)
    prefix = "backbone."  # as `Classifier` names it
    found = {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}
    try:
        backbone.load_state_dict(found)
    except RuntimeError as error:
        problem = f"does not hold the weights of {backbone.info.name}"
        raise DamagedError(str(path), problem, remake_run(path.parent.parent)) from error
    if "normalisation" in facts:
        mean, std = json.loads(facts["normalisation"])
        backbone.info = replace(backbone.info, mean=tuple(mean), std=tuple(std))


def _depths(backbone: Backbone) -> Depths:
    """What lies how deep in a `Classifier`; what timm decays no weights of is asked of stages alone."""
    info = backbone.info
    if info.layer_kind == "blocks":
        return Depths(info.n_blocks)
    prefix = "backbone.model."  # as `Classifier` and `Backbone` name it
    own: Any = getattr(backbone.model, "no_weight_decay", tuple)
    return Depths(
        info.n_blocks, tuple(prefix + each for each in info.layers), frozenset(prefix + each for each in own())
    )


class _ImageBatches:
    """Augmented images from the pixel cache."""

    def __init__(self, pixels: Pixels, info: BackboneInfo, settings: FinetuneSection, device: torch.device) -> None:
        self._pixels, self._info, self._device = pixels, info, device
        self._augmentation = Augmentation(info.input_size, settings.flips, settings.rotation, settings.colour)

    def gather(self, rows: np.ndarray) -> Tensor:
        """See `Batches`."""
        batch = torch.from_numpy(self._pixels[rows])
        return batch.pin_memory() if self._device.type == "cuda" else batch

    def prepare(self, gathered: Tensor, generator: torch.Generator, share: Share) -> Tensor:
        """See `Batches`."""
        pixels = gathered.to(self._device, non_blocking=True)
        return standardised(augmented(pixels, self._augmentation, generator, share), self._info)


class _FeatureBatches:
    """Features that lie on the device already."""

    def __init__(self, features: Tensor) -> None:
        self._features = features

    def gather(self, rows: np.ndarray) -> Tensor:
        """See `Batches`."""
        return torch.from_numpy(rows)

    def prepare(self, gathered: Tensor, generator: torch.Generator, share: Share) -> Tensor:
        """See `Batches`."""
        return self._features[gathered.to(self._features.device)]


def _classifier(spec: RunSpec, backbone: Backbone, reference: Reference, inputs: Inputs) -> Classifier:
    return Classifier(backbone, _head(spec, reference, inputs)).to(next(backbone.parameters()).device)


def _head(spec: RunSpec, reference: Reference, inputs: Inputs) -> nn.Linear:
    head = nn.Linear(reference.probe.embedding.shape[1], inputs.n_classes)
    draw_head(head, spec.seed)
    return head
