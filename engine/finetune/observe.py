"""What a classifier makes of the images after an epoch; knows nothing of how it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from engine.activations.extract import Portion, Progress, extract
from engine.activations.store import Activations
from engine.backbones.backbone import Backbone
from engine.data.pixels import PixelCache
from engine.finetune.classifier import Classifier
from engine.finetune.inputs import Inputs
from engine.finetune.objective import Objective
from engine.finetune.team import ALONE, Team
from engine.study import RunSpec


@dataclass(frozen=True)
class Observation:
    """What a model makes of the images after an epoch.

    `logits` are `(n, n_classes)` by split: "val" and "test", those of them that are looked at and have any. `probes`
    are the activations that are compared with those of θ*, as stored, by domain: "target", and "origin" where the study
    compares origin images.
    """

    logits: Mapping[str, Tensor]
    probes: Mapping[str, Activations]


def observe(model: Classifier, inputs: Inputs, team: Team = ALONE) -> Observation:
    """Looks at the validation and test images, and at the origin images that are compared, in eval mode.

    The processes of a team share the images, and all get all that was seen.
    """
    test, probes = look(model.backbone, inputs, team=team)
    val_embedding = embedding_of(model, inputs.splits["val"], team)
    logits = {"val": logits_of(model.head, val_embedding), "test": logits_of(model.head, test)}
    return Observation(logits, probes)


def look(
    backbone: Backbone, inputs: Inputs, progress: Progress | None = None, team: Team = ALONE
) -> tuple[np.ndarray, dict[str, Activations]]:
    """What a backbone makes of the test images, `(n, d)`, and of those that are compared: see `Observation.probes`.

    Args:
        progress: is told how many of all images are seen, and how many there are.
        team: of the processes that share the images.
    """
    origin, n_test = inputs.origin_probe, len(inputs.splits["test"].items)
    n_all = n_test + (len(origin.items) if origin else 0)
    portion = _portion(team)

    def counted(before: int) -> Progress | None:
        return (lambda done, _: progress(before + done, n_all)) if progress else None

    rows = inputs.probe_rows
    test = extract(backbone, inputs.splits["test"], layer_rows=rows, progress=counted(0), portion=portion)
    probes = {"target": inputs.probe_activations(test)}
    if origin:
        rows = np.arange(len(origin.items))
        probes["origin"] = extract(backbone, origin, layer_rows=rows, progress=counted(n_test), portion=portion)
    return test.embedding, probes


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
