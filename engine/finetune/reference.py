"""The pre-trained model θ*, looked at once for all runs of a backbone: activations, features, origin k-NN."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from engine.activations.extract import Progress, extract, key_of
from engine.activations.store import Activations, ActivationStore, remake_activations
from engine.backbones import load_backbone
from engine.backbones.backbone import Backbone
from engine.data.pixels import PixelCache
from engine.errors import DamagedError, StudyError
from engine.finetune.attention import attention_digest, attention_ids, take_attention
from engine.finetune.inputs import Inputs
from engine.runs.attention_maps import AttentionMaps, read_attention, write_attention
from engine.study import BackboneSection

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reference:
    """What θ* makes of the images: `probe` with all layers; `embeddings[split]` `(n, d)` of train, val and test,
    where anything is trained.

    Attributes:
        keys: of its files in the activation store.
        origin_probe: all layers on the origin images that are compared; None where none are.
        attention: maps of the images whose attention is kept; None where none is, or where it cannot be read.
        attention_key: of their file.
        notes: what the user should know.
    """

    probe: Activations
    embeddings: Mapping[str, np.ndarray]
    origin_embedding: np.ndarray | None
    keys: tuple[str, ...] = ()
    origin_probe: Activations | None = None
    attention: AttentionMaps | None = None
    attention_key: str = ""
    notes: tuple[str, ...] = ()

    @property
    def probes(self) -> dict[str, Activations]:
        """The activations that those of every model are compared with, by domain."""
        return {"target": self.probe, **({"origin": self.origin_probe} if self.origin_probe else {})}


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

    def all_layers(what: str, cache: PixelCache) -> Activations:
        rows = np.arange(len(cache.items))
        ids = [item.id for item in cache.items]
        return kept(cache.digest, ids, lambda: extract(backbone, cache, layer_rows=rows, progress=on_progress(what)))

    def probe() -> Activations:
        test = extract(
            backbone, inputs.splits["test"], layer_rows=inputs.probe_rows, progress=on_progress("probe images")
        )
        return inputs.probe_activations(test)

    attention, attention_key, notes = _attention(backbone, inputs, store)
    if attention:
        keys.append(attention_key)
    found = Reference(
        kept(inputs.probe_digest, inputs.probe_ids, probe),
        # Only what is trained is trained on features.
        {split: embedding(f"{split} images", cache) for split, cache in inputs.splits.items()}
        if "train" in inputs.splits
        else {},
        embedding("origin images", inputs.origin) if inputs.origin else None,
        origin_probe=all_layers("origin probe images", inputs.origin_probe) if inputs.origin_probe else None,
        attention=attention,
        attention_key=attention_key if attention else "",
        notes=notes,
    )
    return replace(found, keys=tuple(keys))


def _attention(
    backbone: Backbone, inputs: Inputs, store: ActivationStore
) -> tuple[AttentionMaps | None, str, tuple[str, ...]]:
    """θ*'s maps from the store, or made now, and their key; a backbone that gives none is said, and does without."""
    if not inputs.attention:
        return None, "", ()
    key = key_of(backbone.info, attention_digest(inputs.attention))
    path = store.path(key)
    try:
        known = read_attention(path, remake_activations(path))
        if known.images != attention_ids(inputs.attention) or known.pixels is None:
            raise DamagedError(str(path), "holds other images than its name says", remake_activations(path))
        return known, key, ()
    except DamagedError as error:
        if path.exists():
            _log.warning("%s; it is made again", error)
    try:
        found = take_attention(backbone, inputs.attention, with_pixels=True)
    except StudyError as error:
        return None, key, (f"no attention maps: {error.where}: {error.problem}",)
    write_attention(path, found)
    return found, key, ()
