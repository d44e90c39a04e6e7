"""`lora`: low-rank adapters of the blocks are trained with the head; every pre-trained weight is frozen.

The weight W of a layer acts as W + alpha/rank · B A, A drawn and B zero at first, so that a run begins as θ*. Adapters,
by peft, sit on the attention and the MLP of every block, of timm as of open_clip. What is evaluated, compared and kept
in checkpoints is a plain backbone with the adapters merged in, named as after `full`; the adapters themselves are only
in what a run resumes from.

Two defects that nobody would notice are kept out. peft's own adapter of `nn.MultiheadAttention` adds the change of the
output projection twice (0.21.2), so that layer is trained as two linear ones of the same weights. And a linear layer
whose `forward` is not used (BEiT reads `qkv.weight` itself) would train nothing and say nothing: it is refused.
Source: Hu et al. 2022 (LoRA).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from engine.backbones.backbone import Backbone
from engine.backbones.torchvision_guard import guard
from engine.errors import MachineError, StudyError
from engine.finetune.classifier import Classifier
from engine.finetune.recipes.recipe import Recipe
from engine.finetune.settings import LoraSettings
from engine.finetune.trainer import generator_of
from engine.study import RunSpec

_ADAPTER = "default"  # as peft names one that is not named


def make(spec: RunSpec, model: Classifier) -> Recipe:
    """See `recipes.make_recipe`.

    Raises:
        MachineError: peft is not installed.
        StudyError: the backbone has no layers that can carry adapters, or not with these settings.
    """
    return _Lora(spec, model)


class _Lora(Recipe):
    def __init__(self, spec: RunSpec, model: Classifier) -> None:
        super().__init__(spec, model)
        self._classifier = model
        # Before there are adapters: θ* with its own names.
        self._merged = copy.deepcopy(model).requires_grad_(False).eval()
        self._layers = _add_adapters(model.backbone, LoraSettings(**spec.settings), spec.seed)

    def begin(self, epoch: int) -> None:
        super().begin(epoch)
        for name, parameter in self._classifier.backbone.named_parameters():
            parameter.requires_grad_(".lora_" in name)

    @torch.no_grad()
    def looked_at(self) -> Classifier:
        self._merged.head.load_state_dict(self._classifier.head.state_dict())
        merged = self._merged.backbone.model.state_dict()
        for weight, layer in self._layers.items():
            merged[weight].copy_(layer.get_base_layer().weight + layer.get_delta_weight(_ADAPTER))
        return self._merged


class SplitAttention(nn.Module):
    """`nn.MultiheadAttention` of one sequence with itself, its projections as two linear layers of the same weights."""

    def __init__(self, whole: nn.MultiheadAttention) -> None:
        super().__init__()
        assert whole.in_proj_weight is not None
        self.n_heads, width = whole.num_heads, whole.embed_dim
        has_bias = whole.in_proj_bias is not None
        device = whole.in_proj_weight.device
        self.qkv = nn.Linear(width, 3 * width, has_bias, device=device)
        self.proj = nn.Linear(width, width, has_bias, device=device)
        weights = {
            f"qkv.{name.removeprefix('in_proj_')}": value for name, value in whole.named_parameters(recurse=False)
        }
        self.load_state_dict(weights | {f"proj.{name}": value for name, value in whole.out_proj.named_parameters()})

    def forward(self, query: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        """`(n, tokens, d)` -> the same, and no weights; called as torch's own is."""
        n, t, _width = query.shape
        q, k, v = self.qkv(query).view(n, t, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        found = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(found.transpose(1, 2).reshape(n, t, -1)), None


def _add_adapters(backbone: Backbone, settings: LoraSettings, seed: int) -> dict[str, Any]:
    """Puts adapters into the backbone, drawn by the seed alone.

    Returns:
        The name of each weight in the plain backbone's model that an adapter changes -> the layer with the adapter.
    """
    guard()  # peft loads torchvision, sideways
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MachineError("lora", "needs peft", 'pip install "simtui[lora]"') from error
    weights: dict[str, str] = {}  # layer -> weight
    for block in backbone.blocks:
        for part in ("attn",) if settings.layers == "attention" else ("attn", "mlp"):
            weights |= _layers_of(backbone, block, part)
    alpha: Any = settings.alpha  # peft divides it by the rank, and says that it is whole
    config = LoraConfig(r=settings.rank, lora_alpha=alpha, lora_dropout=settings.dropout, target_modules=list(weights))
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator_of(seed, "lora"))))
        inject_adapter_in_model(config, backbone.model)
    backbone.to(next(backbone.parameters()).device)
    layers = {weight: backbone.model.get_submodule(name) for name, weight in weights.items()}
    _check_used(backbone, layers)
    return layers


def _layers_of(backbone: Backbone, block: nn.Module, part: str) -> dict[str, str]:
    """The linear layers of a part of a block, by name in the model, and the name of the weight of each before a split.

    Raises:
        StudyError: there are none, or an attention of a kind that cannot be split.
    """
    module: Any = getattr(block, part, None)
    where = next((name for name, each in backbone.model.named_modules() if each is module), part)
    if isinstance(module, nn.MultiheadAttention):
        if module.in_proj_weight is None or module.bias_k is not None or module.dropout or not module.batch_first:
            raise _unsupported(backbone, f"its {where} is not one sequence's attention to itself")
        setattr(block, part, SplitAttention(module))
        return {f"{where}.qkv": f"{where}.in_proj_weight", f"{where}.proj": f"{where}.out_proj.weight"}
    linear = [name for name, each in module.named_modules() if isinstance(each, nn.Linear)] if module else []
    if not linear:
        raise _unsupported(backbone, f"its {where} has no linear layers")
    return {f"{where}.{name}": f"{where}.{name}.weight" for name in linear}


def _check_used(backbone: Backbone, layers: Mapping[str, nn.Module]) -> None:
    """Every layer with an adapter must be gone through."""
    unused = set(layers)

    def notes(weight: str) -> Any:
        return lambda *_: unused.discard(weight)

    handles = [layer.register_forward_hook(notes(weight)) for weight, layer in layers.items()]
    size = backbone.info.input_size
    with torch.no_grad():
        backbone(torch.zeros(1, 3, size, size, device=next(backbone.parameters()).device))
    for handle in handles:
        handle.remove()
    if unused:
        raise _unsupported(backbone, f"its {min(unused)} is read directly, so that an adapter would have no effect")


def _unsupported(backbone: Backbone, problem: str) -> StudyError:
    fix = 'leave "lora" out of finetune.methods for this backbone'
    return StudyError(f'lora of backbone "{backbone.info.name}"', problem, fix)
