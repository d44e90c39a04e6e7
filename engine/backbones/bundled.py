"""The bundled trio: three small ViTs of one size, each pre-trained in another paradigm on generated scenes.

Owns their architectures, normalisation and where their weights lie; knows neither how they were trained
(`sample_runs/pretrain.py`) nor how their blocks are read out. Imports torch only to build.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.backbones.bundled_places import bundled_places
from engine.errors import StudyError, WeightsError

if TYPE_CHECKING:
    from torch import nn

INPUT_SIZE = 64
PATCH_SIZE = 8
WIDTH = 128
N_BLOCKS = 6
N_HEADS = 4
# The text tower reads one token a word: see `sample_runs/pretraining/captions.py`.
VOCABULARY_SIZE = 72
CONTEXT_LENGTH = 12


@dataclass(frozen=True)
class BundledSpec:
    """What is known of a bundled backbone without building it. `mean` and `std` are for pixels in [0, 1]."""

    name: str
    paradigm: str
    weights_file: str
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    input_size: int = INPUT_SIZE


BUNDLED: Mapping[str, BundledSpec] = {
    name: BundledSpec(name, paradigm=name, weights_file=f"{name}.safetensors")
    for name in ("supervised", "image-text", "self-supervised")
}


def build(name: str) -> nn.Module:
    """The network `bundled:<name>`, randomly initialised by its library; its `state_dict` fits the weights file.

    Returns:
        A `timm.models.VisionTransformer` without a head (`supervised`, `self-supervised`), or an `open_clip.model.CLIP`
        with both towers (`image-text`).
    Raises:
        StudyError: no bundled backbone has this name.
    """
    if _spec(name).paradigm == "image-text":
        return _clip()
    return _vision_transformer()


def bundled_weights_path(name: str) -> Path:
    """Where the weights of `bundled:<name>` lie: beside the installed app, or in a source checkout.

    Raises:
        StudyError: no bundled backbone has this name.
        WeightsError: the file is in neither place.
    """
    spec = _spec(name)
    places = bundled_places(spec.weights_file)
    for path in places:
        if path.is_file():
            return path
    raise WeightsError(
        f"bundled:{name}",
        f"weights are missing (looked for {' and '.join(map(str, places))})",
        f'install simtui again, or make them with "python sample_runs/pretrain.py {name}"',
    )


def _spec(name: str) -> BundledSpec:
    if name not in BUNDLED:
        raise StudyError(f"bundled:{name}", "no such bundled backbone", f"choose one of {', '.join(BUNDLED)}")
    return BUNDLED[name]


def _vision_transformer() -> nn.Module:
    from engine.backbones.torchvision_guard import guard

    guard()
    from timm.models import VisionTransformer

    model: nn.Module = VisionTransformer(
        img_size=INPUT_SIZE,
        patch_size=PATCH_SIZE,
        embed_dim=WIDTH,
        depth=N_BLOCKS,
        num_heads=N_HEADS,
        num_classes=0,
        dynamic_img_size=True,  # DINO's local crops are smaller than INPUT_SIZE
    )
    return model


def _clip() -> nn.Module:
    from engine.backbones.torchvision_guard import guard

    guard()
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    vision = CLIPVisionCfg(
        image_size=INPUT_SIZE, patch_size=PATCH_SIZE, width=WIDTH, layers=N_BLOCKS, head_width=WIDTH // N_HEADS
    )
    text = CLIPTextCfg(context_length=CONTEXT_LENGTH, vocab_size=VOCABULARY_SIZE, width=64, heads=2, layers=2)
    model: nn.Module = CLIP(embed_dim=WIDTH, vision_cfg=vision, text_cfg=text)
    return model
