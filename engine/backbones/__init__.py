"""Pre-trained vision backbones by name: `load_backbone`, `initialise`; imports no torch until one is called.

A family of backbones is one module with a `load` function and one line in `names.FAMILIES`.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from engine.backbones.names import FAMILIES, BackboneName, paradigm_of, parse_name

if TYPE_CHECKING:
    from engine.backbones.backbone import Backbone

__all__ = ["FAMILIES", "BackboneName", "initialise", "load_backbone", "paradigm_of", "parse_name"]


def load_backbone(name: str, *, weights: Path | None = None, input_size: int | None = None) -> Backbone:
    """Builds a pre-trained backbone, in evaluation mode, on the CPU; leaves the global random state as it was.

    Args:
        name: such as `timm:vit_base_patch16_224.augreg_in21k`; see `names.FAMILIES`.
        weights: a local .safetensors file instead of the hub cache. It may have a classifier of any number of classes.
        input_size: height and width in pixels. Position embeddings are resized by the library's own code. The default
            is that of the pre-training, but 224 for DINOv2.
    Raises:
        StudyError: the name is malformed or unknown, its layers cannot be read, or the input size does not suit it.
        WeightsError: the weights are missing, are a pickle, hold values that are not finite, or do not fit.
        DamagedError: the weights file is cut short.
    """
    parsed = parse_name(name)

    import torch

    load = import_module(FAMILIES[parsed.family].module).load
    with torch.random.fork_rng(devices=[]):
        backbone: Backbone = load(parsed, weights, input_size)
    return backbone.eval()


def initialise(backbone: Backbone, seed: int) -> None:
    """Re-draws all weights in place as the library initialises them, the same for the same seed on any device.

    The global random state is left as it was. `backbone.info` says from then on that the weights are random.
    """
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the GPUs, which are not forked
        fresh = backbone.create()
    backbone.model.load_state_dict(fresh.state_dict())
    backbone.info = replace(backbone.info, weights_source=f"random (seed {seed})", weights_sha256=None)
