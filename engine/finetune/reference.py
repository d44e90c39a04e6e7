"""The pre-trained model θ*, looked at once for all runs of a backbone: activations, features, origin k-NN."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from engine.activations.extract import Progress, extract, key_of
from engine.activations.store import Activations, ActivationStore
from engine.backbones import load_backbone
from engine.backbones.backbone import Backbone
from engine.data.pixels import PixelCache
from engine.finetune.inputs import Inputs
from engine.study import BackboneSection


@dataclass(frozen=True)
class Reference:
    """What θ* makes of the images: `probe` with all layers; `embeddings[split]` `(n, d)` of train, val and test.

    `keys` are those of its files in the activation store.
    """

    probe: Activations
    embeddings: Mapping[str, np.ndarray]
    origin_embedding: np.ndarray | None
    keys: tuple[str, ...] = ()


def load_reference_backbone(section: BackboneSection, device: torch.device) -> Backbone:
    """The pre-trained backbone that a study names, on a device, in eval mode."""
    weights = Path(section.weights) if section.weights else None
    return load_backbone(section.name, weights=weights, input_size=section.input_size).to(device).eval()


def take_reference(
    backbone: Backbone, inputs: Inputs, store: ActivationStore, on_progress: Callable[[str], Progress]
) -> Reference:
    """Extracts what the store does not have yet; `backbone` must still be as it was loaded."""

    keys: list[str] = []

    def kept(digest: str, ids: Sequence[str], make: Callable[[], Activations]) -> Activations:
        keys.append(key_of(backbone.info, digest))
        return store.get_or_make(keys[-1], ids, make)

    def embedding(what: str, cache: PixelCache) -> np.ndarray:
        ids = [item.id for item in cache.items]
        return kept(cache.digest, ids, lambda: extract(backbone, cache, progress=on_progress(what))).embedding

    def probe() -> Activations:
        test = extract(
            backbone, inputs.splits["test"], layer_rows=inputs.probe_rows, progress=on_progress("probe images")
        )
        return inputs.probe_activations(test)

    return Reference(
        kept(inputs.probe_digest, inputs.probe_ids, probe),
        {split: embedding(f"{split} images", cache) for split, cache in inputs.splits.items()},
        embedding("origin images", inputs.origin) if inputs.origin else None,
        tuple(keys),
    )
