"""Trains a few models for two epochs, alone or as one of several processes, and says what came out.

`python -m tests.engine.finetune.sharing RANK SIZE FOLDER OUT CASE …`: they meet in FOLDER; the first writes OUT.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.backbones import initialise, load_backbone
from engine.backbones.backbone import Backbone
from engine.backbones.names import parse_name
from engine.backbones.timm_family import without_weights as timm
from engine.finetune.classifier import Classifier
from engine.finetune.learner import _depths, _ImageBatches
from engine.finetune.methods import method_of
from engine.finetune.objective import Objective
from engine.finetune.recipes import make_recipe
from engine.finetune.recipes.recipe import Recipe
from engine.finetune.team import ALONE, Share, Team, join
from engine.finetune.trainer import Trainer, draw_head
from engine.study import BackboneSection, DataSection, FinetuneSection, RunSpec, Study, StudySection, run_specs

N_CLASSES, BATCH_SIZE = 3, 8


@dataclass(frozen=True)
class Case:
    """A method on a kind of backbone, trained on `n` images in batches of 8."""

    method: str = "full"
    backbone: str = "vit"
    n: int = 21
    settings: tuple[tuple[str, object], ...] = ()
    finetune: tuple[tuple[str, object], ...] = ()
    task: str = "single"
    precision: str = "float32"  # of autocast: what is not bfloat16 is computed as its weights are, here in float64


CASES = {
    "full": Case(),
    "one_image_is_left": Case(n=17),
    "balanced": Case(finetune=(("class_weights", "balanced"), ("sampling", "balanced"))),
    "bfloat16": Case(precision="bfloat16"),
    "findings": Case(task="multilabel", finetune=(("class_weights", "balanced"),)),
    "augmented": Case(task="multilabel", finetune=(("rotation", 30.0), ("colour", 0.3), ("flips", "both"))),
    "random_layers": Case(backbone="random", n=17),
    "batch_norm": Case(backbone="batch_norm"),
    "batch_norm_one_is_left": Case("scratch", backbone="batch_norm", n=18),
    "lp_ft_batch_norm": Case("lp_ft", backbone="batch_norm"),
    "scratch": Case("scratch"),
    "lora": Case("lora", settings=(("dropout", 0.3),)),
    "layer_decay": Case("layer_decay"),
    "lp_ft": Case("lp_ft"),
    "l2_sp": Case("l2_sp", settings=(("alpha", 1.0), ("beta", 0.1))),
    "ema": Case("ema"),
    "feature_distillation": Case("feature_distillation"),
    "cka_penalty": Case("cka_penalty"),
    "covariance_alignment": Case("covariance_alignment"),
}  # fmt: skip


def train(case: Case, team: Team = ALONE) -> dict[str, Tensor]:
    """The weights of what is looked at and of what is trained, and the losses, after two epochs."""
    spec = _spec(case)
    torch.manual_seed(0)
    dtype = torch.float32 if case.precision == "bfloat16" else torch.float64
    torch.set_default_dtype(dtype)  # for what recipes add to a model
    backbone = _backbone(case.backbone)
    if not method_of(case.method).starts_pretrained:
        initialise(backbone, spec.seed)
    backbone.to(dtype)
    head = nn.Linear(backbone.info.n_features, N_CLASSES)
    draw_head(head, spec.seed)
    recipe = make_recipe(spec, Classifier(backbone, head))
    if case.precision == "bfloat16" and team.size == 1:
        _in_halves(recipe)
    trainer = Trainer(
        spec, recipe, _objective(case), _Images(backbone, spec, case.n, dtype), depths=_depths(backbone),
        precision=case.precision, team=team,
    )  # fmt: skip
    found: dict[str, Tensor] = {}
    for epoch in (1, 2):
        losses = trainer.train_epoch(epoch, lambda *_: None)
        found |= {f"{name}.{epoch}": torch.tensor(value, dtype=torch.float64) for name, value in losses.items()}
    weights = {**trainer.state(), **{f"seen.{name}": each for name, each in recipe.looked_at().state_dict().items()}}
    return found | {name: each.detach().clone().contiguous() for name, each in weights.items()}


def _float(values: Tensor) -> Tensor:
    """float32 of what is narrower. Losses are computed so; float64 is to stay, for it says whether the sums are right.

    A third of a loss, as three processes count it, is rounded in float32, and AdamW makes much of little gradients.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _in_halves(recipe: Recipe) -> None:
    """One process that computes each half of a batch by itself, as two do.

    In bfloat16 torch rounds the gradient of each layer's weights over what it is given, be it a batch or a share of
    it; the weights of two processes and of one differ by that alone.
    """
    whole = recipe.forward

    def forward(batch: Tensor) -> tuple[Tensor, None]:
        return torch.cat([whole(part)[0] for part in batch.tensor_split([len(batch) // 2])]), None

    recipe.forward = forward  # type: ignore[method-assign]
    torch.set_autocast_cache_enabled(False)  # it would round the sum of both halves, too


def _spec(case: Case) -> RunSpec:
    settings = {"seeds": 1, "epochs": 2, "batch_size": BATCH_SIZE, "warmup_epochs": 0, **dict(case.finetune)}
    rates = {case.method: 1e-3}
    finetune = FinetuneSection(methods=(case.method,), learning_rate=rates, **settings)  # type: ignore[arg-type]
    study = Study(
        StudySection("x"), DataSection(path="/d"), (BackboneSection("bundled:supervised"),), finetune=finetune
    )
    spec = run_specs(study)[0]
    return replace(spec, settings={**spec.settings, **dict(case.settings)})


def _backbone(kind: str) -> Backbone:
    if kind == "batch_norm":
        return timm(parse_name("timm:test_resnet.r160_in1k"), "cpu", 64)[0]
    backbone = load_backbone("bundled:supervised")
    if kind == "random":
        from timm.layers import DropPath

        for block in backbone.blocks:
            block.drop_path1, block.mlp.drop1 = DropPath(0.4), nn.Dropout(0.3)
    return backbone


def _objective(case: Case) -> Objective:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, N_CLASSES, case.n)
    if case.task == "multilabel":
        labels = rng.integers(-1, 2, (case.n, N_CLASSES))
    settings = _spec(case).finetune
    return Objective(
        case.task, labels, N_CLASSES, class_weights=settings.class_weights, sampling=settings.sampling  # type: ignore[arg-type]
    )  # fmt: skip


class _Images:
    """Augmented images of some type."""

    def __init__(self, backbone: Backbone, spec: RunSpec, n: int, dtype: torch.dtype) -> None:
        side, self._dtype = backbone.info.input_size * 8 // 7, dtype
        pixels = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), np.uint8)
        self._batches = _ImageBatches(pixels, backbone.info, spec.finetune, torch.device("cpu"))

    def gather(self, rows: np.ndarray) -> Tensor:
        """See `Batches`."""
        return self._batches.gather(rows)

    def prepare(self, gathered: Tensor, generator: torch.Generator, share: Share) -> Tensor:
        """See `Batches`."""
        torch.set_default_dtype(torch.float32)  # what augments images takes no other
        images = self._batches.prepare(gathered, generator, share).to(self._dtype)
        torch.set_default_dtype(self._dtype)
        return images


def main(arguments: Sequence[str]) -> None:
    """One process."""
    rank, size, folder, out, *names = arguments
    torch.set_num_threads(1)
    torch.Tensor.float = _float  # type: ignore[method-assign,assignment]
    team = Team(int(rank), int(size))
    if team.size > 1:
        join(team, Path(folder), torch.device("cpu"))
    found = {f"{name}/{key}": value for name in names for key, value in train(CASES[name], team).items()}
    if team.rank == 0:
        save_file(found, out)


if __name__ == "__main__":
    main(sys.argv[1:])
