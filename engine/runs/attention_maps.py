"""Owns the files of attention maps: of θ* in the activation store, of a run in its folder; knows no models.

Maps of one set of images, so that before and after can be laid side by side years later without any image or weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.errors import DamagedError, StudyError
from engine.hdf5 import NamedArray, Reader, open_arrays, write_arrays
from engine.runs.record import RunRecord

ATTENTION_FILE = "attention.h5"
DOMAINS = ("target", "origin")
NONE_IN_STAGES = "its layers are stages of maps, which have no CLS token and no attention over the whole image"


@dataclass(frozen=True)
class AttentionMaps:
    """What the heads of every layer look at, for n images of P = side × side patches, row by row.

    Attributes:
        images: ids, in the order of everything else.
        domains: "target" or "origin" of each; "file" of an image that is in neither.
        maps: pooling -> `(n, n_layers, n_heads, P)` float16: attention that the CLS token ("cls"), or the patch tokens
            on average ("feat"), pay to each patch; what goes to CLS and registers is missing from the sums.
        entropy: pooling -> `(n, n_layers, n_heads)` float32 in nats, over the patches.
        distance: `(n, n_layers, n_heads)` float32: how far from itself a patch token looks, in pixels of the input.
        pixels: `(n, s, s, 3)` uint8, the images as the model sees them; kept with the maps of θ*.
    """

    images: tuple[str, ...]
    domains: tuple[str, ...]
    layers: tuple[str, ...]
    maps: Mapping[str, np.ndarray]
    entropy: Mapping[str, np.ndarray]
    distance: np.ndarray
    pixels: np.ndarray | None = field(default=None)

    @property
    def n_heads(self) -> int:
        """Heads of a layer."""
        return int(self.distance.shape[2])

    @property
    def side(self) -> int:
        """Patches in a row of an image."""
        return round(float(next(iter(self.maps.values())).shape[3]) ** 0.5)


def refuse_stages(record: RunRecord) -> None:
    """Says of a run whose backbone has no attention that it has none.

    Raises:
        StudyError: the layers of the run's backbone are stages.
    """
    if record.provenance.layer_kind == "stages":
        problem = f"{record.spec.backbone.name} has no attention maps: {NONE_IN_STAGES}"
        raise StudyError(record.run_id, problem, "choose a run of a ViT")


def metric_name(statistic: str, domain: str, pooling: str) -> str:
    """The name in `Results.layer_quality` of what is made of the maps: `entropy`, `distance` and the like."""
    return f"attention_{statistic}_{domain}_{pooling}"


def write_attention(path: Path, found: AttentionMaps) -> None:
    """Writes the maps into one file that appears whole."""
    n_patches = found.side**2
    coordinates = {
        "image": np.array(found.images),
        "domain": np.array(found.domains),
        "layer": np.array(found.layers),
        "head": np.arange(found.n_heads, dtype=np.int32),
        "patch": np.arange(n_patches, dtype=np.int32),
    }
    each_head = ("image", "layer", "head")
    arrays = {f"/maps/{pooling}": NamedArray(values, (*each_head, "patch")) for pooling, values in found.maps.items()}
    arrays |= {f"/entropy/{pooling}": NamedArray(values, each_head) for pooling, values in found.entropy.items()}
    arrays["/distance"] = NamedArray(found.distance, each_head)
    if found.pixels is not None:
        side = found.pixels.shape[1]
        coordinates |= {"pixel": np.arange(side, dtype=np.int32), "channel": np.arange(3, dtype=np.int32)}
        coordinates["pixel_row"] = coordinates["pixel"]
        arrays["/pixels"] = NamedArray(found.pixels, ("image", "pixel_row", "pixel", "channel"))
    write_arrays(path, arrays, coordinates, {"kind": "attention"})


def read_attention(path: Path, remake: str) -> AttentionMaps:
    """Reads maps of attention.

    Args:
        remake: what makes the file again, for the error.
    Raises:
        DamagedError: missing, damaged, not attention, or shapes that do not fit together.
    """
    with open_arrays(path, remake) as file:
        poolings = file.names("/maps")
        found = AttentionMaps(
            file.strings("/image"),
            file.strings("/domain"),
            file.strings("/layer"),
            {pooling: file.array(f"/maps/{pooling}") for pooling in poolings},
            {pooling: file.array(f"/entropy/{pooling}") for pooling in file.names("/entropy")},
            file.array("/distance"),
            _pixels(file),
        )
    problem = _misfit(found)
    if problem:
        raise DamagedError(str(path), problem, remake)
    return found


def _pixels(file: Reader) -> np.ndarray | None:
    return file.array("/pixels") if "pixels" in file.names("/") else None


def _misfit(found: AttentionMaps) -> str:
    """What does not fit together; empty where everything does."""
    n, n_layers = len(found.images), len(found.layers)
    if len(found.domains) != n or found.distance.ndim != 3 or found.distance.shape[:2] != (n, n_layers):
        return f"holds {n} images and {n_layers} layers, but distances of {found.distance.shape}"
    if not found.maps or set(found.maps) != set(found.entropy):
        return f"holds maps of {sorted(found.maps)} and entropies of {sorted(found.entropy)}"
    if any(maps.ndim != 4 for maps in found.maps.values()):
        return f"holds maps of {[maps.shape for maps in found.maps.values()]}; need four dimensions"
    for pooling, maps in found.maps.items():
        need = (n, n_layers, found.n_heads, found.side**2)
        if maps.shape != need or found.entropy[pooling].shape != need[:3]:
            return f"{pooling} maps are {maps.shape}, entropies {found.entropy[pooling].shape}; need {need}"
    pixels = found.pixels
    if pixels is not None:
        is_square = pixels.ndim == 4 and pixels.shape == (n, pixels.shape[1], pixels.shape[1], 3)
        if not is_square or pixels.dtype != np.uint8:
            return f"holds pixels of {pixels.dtype} {pixels.shape} for {n} images"
    return ""
