"""Builds the vision transformers of timm as `Backbone`s; knows nothing of where weight files come from.

The embedding is the model's own `forward_head(pre_logits=True)`: its pooling and final norm, without its classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.backbones import weights as weight_files
from engine.backbones.backbone import Backbone, BackboneInfo
from engine.backbones.names import FAMILIES, BackboneName, paradigm_of, unknown_model
from engine.backbones.torchvision_guard import guard
from engine.backbones.weights import WeightsFile
from engine.errors import StudyError

# Their models keep one sequence of tokens through all blocks; the other architectures of timm do not.
_TOKEN_MODULES = {
    f"timm.models.{each}" for each in ("beit", "deit", "eva", "vision_transformer", "vision_transformer_hybrid")
}


def load(name: BackboneName, weights: Path | None, input_size: int | None) -> Backbone:
    """See `engine.backbones.load_backbone`."""
    config = _config(name)
    size = _default_size(name, config.input_size[-1]) if input_size is None else input_size
    blank = _blank(name, size, config.input_size[-1])
    if weights:
        file = weight_files.local_file(weights)
    else:
        filename = config.hf_hub_filename or "model.safetensors"
        file = weight_files.hub_file(config.hf_hub_id, filename, f'backbone "{name}"')
    _check_patches(file, name, blank)
    model = _load_strictly(file, name, size)
    return wrap(
        model,
        partial(_create, name, size),
        **known_of(name, size, config.mean, config.std, file),
    )


def without_weights(name: BackboneName, device: str = "meta") -> tuple[Backbone, tuple[str, str]]:
    """The backbone at its default size, and where its weights lie in the hub: (repository, file).

    Args:
        device: "meta" for no memory at all; on any other, its weights are random.
    Raises:
        StudyError: the name is unknown, or not of a ViT.
    """
    config = _config(name)
    size = _default_size(name, config.input_size[-1])
    with torch.device(device):
        model = _create(name, size)
    backbone = wrap(
        model,
        partial(_create, name, size),
        **known_of(name, size, config.mean, config.std),
    )
    return backbone, (config.hf_hub_id, config.hf_hub_filename or "model.safetensors")


def known_of(
    name: BackboneName, size: int, mean: Sequence[float], std: Sequence[float], file: WeightsFile | None = None
) -> dict[str, Any]:
    """The fields of `BackboneInfo` that a model does not tell.

    Args:
        file: of its weights; None where they are random.
    """
    return {
        "name": str(name), "family": name.family, "paradigm": paradigm_of(name), "input_size": size,
        "mean": tuple(mean), "std": tuple(std),
        "weights_source": file.source if file else "", "weights_sha256": file.sha256 if file else None,
    }  # fmt: skip


def wrap(model: Any, create: Callable[[], nn.Module], **known: Any) -> Backbone:
    """A `Backbone` around a timm vision transformer without a classifier.

    Args:
        create: see `Backbone`.
        known: the fields of `BackboneInfo` that the model does not tell.
    """
    has_cls = model.cls_token is not None
    info = BackboneInfo(
        n_blocks=len(model.blocks),
        n_features=model.num_features,
        poolings=("cls", "feat") if has_cls else ("feat",),
        **known,
    )
    prefix = model.num_prefix_tokens  # CLS, distillation token, registers
    return Backbone(model, info, blocks=model.blocks, n_prefix_tokens=prefix, has_cls=has_cls, create=create)


def _config(name: BackboneName) -> Any:
    """timm's record of the pre-trained weights."""
    guard()
    import timm

    if name.in_library not in (known := timm.list_pretrained()):
        raise unknown_model(name, known)
    if not is_vit(name.model):
        raise not_a_vit(name)
    return timm.get_pretrained_cfg(name.in_library)


def is_vit(model: str) -> bool:
    """Whether this architecture of timm is blocks over one sequence of tokens."""
    import timm

    return timm.model_entrypoint(model).__module__ in _TOKEN_MODULES


def not_a_vit(name: BackboneName) -> StudyError:
    """The error for an architecture whose layers have no tokens to pool."""
    example = FAMILIES[name.family].example
    return StudyError(
        f'backbone "{name}"', "not a ViT: its layers are not blocks of tokens", f'name a ViT, such as "{example}"'
    )


def multiple_of_patch(name: BackboneName, size: int, patch_size: int) -> None:
    """Refuses an input size at which the library would leave the last pixels of each row out in silence.

    Raises:
        StudyError: patches of `patch_size` pixels do not fill `size` pixels.
    """
    if size < patch_size or size % patch_size:
        near = max(1, round(size / patch_size)) * patch_size
        problem = f"input_size = {size}: need a multiple of its patch size {patch_size}"
        raise StudyError(f'backbone "{name}"', problem, f"set input_size = {near}")


def _default_size(name: BackboneName, native: int) -> int:
    # The paper fine-tunes DINOv2 at 224 like the others; timm reports the 518 of its last pre-training phase, at which
    # an image has 1,369 patches instead of 256.
    return 224 if "dinov2" in name.model else native


def _create(name: BackboneName, size: int, n_classes: int = 0, **kwargs: Any) -> Any:
    import timm

    return timm.create_model(name.in_library, num_classes=n_classes, img_size=size, **kwargs)


def _blank(name: BackboneName, size: int, native: int) -> Any:
    """The model without storage: what the request is checked against before any weights are read."""
    with torch.device("meta"):
        model = _create(name, native)
    if size != native:
        multiple_of_patch(name, size, model.patch_embed.feat_ratio())
    return model


def _check_patches(file: WeightsFile, name: BackboneName, model: Any) -> None:
    """timm resamples foreign patch kernels and position embeddings to fit, so a /32 file would load as a /16 model."""
    needed = tuple(model.patch_embed.proj.weight.shape)
    for key, shape in file.shapes.items():
        if key.endswith("patch_embed.proj.weight") and len(shape) == 4 and shape[2:] != needed[2:]:
            raise weight_files.foreign(file, str(name), f"{key} is {shape}, model needs {needed}")


def _load_strictly(file: WeightsFile, name: BackboneName, size: int) -> Any:
    """The model with all of the file's weights and nothing else, its classifier removed.

    timm loads strictly only where the number of classes agrees, so the model is built with the file's own classifier.
    """
    classifier = file.shapes.get("head.weight", ())
    n_classes = classifier[0] if classifier else 0
    overlay = {"file": str(file.path), "num_classes": n_classes, "custom_load": False}
    try:
        model = _create(name, size, n_classes, pretrained=True, pretrained_cfg_overlay=overlay)
    except RuntimeError as error:
        raise weight_files.misfit(error, file, str(name)) from error
    model.reset_classifier(0)
    if "siglip" in name.model:  # timm loads these loosely: the files hold a pooling that some variants do without
        missing = [key for key in model.state_dict() if not {key, f"visual.trunk.{key}"} & set(file.shapes)]
        if missing:
            raise weight_files.foreign(file, str(name), weight_files.listed("missing ", missing))
    return model
