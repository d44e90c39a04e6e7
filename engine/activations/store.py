"""Owns the activation files: one immutable HDF5 file for each (weights, images); knows nothing of models.

The name of a file is the digest of everything that decides its content, so runs share files and never write one twice.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.errors import DamagedError
from engine.files import digest
from engine.hdf5 import NamedArray, open_arrays, write_arrays

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Activations:
    """What a backbone makes of `n` images.

    `embedding` is `(n, d_embedding)` float32: what a classifier sits on. `pooled[pooling]` is `(n_layers, n, d)`: the
    output of every block, one vector an image (`cls` or `feat`), in the type that is stored.
    """

    ids: tuple[str, ...]
    embedding: np.ndarray
    layers: tuple[str, ...] = ()
    pooled: Mapping[str, np.ndarray] = field(default_factory=dict)


def remake_activations(path: Path) -> str:
    """What makes one activation file again: the study makes what it needs and lacks."""
    return f"rm {shlex.quote(str(path))} && simtui run {shlex.quote(str(path.parent.parent))}"


def as_stored(values: np.ndarray) -> np.ndarray:
    """float16 (it costs similarity ≤ 6e-6), or float32 where a value would overflow it."""
    overflows = np.abs(values).max(initial=0.0) > np.finfo(np.float16).max
    return values.astype(np.float32 if overflows else np.float16)


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
            layers = tuple(sorted(file.names("/layers"), key=block_number))
            poolings = file.names(f"/layers/{layers[0]}") if layers else ()
            pooled = {p: np.stack([file.array(f"/layers/{layer}/{p}") for layer in layers]) for p in poolings}
            found = Activations(stored_ids, file.array("/embedding"), layers, pooled)
        if stored_ids != tuple(ids) or any(
            len(values) != len(ids) for values in (found.embedding, *(p[0] for p in pooled.values()))
        ):
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
        arrays = {
            f"/layers/{layer}/{pooling}": NamedArray(values[i], ("image", "feature"))
            for pooling, values in activations.pooled.items()
            for i, layer in enumerate(activations.layers)
        }
        arrays["/embedding"] = NamedArray(activations.embedding, ("image", "embedding_feature"))
        coordinates = {
            "image": np.array(activations.ids),
            "embedding_feature": np.arange(activations.embedding.shape[1], dtype=np.int32),
        }
        for values in activations.pooled.values():
            coordinates["feature"] = np.arange(values.shape[2], dtype=np.int32)
        write_arrays(self.path(key), arrays, coordinates, {"kind": "activations", "key": key})


def block_number(layer: str) -> tuple[int, str]:
    """Sorts layers by the number at the end of their names."""
    digits = layer.rpartition(".")[2]
    return (int(digits) if digits.isdecimal() else -1, layer)
