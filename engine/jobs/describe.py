"""What the libraries say of backbones by name: `python -m engine.jobs.describe NAME [--weights FILE]` prints JSON.

A process of its own, because it loads torch. Nothing is fetched: without a file, the model is built without weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from engine.backbones import load_backbone
from engine.backbones.facts import BackboneFacts
from engine.backbones.names import FAMILIES, parse_name
from engine.jobs.child import answer_for


def facts_of(text: str, weights: Path | None = None) -> BackboneFacts:
    """The facts of a backbone; a local file of weights is loaded into it, so that what does not fit is said now.

    Raises:
        StudyError: the name is malformed or unknown, with the nearest; or its layers cannot be read.
        WeightsError, DamagedError: the file does not fit, or is damaged.
    """
    name = parse_name(text)
    backbone, (repository, filename) = import_module(FAMILIES[name.family].module).without_weights(name)
    if weights is not None:
        load_backbone(text, weights=weights)
    info = backbone.info
    is_vit = info.layer_kind == "blocks"
    attention = backbone.blocks[0].attn if is_vit else None
    return BackboneFacts(
        text,
        info.input_size,
        info.n_blocks,
        (int(getattr(attention, "num_heads", 0)) or info.n_features // 64) if is_vit else 0,
        info.n_features,
        (info.input_size // _patch_side(backbone.model)) ** 2 if is_vit else 0,
        sum(parameter.numel() for parameter in backbone.parameters()),
        len(info.poolings),
        repository,
        filename,
        () if is_vit else info.widths,
    )


def _patch_side(model: object) -> int:
    """Pixels of a patch's side: the stride of the convolution that makes patches."""
    embed = getattr(model, "patch_embed", None)
    convolution = embed.proj if embed is not None else model.conv1  # type: ignore[attr-defined]
    return int(convolution.stride[0]) if hasattr(convolution, "stride") else 16


def main(arguments: list[str]) -> int:
    """Prints the facts, or the error; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args(arguments)
    return answer_for(lambda: print(json.dumps(asdict(facts_of(options.name, options.weights)))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
