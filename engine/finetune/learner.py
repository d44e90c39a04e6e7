"""The two ways in which a classifier learns: on images (the backbone is trained) or on cached features (it is frozen).

Both do the same things for `run.py`: train an epoch, say what they make of the images, give and take back their state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from engine.activations.extract import extract, standardised
from engine.activations.store import Activations
from engine.backbones import initialise
from engine.backbones.backbone import Backbone, BackboneInfo
from engine.data.pixels import PixelCache, Pixels
from engine.errors import DamagedError
from engine.finetune.augment import Augmentation, augmented
from engine.finetune.checkpoints import load_checked
from engine.finetune.inputs import Inputs
from engine.finetune.methods import METHODS
from engine.finetune.objective import Objective
from engine.finetune.optimiser import Depths
from engine.finetune.reference import Reference
from engine.finetune.trainer import Trainer, draw_head
from engine.runs.record import remake_run
from engine.study import FinetuneSection, RunSpec


@dataclass(frozen=True)
class Observation:
    """What a model makes of the images after an epoch; logits are `(n, n_classes)`.

    `probes` are the activations that are compared with those of θ*, as stored, by domain: "target", and "origin" where
    the study compares origin images.
    """

    val_logits: Tensor
    test_logits: Tensor
    probes: Mapping[str, Activations]


class Learner(Protocol):
    """A classifier that learns epoch by epoch."""

    trainer: Trainer

    def train_loss(self) -> float:
        """The loss on the training images as they are, in nats: what epoch 0 shows."""

    def observe(self) -> Observation:
        """Looks at the validation and test images in eval mode."""

    def origin_embedding(self) -> np.ndarray | None:
        """`(n, d)` of the origin images under the weights as they are now; None where the study has no origin set."""

    def weights(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""


class Classifier(nn.Module):
    """A backbone and a linear head on its embedding."""

    def __init__(self, backbone: Backbone, head: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(n, n_classes)` of normalised images `(n, 3, s, s)`."""
        logits: Tensor = self.head(self.backbone(x))
        return logits


def make_learner(spec: RunSpec, backbone: Backbone, reference: Reference, inputs: Inputs, precision: str) -> Learner:
    """The learner of a method, ready for its first epoch, on the device of `backbone`."""
    if METHODS[spec.method].trains_backbone:
        return ImageLearner(spec, backbone, reference, inputs, precision)
    return FeatureLearner(spec, reference, inputs, next(backbone.parameters()).device)


class ImageLearner:
    """Trains backbone and head on augmented images: `full` and `scratch`."""

    def __init__(self, spec: RunSpec, backbone: Backbone, reference: Reference, inputs: Inputs, precision: str) -> None:
        self._inputs = inputs
        if not METHODS[spec.method].starts_pretrained:
            initialise(backbone, spec.seed)
        backbone.requires_grad_(True)
        device, info = next(backbone.parameters()).device, backbone.info
        head = nn.Linear(reference.probe.embedding.shape[1], inputs.n_classes)
        draw_head(head, spec.seed)
        self._model = Classifier(backbone, head).to(device)
        self._objective = _objective(spec, inputs)
        self.trainer = Trainer(
            spec,
            self._model,
            self._objective,
            _ImageBatches(inputs.splits["train"].pixels, info, spec.finetune, device),
            learning_rate=learning_rate(spec),
            depths=_depths(backbone),
            precision=precision,
        )

    def train_loss(self) -> float:
        """See `Learner`."""
        logits = _logits(self._model.head, self._embedding(self._inputs.splits["train"]))
        return float(self._objective.loss(logits.double()))

    def observe(self) -> Observation:
        """See `Learner`."""
        test = extract(self._model.backbone, self._inputs.splits["test"], layer_rows=self._inputs.probe_rows)
        val_embedding = self._embedding(self._inputs.splits["val"])
        head = self._model.head
        probes = {"target": self._inputs.probe_activations(test)}
        origin = self._inputs.origin_probe
        if origin:
            probes["origin"] = extract(self._model.backbone, origin, layer_rows=np.arange(len(origin.items)))
        return Observation(_logits(head, val_embedding), _logits(head, test.embedding), probes)

    def origin_embedding(self) -> np.ndarray | None:
        """See `Learner`."""
        return self._embedding(self._inputs.origin) if self._inputs.origin else None

    def weights(self) -> dict[str, Tensor]:
        """See `Learner`."""
        return dict(self._model.state_dict())

    def _embedding(self, cache: PixelCache) -> np.ndarray:
        return extract(self._model.backbone, cache).embedding


class FeatureLearner:
    """Trains a linear head on the features of the frozen backbone, extracted once for all runs: `linear`."""

    def __init__(self, spec: RunSpec, reference: Reference, inputs: Inputs, device: torch.device) -> None:
        self._inputs, self._reference = inputs, reference
        features = torch.from_numpy(reference.embeddings["train"]).to(device)
        self._head = nn.Linear(features.shape[1], inputs.n_classes)
        draw_head(self._head, spec.seed)
        self._head.to(device)

        self._objective = _objective(spec, inputs)
        self.trainer = Trainer(
            spec,
            self._head,
            self._objective,
            _FeatureBatches(features),
            learning_rate=learning_rate(spec),
            depths=Depths(0),
            precision="float32",
        )

    def train_loss(self) -> float:
        """See `Learner`."""
        return float(self._objective.loss(_logits(self._head, self._reference.embeddings["train"]).double()))

    def observe(self) -> Observation:
        """See `Learner`."""
        embeddings = self._reference.embeddings
        val, test = _logits(self._head, embeddings["val"]), _logits(self._head, embeddings["test"])
        return Observation(val, test, self._reference.probes)

    def origin_embedding(self) -> np.ndarray | None:
        """See `Learner`."""
        return self._reference.origin_embedding

    def weights(self) -> dict[str, Tensor]:
        """Only the head: the backbone is the pre-trained one, named by its digest in `run.json`."""
        return {f"head.{name}": value for name, value in self._head.state_dict().items()}


def restore_backbone(backbone: Backbone, path: Path) -> None:
    """Puts the weights of a trained run's checkpoint into a backbone of the same architecture; the head is left out.

    Raises:
        DamagedError: not a checkpoint of simtui's, changed since it was written, or of another backbone.
    """
    _, tensors = load_checked(path)
    prefix = "backbone."  # as `Classifier` names it
    found = {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}
    try:
        backbone.load_state_dict(found)
    except RuntimeError as error:
        problem = f"does not hold the weights of {backbone.info.name}"
        raise DamagedError(str(path), problem, remake_run(path.parent.parent)) from error


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


def learning_rate(spec: RunSpec) -> float:
    """The peak learning rate: the study's for this method, else the method's own."""
    asked = {str(method): rate for method, rate in spec.finetune.learning_rate.items()}
    return asked.get(spec.method, METHODS[spec.method].learning_rate)


@torch.inference_mode()
def _logits(head: nn.Linear, embedding: np.ndarray) -> Tensor:
    device = head.weight.device
    return torch.cat([head(part.to(device)).cpu() for part in torch.from_numpy(embedding).split(8192)])


class _ImageBatches:
    """Augmented images from the pixel cache."""

    def __init__(self, pixels: Pixels, info: BackboneInfo, settings: FinetuneSection, device: torch.device) -> None:
        self._pixels, self._info, self._device = pixels, info, device
        self._augmentation = Augmentation(info.input_size, settings.flips, settings.rotation, settings.colour)

    def gather(self, rows: np.ndarray) -> Tensor:
        """See `Batches`."""
        batch = torch.from_numpy(self._pixels[rows])
        return batch.pin_memory() if self._device.type == "cuda" else batch

    def prepare(self, gathered: Tensor, generator: torch.Generator) -> Tensor:
        """See `Batches`."""
        pixels = gathered.to(self._device, non_blocking=True)
        return standardised(augmented(pixels, self._augmentation, generator), self._info)


class _FeatureBatches:
    """Features that lie on the device already."""

    def __init__(self, features: Tensor) -> None:
        self._features = features

    def gather(self, rows: np.ndarray) -> Tensor:
        """See `Batches`."""
        return torch.from_numpy(rows)

    def prepare(self, gathered: Tensor, generator: torch.Generator) -> Tensor:
        """See `Batches`."""
        return self._features[gathered.to(self._features.device)]


def _objective(spec: RunSpec, inputs: Inputs) -> Objective:
    settings = spec.finetune
    return Objective(
        inputs.manifest.task,
        inputs.labels("train"),
        inputs.n_classes,
        class_weights=settings.class_weights,
        sampling=settings.sampling,
    )
