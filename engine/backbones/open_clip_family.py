"""Builds the image towers of open_clip as `Backbone`s; knows nothing of where weight files come from.

The embedding is what the projection into the space shared with text sits on: the CLS token after `ln_post` in OpenAI's
and LAION's models, the model's own pooling in the others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from engine.backbones import timm_family
from engine.backbones import weights as weight_files
from engine.backbones.backbone import Backbone, BackboneInfo
from engine.backbones.names import FAMILIES, BackboneName, parse_name, unknown_model
from engine.backbones.torchvision_guard import guard
from engine.backbones.weights import WeightsFile
from engine.errors import StudyError

# The text tower is never used. The smallest there can be stands in for it: no memory, nothing from the network.
_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}


def load(name: BackboneName, weights: Path | None, input_size: int | None) -> Backbone:
    """See `engine.backbones.load_backbone`."""
    config = _config(name)
    size = _size(name, input_size)
    create = partial(_create, name, size, bool(config.get("quick_gelu")))
    known = timm_family.known_of(name, size, config["mean"], config["std"])
    with torch.device("meta"):
        wrap(create(), create, **known)  # what cannot be read is said before any weights are asked for
    if weights:
        file = weight_files.local_file(weights)
    else:
        repository, _, filename = config["hf_hub"].rpartition("/")
        file = weight_files.hub_file(repository, filename or "open_clip_model.safetensors", f'backbone "{name}"')
    clip = create()
    load_image_tower(clip, file, str(name))
    return wrap(clip, create, **known | timm_family.origin_of(file))


def without_weights(
    name: BackboneName, device: str = "meta", input_size: int | None = None
) -> tuple[Backbone, tuple[str, str]]:
    """The backbone at its own size or another, and where its weights lie in the hub: (repository, file).

    Args:
        device: "meta" for no memory at all; on any other, its weights are random.
    Raises:
        StudyError: the name is unknown, or its layers cannot be read.
    """
    config = _config(name)
    size = _size(name, input_size)
    create = partial(_create, name, size, bool(config.get("quick_gelu")))
    with torch.device(device):
        clip = create()
    backbone = wrap(
        clip,
        create,
        **timm_family.known_of(name, size, config["mean"], config["std"]),
    )
    repository, _, filename = config["hf_hub"].rpartition("/")
    return backbone, (repository, filename or "open_clip_model.safetensors")


def load_image_tower(clip: Any, file: WeightsFile, name: str) -> None:
    """Loads the image tower strictly from a file in open_clip's format; the text tower stays as it is.

    Raises:
        WeightsError: the file does not fit.
    """
    from open_clip.model import resize_pos_embed

    with safe_open(file.path, "pt") as tensors:
        state = {key: tensors.get_tensor(key) for key in file.shapes if key.startswith("visual.")}
    if not state:
        found = weight_files.listed("", list(file.shapes))
        raise weight_files.foreign(file, name, f'no key begins with "visual." (seen {found})')
    try:
        resize_pos_embed(state, clip)
        clip.visual.load_state_dict({key.removeprefix("visual."): tensor for key, tensor in state.items()})
    except RuntimeError as error:
        raise weight_files.misfit(error, file, name) from error


def wrap(clip: Any, create: Callable[[], Any], **known: Any) -> Backbone:
    """A `Backbone` around the image tower of a CLIP model.

    Args:
        create: gives such a CLIP model with random weights.
        known: the fields of `BackboneInfo` that the model does not tell.
    """

    def create_tower() -> nn.Module:
        return _without_projection(create().visual)

    tower = _without_projection(clip.visual)
    if hasattr(clip.visual, "trunk"):
        is_vit = timm_family.is_vit(_vision_config(parse_name(known["name"]))["timm_model_name"])
        return (timm_family.wrap if is_vit else timm_family.wrap_stages)(tower, create_tower, **known)
    blocks = tower.transformer.resblocks
    width = tower.ln_post.normalized_shape[0]
    info = BackboneInfo(**timm_family.blocks_of(len(blocks), width), n_features=width, **known)
    return Backbone(tower, info, blocks=blocks, create=create_tower, n_prefix_tokens=1, has_cls=True)


def _without_projection(visual: Any) -> Any:
    if hasattr(visual, "trunk"):
        visual.trunk.reset_classifier(0)
        return visual.trunk
    visual.proj = None
    return visual


def _config(name: BackboneName) -> Any:
    """open_clip's record of the pre-trained weights."""
    guard()
    import open_clip

    known = ["/".join(each) for each in open_clip.list_pretrained()]
    if name.in_library not in known:
        raise unknown_model(name, known)
    vision = _vision_config(name)
    if isinstance(vision.get("layers"), list):
        problem = "is a ResNet of open_clip, whose attention pool projects at once: there is no embedding before it"
        raise StudyError(f'backbone "{name}"', problem, 'take it from timm, such as "timm:resnet50_clip.openai"')
    if vision.get("attentional_pool"):
        problem = "pools its tokens by attention inside the image tower (CoCa), which simtui does not read"
        raise StudyError(f'backbone "{name}"', problem, f'name another, such as "{FAMILIES[name.family].example}"')
    return open_clip.get_pretrained_cfg(name.model, name.tag)


def _size(name: BackboneName, input_size: int | None) -> int:
    vision = _vision_config(name)
    native: int = vision["image_size"]
    if input_size in (None, native):
        return native
    if "timm_model_name" in vision:
        problem = f"input_size = {input_size}: open_clip builds it for {native} only"
        raise StudyError(f'backbone "{name}"', problem, f"set input_size = {native}, or take the model from timm")
    timm_family.multiple_of_patch(name, input_size, vision["patch_size"])
    return input_size


def _vision_config(name: BackboneName) -> dict[str, Any]:
    import open_clip

    vision: dict[str, Any] = open_clip.get_model_config(name.model)["vision_cfg"]
    return vision


def _create(name: BackboneName, size: int, quick_gelu: bool) -> Any:
    import open_clip

    config = open_clip.get_model_config(name.model)
    return open_clip.CLIP(
        config["embed_dim"],
        {**config["vision_cfg"], "image_size": size},
        _TEXT,
        # open_clip's own factory builds ViT-B-16 with GELU even for weights trained with QuickGELU, and only warns
        quick_gelu=quick_gelu or config.get("quick_gelu", False),
    )
