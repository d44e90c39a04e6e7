"""Fits position embeddings to a backbone: those of another input size, and those that hold the CLS token's too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from engine.backbones.backbone import Backbone
from engine.errors import WeightsError

RESAMPLED = "its position embeddings are of"  # begins the note on embeddings that are of another size


def fit_positions(
    tensors: Mapping[str, Tensor], backbone: Backbone, counts_the_class: bool, where: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors that differ from those given, and what is to be said of it.

    Other sizes are resampled as timm and open_clip resample them: bicubic, with antialiasing.

    Args:
        tensors: by the backbone's names.
        counts_the_class: the embeddings begin with that of the CLS token, even where those of the backbone do not.
    Raises:
        WeightsError: they are of no square grid.
    """
    from timm.layers.pos_embed import resample_abs_pos_embed

    model: Any = backbone.model
    name = next((each for each in ("pos_embed", "positional_embedding") if getattr(model, each, None) is not None), "")
    if not name or name not in tensors:
        return {}, ()
    needed = getattr(model, name)
    found = tensors[name].float().reshape(-1, needed.shape[-1]) if _is_table(tensors[name], needed) else None
    if found is None:
        return {}, ()  # a shape that is not positions at all is refused with the others
    fitted: dict[str, Tensor] = {}
    n_prefix = 1 if name == "positional_embedding" else _n_prefix(model)
    if n_prefix == 0 and counts_the_class and "cls_token" in tensors:
        fitted["cls_token"] = tensors["cls_token"] + found[:1].to(tensors["cls_token"].dtype)
        found = found[1:]
        fitted[name] = found.reshape(1, *found.shape)
    n_needed = needed.shape[-2]
    if len(found) == n_needed:
        return fitted, ()
    grid = math.isqrt(max(len(found) - n_prefix, 0))
    if grid == 0 or grid * grid != len(found) - n_prefix:
        problem = f"{name} has {len(found)} positions, of no square image (model needs {n_needed})"
        fix = "train on square images, or leave this checkpoint out"
        raise WeightsError(where, f"not the weights of {backbone.info.name}: {problem}", fix)
    new_grid = math.isqrt(n_needed - n_prefix)
    fitted[name] = resample_abs_pos_embed(found[None], [new_grid, new_grid], [grid, grid], num_prefix_tokens=n_prefix)
    size = backbone.info.input_size
    own_size = grid * (size // new_grid)
    return fitted, (
        f"{RESAMPLED} {own_size} pixels, resampled to {size} as timm does; "
        f"the training itself may have done it in another way, or used {own_size}",
    )


def _is_table(tensor: Tensor, needed: Tensor) -> bool:
    return tensor.ndim in (2, 3) and tensor.shape[-1] == needed.shape[-1] and tensor.is_floating_point()


def _n_prefix(model: Any) -> int:
    """How many of the tokens before the patches have a position of their own."""
    return 0 if getattr(model, "no_embed_class", False) else int(getattr(model, "num_prefix_tokens", 1))
