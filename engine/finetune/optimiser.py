"""AdamW with warm-up and cosine decay, and layer-wise decay of the learning rate; knows layers only by their names."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn

from engine.backbones.torchvision_guard import guard
from engine.study import FinetuneSection

_BLOCK = re.compile(r"\b(?:blocks|resblocks|layers)\.(\d+)\.")


@dataclass(frozen=True)
class Depths:
    """What lies how deep in a model.

    Attributes:
        n_layers: the layers of its backbone.
        stages: names of their modules within the model, first to last; empty for a transformer, whose blocks are told
            by the library's names for them.
        undecayed: parameters to which weight decay does not apply, beside biases and norms.
    """

    n_layers: int
    stages: tuple[str, ...] = ()
    undecayed: Collection[str] = ()


class Optimiser:
    """One optimiser and its schedule; the learning rate is a function of the step alone, so it resumes anywhere."""

    def __init__(
        self,
        model: nn.Module,
        extra: nn.Module,
        learning_rate: float,
        settings: FinetuneSection,
        depths: Depths,
        steps: int,
        epochs: int,
    ) -> None:
        """Of what of a model requires gradients now, and of `extra`, which is at full rate and never decays."""
        guard()
        from timm.scheduler.cosine_lr import CosineLRScheduler

        groups = parameter_groups(model, settings.weight_decay, settings.layer_decay, depths)
        if beside := list(extra.parameters()):
            groups.append({"params": beside, "weight_decay": 0.0, "lr_scale": 1.0})
        self.adamw = torch.optim.AdamW(groups, lr=learning_rate)
        warmup_steps = min(settings.warmup_epochs, epochs - 1) * steps
        self._schedule = CosineLRScheduler(
            self.adamw,
            t_initial=steps * epochs,
            warmup_t=warmup_steps,
            warmup_lr_init=0.0,
            warmup_prefix=True,
            t_in_epochs=False,
        )

    def step(self, n_done: int) -> None:
        """One update; `n_done` updates came before it."""
        # Counted from 1: a warm-up from zero would otherwise waste its first step.
        self._schedule.step_update(n_done + 1)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)


def parameter_groups(
    model: nn.Module, weight_decay: float, layer_decay: float, depths: Depths
) -> list[dict[str, object]]:
    """Splits parameters by depth and by whether weight decay applies (not to biases, norms, tokens, positions).

    The rate of layer i of L is `layer_decay ** (L − i)`; the head's is 1, the embedding's `layer_decay ** (L + 1)`.
    """
    n_layers = depths.n_layers
    by_stage = _depths_by_stage(model, depths.stages) if depths.stages else None
    groups: dict[tuple[int, bool], dict[str, object]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        depth = by_stage[name] if by_stage else _depth(name, n_layers)
        decays = parameter.ndim > 1 and not name.endswith(("cls_token", "reg_token", "pos_embed", "embedding"))
        decays = decays and name not in depths.undecayed
        group = groups.setdefault(
            (depth, decays),
            {
                "params": [],
                "weight_decay": weight_decay if decays else 0.0,
                "lr_scale": layer_decay ** (n_layers + 1 - depth),
            },
        )
        group["params"].append(parameter)  # type: ignore[attr-defined]
    return list(groups.values())


def _depths_by_stage(model: nn.Module, stages: tuple[str, ...]) -> dict[str, int]:
    """Of every parameter its depth, from where its module stands: 0 before the first stage, L + 1 after the last.

    What lies between two stages, such as the step from one size of maps to the next, belongs to the later one.
    """
    depths: dict[str, int] = {}
    n_begun = 0
    for module_name, module in model.named_modules():
        if n_begun < len(stages) and module_name == stages[n_begun]:
            n_begun += 1
        is_inside = n_begun > 0 and f"{module_name}.".startswith(f"{stages[n_begun - 1]}.")
        depth = n_begun if is_inside or n_begun == 0 else n_begun + 1
        for name, _ in module.named_parameters(module_name, recurse=False):
            depths[name] = depth
    return depths


def _depth(name: str, n_blocks: int) -> int:
    """0 for the embedding, 1 to L for the blocks, L + 1 for what comes after them."""
    found = _BLOCK.search(name)
    if found:
        return int(found.group(1)) + 1
    after = name.startswith("head.") or re.search(r"\b(norm|fc_norm|ln_post|attn_pool)\.", name)
    return n_blocks + 1 if after else 0
