"""Wraps the networks that ship with simtui (`bundled.py`) as `Backbone`s, with the adapters of their libraries."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from safetensors.torch import load_file

from engine.backbones import open_clip_family, timm_family
from engine.backbones import weights as weight_files
from engine.backbones.backbone import Backbone
from engine.backbones.bundled import BUNDLED, build, bundled_weights_path
from engine.backbones.names import BackboneName
from engine.errors import StudyError


def load(name: BackboneName, weights: Path | None, input_size: int | None) -> Backbone:
    """See `engine.backbones.load_backbone`."""
    spec = BUNDLED[name.model]
    if input_size not in (None, spec.input_size):
        problem = f"input_size = {input_size}: bundled backbones read {spec.input_size} pixels only"
        raise StudyError(f'backbone "{name}"', problem, f"set input_size = {spec.input_size}")
    path = weights or bundled_weights_path(name.model)
    file = weight_files.checked(path, f"file:{path}" if weights else f"bundled:{path.name}")
    model = build(name.model)
    is_clip = hasattr(model, "visual")
    if is_clip:
        open_clip_family.load_image_tower(model, file, str(name))
    else:
        try:
            model.load_state_dict(load_file(file.path))
        except RuntimeError as error:
            raise weight_files.misfit(error, file, str(name)) from error
    wrap = open_clip_family.wrap if is_clip else timm_family.wrap
    return wrap(
        model,
        partial(build, name.model),
        name=str(name),
        family=name.family,
        paradigm=spec.paradigm,
        input_size=spec.input_size,
        mean=spec.mean,
        std=spec.std,
        weights_source=file.source,
        weights_sha256=file.sha256,
    )


def without_weights(
    name: BackboneName, device: str = "meta", input_size: int | None = None
) -> tuple[Backbone, tuple[str, str]]:
    """The backbone as it ships, on the CPU whatever is asked: it is small. Its weights lie in no hub."""
    return load(name, None, input_size), ("", "")
