"""What a classifier makes of the images after an epoch; knows nothing of how it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from engine.activations.extract import Portion, extract
from engine.activations.store import Activations
from engine.data.pixels import PixelCache
from engine.finetune.classifier import Classifier
from engine.finetune.inputs import Inputs
from engine.finetune.objective import Objective
from engine.finetune.team import ALONE, Team
from engine.study import RunSpec


@dataclass(frozen=True)
class Observation:
    """What a model makes of the images after an epoch; logits are `(n, n_classes)`.

    `probes` are the activations that are compared with those of θ*, as stored, by domain: "target", and "origin" where
    the study compares origin images.
    """

    val_logits: Tensor
    test_logits: Tensor
    probes: Mapping[str, Activations]


def observe(model: Classifier, inputs: Inputs, team: Team = ALONE) -> Observation:
    """Looks at the validation and test images, and at the origin images that are compared, in eval mode.

    The processes of a team share the images, and all get all that was seen.
    """
    test = extract(model.backbone, inputs.splits["test"], layer_rows=inputs.probe_rows, portion=_portion(team))
    val_embedding = embedding_of(model, inputs.splits["val"], team)
    probes = {"target": inputs.probe_activations(test)}
    origin = inputs.origin_probe
    if origin:
        rows = np.arange(len(origin.items))
        probes["origin"] = extract(model.backbone, origin, layer_rows=rows, portion=_portion(team))
    return Observation(logits_of(model.head, val_embedding), logits_of(model.head, test.embedding), probes)


def train_loss(model: Classifier, inputs: Inputs, objective: Objective, team: Team = ALONE) -> float:
    """The loss of the task on the training images as they are, in nats."""
    logits = logits_of(model.head, embedding_of(model, inputs.splits["train"], team))
    return float(objective.loss(logits.double()))


def objective_of(spec: RunSpec, inputs: Inputs) -> Objective:
    """What a run minimises of the task, whatever its method adds."""
    settings = spec.finetune
    return Objective(
        inputs.manifest.task,
        inputs.labels("train"),
        inputs.n_classes,
        class_weights=settings.class_weights,
        sampling=settings.sampling,
    )


def origin_embedding(model: Classifier, inputs: Inputs, team: Team = ALONE) -> np.ndarray | None:
    """`(n, d)` of the origin images; None where the study has no origin set."""
    return embedding_of(model, inputs.origin, team) if inputs.origin else None


def embedding_of(model: Classifier, cache: PixelCache, team: Team = ALONE) -> np.ndarray:
    """`(n, d)` of the images of a cache."""
    return extract(model.backbone, cache, portion=_portion(team)).embedding


def _portion(team: Team) -> Portion:
    return Portion(team.rank, team.size, team.merged)


@torch.inference_mode()
def logits_of(head: nn.Linear, embedding: np.ndarray) -> Tensor:
    """`(n, n_classes)` of `(n, d)`, on the CPU."""
    device = head.weight.device
    return torch.cat([head(part.to(device)).cpu() for part in torch.from_numpy(embedding).split(8192)])
