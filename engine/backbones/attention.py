"""Takes the attention of every block of a backbone, and reduces it to maps over the image; knows nothing of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.backbones.backbone import Backbone
from engine.errors import StudyError
from engine.runs.attention_maps import NONE_IN_STAGES


@dataclass(frozen=True)
class BlockAttention:
    """What the heads of every block look at, for n images of P = side × side patches.

    Attributes:
        cls: `(n, L, h, P)` float32: attention that the CLS token pays to each patch; None where the model has none.
        feat: `(n, L, h, P)` float32: attention that the patch tokens pay to each patch, mean over them ("Feat").
            Both are as they leave the softmax: what goes to CLS and registers is missing from their sums.
        cls_entropy: `(n, L, h)` float32 in nats, 0 to log P: of the CLS token's attention over the patches, made to sum
            to 1; None as `cls`.
        feat_entropy: `(n, L, h)` float32 in nats: the same of each patch token, mean over them.
        distance: `(n, L, h)` float32 in pixels of the input: how far from itself a patch token looks, weighted by
            attention over the patches, mean over the patch tokens.
    Source of the distance: Dosovitskiy et al. 2021, fig. 7; Raghu et al. 2021.
    """

    cls: Tensor | None
    feat: Tensor
    cls_entropy: Tensor | None
    feat_entropy: Tensor
    distance: Tensor


@torch.inference_mode()
def attention_of(backbone: Backbone, images: Tensor) -> BlockAttention:
    """The attention of every block, reduced block by block: only one block's matrices are alive at a time.

    Args:
        images: `(n, 3, s, s)`, normalised.
    Raises:
        StudyError: the blocks of this backbone do not give their attention.
    """
    if backbone.info.layer_kind == "stages":
        raise _unsupported(backbone, NONE_IN_STAGES)
    n_prefix, has_cls = backbone.n_prefix_tokens, "cls" in backbone.info.poolings
    found: list[tuple[Tensor, ...]] = []

    def take(matrices: Tensor, n_heads: int) -> None:
        _check(backbone, matrices, (len(images), n_heads))
        found.append(_reduced(matrices.float(), n_prefix, has_cls, backbone.info.input_size))

    was_training = backbone.training
    backbone.eval()
    try:
        with _listening(backbone, take):
            backbone(images)
    finally:
        backbone.train(was_training)
    if len(found) != backbone.info.n_blocks:
        raise _unsupported(backbone, f"{len(found)} of {backbone.info.n_blocks} blocks gave any")
    feat, feat_entropy, distance, *of_cls = (torch.stack(parts, dim=1) for parts in zip(*found, strict=True))
    cls, cls_entropy = of_cls if has_cls else (None, None)
    return BlockAttention(cls, feat, cls_entropy, feat_entropy, distance)


def patch_distances(side: int, patch_size: float) -> Tensor:
    """`(P, P)`: distance between the centres of two patches in pixels, patches row by row."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1).float() * patch_size
    return torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")


def _reduced(matrices: Tensor, n_prefix: int, has_cls: bool, input_size: int) -> tuple[Tensor, ...]:
    """feat, feat_entropy, distance, and with CLS cls, cls_entropy, of `(n, h, t, t)`; rows are what attends."""
    patches = matrices[:, :, n_prefix:, n_prefix:]
    shares = _shares(patches)
    side = round(patches.shape[-1] ** 0.5)
    distances = patch_distances(side, input_size / side).to(matrices.device)
    found = [patches.mean(2), _entropy(shares).mean(2), (shares * distances).sum(-1).mean(2)]
    if has_cls:
        cls = matrices[:, :, 0, n_prefix:].clone()
        found += [cls, _entropy(_shares(cls))]
    return tuple(found)


def _shares(attention: Tensor) -> Tensor:
    """Over the patches, made to sum to 1; a token that pays them nothing at all spreads evenly."""
    total = attention.sum(-1, keepdim=True)
    return torch.where(total > 0, attention / total.clamp_min(torch.finfo(torch.float32).tiny), 1 / attention.shape[-1])


def _entropy(shares: Tensor) -> Tensor:
    return torch.special.entr(shares).sum(-1)


def _check(backbone: Backbone, matrices: Tensor, need: tuple[int, int]) -> None:
    """What is taken must be attention: one weight for each pair of tokens, rows that sum to 1, square patches.

    timm's differential attention has two matrices a head, and what it applies is their difference, which is no
    distribution; so `need` is images and heads.
    """
    n_patches = matrices.shape[-1] - backbone.n_prefix_tokens
    is_square = matrices.ndim == 4 and tuple(matrices.shape[:2]) == need and matrices.shape[2] == matrices.shape[3]
    if not is_square or n_patches < 1 or round(n_patches**0.5) ** 2 != n_patches:
        seen, (n, n_heads) = tuple(matrices.shape), need
        raise _unsupported(
            backbone, f"its shape is {seen} (need ({n}, {n_heads}, t, t), t tokens of a square of patches)"
        )
    if not torch.allclose(matrices.float().sum(-1), torch.ones((), device=matrices.device), atol=1e-2):
        raise _unsupported(backbone, "its weights do not sum to 1")


@contextmanager
def _listening(backbone: Backbone, take: Callable[[Tensor, int], None]) -> Iterator[None]:
    """Has every block hand over its attention; timm's fused kernels never form it, so they are off meanwhile."""
    undo: list[Callable[[], object]] = []
    try:
        for block in backbone.blocks:
            attention: Any = getattr(block, "attn", None)
            if isinstance(attention, nn.MultiheadAttention):
                undo.append(attention.register_forward_pre_hook(_with_weights, with_kwargs=True).remove)
                undo.append(attention.register_forward_hook(_handing(take, attention.num_heads)).remove)
            elif isinstance(getattr(attention, "attn_drop", None), nn.Module) and hasattr(attention, "fused_attn"):
                undo.append(attention.attn_drop.register_forward_hook(_handing(take, attention.num_heads)).remove)
                undo.append(_set(attention, "fused_attn", False))
            else:
                kind = "missing" if attention is None else f"a {type(attention).__name__}, which is not known"
                raise _unsupported(backbone, f"attn of a {type(block).__name__} is {kind}")
        yield
    finally:
        for each in reversed(undo):
            each()


def _handing(take: Callable[[Tensor, int], None], n_heads: int) -> Callable[..., None]:
    """A hook: torch's attention gives its output and the weights, timm's dropout the weights alone."""
    return lambda _module, _inputs, output: take(output[1] if isinstance(output, tuple) else output, n_heads)


def _with_weights(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, {**kwargs, "need_weights": True, "average_attn_weights": False}


def _set(module: Any, name: str, value: object) -> Callable[[], None]:
    old = getattr(module, name)
    setattr(module, name, value)
    return lambda: setattr(module, name, old)


def _unsupported(backbone: Backbone, why: str) -> StudyError:
    problem = f"its attention cannot be read: {why}"
    return StudyError(f'backbone "{backbone.info.name}"', problem, "set attention.n = 0 to do without attention maps")
