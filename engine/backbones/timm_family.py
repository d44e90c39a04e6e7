"""Builds the networks of timm as `Backbone`s; knows nothing of where weight files come from.

The layers of a ViT are its blocks, those of any other network its stages: see `engine.backbones.stages`.

The embedding is the model's own `forward_head(pre_logits=True)`: its pooling and final norm, without its classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.backbones import stages
from engine.backbones import weights as weight_files
from engine.backbones.backbone import Backbone, BackboneInfo
from engine.backbones.names import BackboneName, paradigm_of, unknown_model
from engine.backbones.torchvision_guard import guard
from engine.backbones.weights import WeightsFile
from engine.errors import StudyError, WeightsError

# Their models keep one sequence of tokens through all blocks; of the other architectures of timm the stages are read.
_TOKEN_MODULES = {
    f"timm.models.{each}" for each in ("beit", "deit", "eva", "vision_transformer", "vision_transformer_hybrid")
}
_CLASSIFIERS = ("head", "fc", "classifier", "head.fc")


def load(name: BackboneName, weights: Path | None, input_size: int | None) -> Backbone:
    """See `engine.backbones.load_backbone`."""
    config = _config(name)
    size = _default_size(name, config.input_size[-1]) if input_size is None else input_size
    blank = _blank(name, size, config.input_size[-1])
    known = known_of(name, size, config.mean, config.std)
    if weights:
        file = weight_files.local_file(weights)
    else:
        if config.hf_hub_id is None:
            problem = "timm names no file of its weights in the hub"
            raise WeightsError(f'backbone "{name}"', problem, f"fetch {config.url}, and give it as weights")
        filename = config.hf_hub_filename or "model.safetensors"
        file = weight_files.hub_file(config.hf_hub_id, filename, f'backbone "{name}"')
    _check_patches(file, name, blank)
    model = _load_strictly(file, name, size, config.classifier)
    return _wrapper(name)(model, partial(_create, name, size), **known | origin_of(file))


def without_weights(
    name: BackboneName, device: str = "meta", input_size: int | None = None
) -> tuple[Backbone, tuple[str, str]]:
    """The backbone at its default size or another, and where its weights lie in the hub: (repository, file).

    Args:
        device: "meta" for no memory at all; on any other, its weights are random.
    Raises:
        StudyError: the name is unknown, or its layers cannot be read.
    """
    config = _config(name)
    size = input_size or _default_size(name, config.input_size[-1])
    with torch.device(device):
        model = _create(name, size)
    known = known_of(name, size, config.mean, config.std)
    backbone = _wrapper(name)(model, partial(_create, name, size), **known)
    return backbone, (config.hf_hub_id or "", config.hf_hub_filename or "model.safetensors")


def known_of(name: BackboneName, size: int, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """The fields of `BackboneInfo` that a model does not tell; of weights that are random."""
    return {
        "name": str(name), "family": name.family, "paradigm": paradigm_of(name), "input_size": size,
        "mean": tuple(mean), "std": tuple(std), "weights_source": "", "weights_sha256": None,
    }  # fmt: skip


def origin_of(file: WeightsFile) -> dict[str, Any]:
    """The fields of `BackboneInfo` that say where the weights are from."""
    return {"weights_source": file.source, "weights_sha256": file.sha256}


def blocks_of(n_blocks: int, width: int) -> dict[str, Any]:
    """The fields of `BackboneInfo` that tell the blocks of a transformer."""
    return {"layers": tuple(f"blocks.{i}" for i in range(n_blocks)), "widths": (width,) * n_blocks}


def wrap(model: Any, create: Callable[[], nn.Module], **known: Any) -> Backbone:
    """A `Backbone` around a timm vision transformer without a classifier.

    Args:
        create: see `Backbone`.
        known: the fields of `BackboneInfo` that the model does not tell.
    """
    has_cls = model.cls_token is not None
    info = BackboneInfo(
        **blocks_of(len(model.blocks), model.embed_dim),
        n_features=model.num_features,
        poolings=("cls", "feat") if has_cls else ("feat",),
        **known,
    )
    prefix = model.num_prefix_tokens  # CLS, distillation token, registers
    return Backbone(model, info, blocks=model.blocks, create=create, n_prefix_tokens=prefix, has_cls=has_cls)


def wrap_stages(model: Any, create: Callable[[], nn.Module], **known: Any) -> Backbone:
    """A `Backbone` around any other network of timm, without a classifier.

    Args:
        create, known: as `wrap`.
    Raises:
        StudyError: timm names no stages of it, they give no maps, or the input size does not suit it.
    """
    with torch.device("meta"):
        found = stages.read_stages(create(), known["input_size"], f'backbone "{known["name"]}"')
    info = BackboneInfo(
        layers=found.names,
        widths=found.widths,
        n_features=found.n_features,
        poolings=("feat",),
        layer_kind="stages",
        **known,
    )
    blocks = [model.get_submodule(each) for each in found.names]
    return Backbone(model, info, blocks=blocks, create=create, positions=found.positions)


def _wrapper(name: BackboneName) -> Callable[..., Backbone]:
    return wrap if is_vit(name.model) else wrap_stages


def _config(name: BackboneName) -> Any:
    """timm's record of the pre-trained weights."""
    guard()
    import timm

    if name.in_library not in (known := timm.list_pretrained()):
        raise unknown_model(name, known)
    return timm.get_pretrained_cfg(name.in_library)


def is_vit(model: str) -> bool:
    """Whether this architecture of timm is blocks over one sequence of tokens."""
    import timm

    return timm.model_entrypoint(model).__module__ in _TOKEN_MODULES


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

    # Convolutions take images of any size, and refuse to be told one.
    if is_vit(name.model) or _config(name).fixed_input_size:
        kwargs["img_size"] = size
    return timm.create_model(name.in_library, num_classes=n_classes, **kwargs)


def _blank(name: BackboneName, size: int, native: int) -> Any:
    """The model without storage: what the request is checked against before any weights are read."""
    with torch.device("meta"):
        model = _create(name, native)
    if not is_vit(name.model):
        where = f'backbone "{name}"'
        stages.read_stages(model, native, where)
        if size != native:
            stages.check_size(partial(_create, name), size, native, where)
    elif size != native:
        multiple_of_patch(name, size, model.patch_embed.feat_ratio())
    return model


def _check_patches(file: WeightsFile, name: BackboneName, model: Any) -> None:
    """timm resamples foreign patch kernels and position embeddings to fit, so a /32 file would load as a /16 model."""
    kernel = getattr(getattr(getattr(model, "patch_embed", None), "proj", None), "weight", None)
    if kernel is None:
        return
    needed = tuple(kernel.shape)
    for key, shape in file.shapes.items():
        if key.endswith("patch_embed.proj.weight") and len(shape) == 4 and shape[2:] != needed[2:]:
            raise weight_files.foreign(file, str(name), f"{key} is {shape}, model needs {needed}")


def _load_strictly(file: WeightsFile, name: BackboneName, size: int, classifier: str | tuple[str, ...]) -> Any:
    """The model with all of the file's weights and nothing else, its classifier removed.

    timm loads strictly only where the number of classes agrees, so the model is built with the file's own classifier.

    Args:
        classifier: what timm calls it; the networks' authors have names of their own, which timm translates.
    """
    own = (classifier,) if isinstance(classifier, str) else classifier or ()
    heads = [file.shapes[key] for each in (*own, *_CLASSIFIERS) if (key := f"{each}.weight") in file.shapes]
    n_classes = heads[0][0] if heads else 0
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
