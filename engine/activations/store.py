"""Owns the activation files: one immutable HDF5 file for each (weights, images); knows nothing of models.

The name of a file is the digest of everything that decides its content, so runs share files and never write one twice.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.errors import DamagedError
from engine.files import digest
from engine.hdf5 import NamedArray, Reader, open_arrays, write_arrays

_log = logging.getLogger(__name__)
_ORDER = "layer"
# Energy of the rounding beside that of the differences between images; of pre-trained ViTs it is 1e-7 to 1e-6.
_MAX_ROUNDING = 5e-6


@dataclass(frozen=True)
class Activations:
    """What a backbone makes of `n` images.

    `embedding` is `(n, d_embedding)` float32: what a classifier sits on. `pooled[pooling]` are the outputs of the
    layers, one vector an image (`cls` or `feat`), each `(n, d_i)`: the blocks of a transformer are of one width, the
    stages of other networks are not. All are in the type that is stored.
    """

    ids: tuple[str, ...]
    embedding: np.ndarray
    layers: tuple[str, ...] = ()
    pooled: Mapping[str, tuple[np.ndarray, ...]] = field(default_factory=dict)


def remake_activations(path: Path) -> str:
    """What makes one activation file again: the study makes what it needs and lacks."""
    return f"rm {shlex.quote(str(path))} && simtui run {shlex.quote(str(path.parent.parent))}"


def as_stored(layers: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """float16, or float32 where any layer needs it: a value would overflow, or what differs between images would drown.

    The latter where a layer hardly varies beside a huge mean, which similarity does not see: float16 is as coarse as
    the mean is large. Up to the limit, the rounding changes linear CKA by less than 1e-4.
    """
    dtype = np.float32 if any(map(_needs_float32, layers)) else np.float16
    return tuple(values.astype(dtype) for values in layers)


def _needs_float32(values: np.ndarray) -> bool:
    if np.abs(values).max(initial=0.0) > np.finfo(np.float16).max:
        return True
    if not len(values):
        return False
    exact = values.astype(np.float64)
    error = values.astype(np.float16) - exact
    rounded, spread = (np.square(each - each.mean(axis=0)).sum() for each in (error, exact))
    return bool(rounded > _MAX_ROUNDING * spread)


def activation_key(weights_sha256: str, images_digest: str, preprocessing: Sequence[object]) -> str:
    """The name of the file that holds the activations of these images under these weights."""
    return digest({"weights": weights_sha256, "images": images_digest, "preprocessing": list(preprocessing)})


class ActivationStore:
    """The activation files under one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, key: str) -> Path:
        """Where the file of this key lies, whether it is there or not."""
        return self._folder / f"{key}.h5"

    def images_of_layers(self, key: str) -> tuple[str, ...]:
        """The images whose layers a file holds, in order; none where it holds an embedding alone, or something else.

        Raises:
            DamagedError: the file is missing or damaged.
        """
        path = self.path(key)
        with open_arrays(path, remake_activations(path)) as file:
            return file.strings("/image") if file.names("/layers") else ()

    def load(self, key: str, ids: Sequence[str]) -> Activations | None:
        """The activations of this key; None where there are none yet.

        Raises:
            DamagedError: the file is damaged, or holds other images or another order than `ids`.
        """
        path = self.path(key)
        if not path.exists():
            return None
        remake = remake_activations(path)
        with open_arrays(path, remake) as file:
            stored_ids = file.strings("/image")
            layers = layers_in_order(file)
            poolings = file.names(f"/layers/{layers[0]}") if layers else ()
            pooled = {p: tuple(file.array(f"/layers/{layer}/{p}") for layer in layers) for p in poolings}
            found = Activations(stored_ids, file.array("/embedding"), layers, pooled)
        arrays = (found.embedding, *(values for layers_of in pooled.values() for values in layers_of))
        if stored_ids != tuple(ids) or any(len(values) != len(ids) for values in arrays):
            raise DamagedError(str(path), "holds other images than its name says", remake)
        return found

    def get_or_make(self, key: str, ids: Sequence[str], make: Callable[[], Activations]) -> Activations:
        """The activations of this key, made and written where they are missing or damaged; as they read back."""
        try:
            found = self.load(key, ids)
        except DamagedError as error:
            _log.warning("%s; it is made again", error)
            found = None
        if found is None:
            self.save(key, make())
            found = self.load(key, ids)
            assert found is not None
        return found

    def save(self, key: str, activations: Activations) -> None:
        """Writes the file of this key, whole."""
        widths = {values.shape[1] for layers in activations.pooled.values() for values in layers}
        arrays, scales = {}, {}
        for pooling, layers in activations.pooled.items():
            for layer, values in zip(activations.layers, layers, strict=True):
                scale = "feature" if len(widths) == 1 else f"feature_{layer}"  # a dimension has one length
                arrays[f"/layers/{layer}/{pooling}"] = NamedArray(values, ("image", scale))
                scales[scale] = np.arange(values.shape[1], dtype=np.int32)
        arrays["/embedding"] = NamedArray(activations.embedding, ("image", "embedding_feature"))
        coordinates = {
            "image": np.array(activations.ids),
            "embedding_feature": np.arange(activations.embedding.shape[1], dtype=np.int32),
            **scales,
        }
        if activations.layers:
            coordinates[_ORDER] = np.array(activations.layers)
        write_arrays(self.path(key), arrays, coordinates, {"kind": "activations", "key": key})


def layers_in_order(file: Reader) -> tuple[str, ...]:
    """The layers of an open file, first to last: as it says itself, or by number in files that do not.

    Raises:
        DamagedError: it says other layers than it holds.
    """
    held = file.names("/layers")
    if _ORDER not in file.names("/"):
        return tuple(sorted(held, key=block_number))
    said = file.strings(f"/{_ORDER}")
    if sorted(said) != sorted(held):
        raise DamagedError(str(file.path), "holds other layers than it says", remake_activations(file.path))
    return said


def block_number(layer: str) -> tuple[int, str]:
    """Sorts layers by the number at the end of their names."""
    digits = re.search(r"\d*$", layer)
    return (int(digits[0]) if digits and digits[0] else -1, layer)
