"""Takes the outputs of every layer for a set of images in one pass; knows nothing of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.activations.store import Activations, activation_key, as_stored
from engine.backbones.backbone import Backbone, BackboneInfo
from engine.data.pixels import PixelCache, Pixels
from engine.data.prefetch import Prefetched
from engine.errors import NonFiniteError

BATCH_SIZE = 128
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Portion:
    """Which batches this process looks at: every `n_processes`-th, from the `process`-th on.

    Whole batches, so that a device computes what it would compute of all of them. `merge` gives the rows of all
    processes in each, from this one's own, where they belong and how many there are.
    """

    process: int = 0
    n_processes: int = 1
    merge: Callable[[np.ndarray, np.ndarray, int], np.ndarray] = lambda own, rows, n: own

    def starts(self, n: int) -> range:
        """Where the batches begin."""
        return range(self.process * BATCH_SIZE, n, self.n_processes * BATCH_SIZE)

    def has(self, n: int) -> np.ndarray:
        """`(n,)` whether an image is in one of them."""
        found: np.ndarray = np.arange(n) // BATCH_SIZE % self.n_processes == self.process
        return found


def standardised(images: Tensor, info: BackboneInfo) -> Tensor:
    """`(n, 3, s, s)` float32 in [0, 1] -> the same, as the backbone was trained to see it; the argument is reused."""
    mean = torch.tensor(info.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(info.std, device=images.device).view(1, 3, 1, 1)
    return images.sub_(mean).div_(std)


def normalised(pixels: Tensor, info: BackboneInfo) -> Tensor:
    """`(n, s, s, 3)` uint8 -> `(n, 3, s, s)` float32, as the backbone was trained to see it."""
    return standardised(pixels.permute(0, 3, 1, 2).float() / 255.0, info)


def centre_crop(pixels: Tensor, size: int) -> Tensor:
    """The middle `size` × `size` of `(n, s, s, 3)` pixels: how images are seen whenever nothing is trained."""
    top = (pixels.shape[1] - size) // 2
    return pixels[:, top : top + size, top : top + size]


@torch.inference_mode()
def extract(
    backbone: Backbone,
    cache: PixelCache,
    *,
    layer_rows: np.ndarray | None = None,
    progress: Progress | None = None,
    as_computed: bool = False,
    portion: Portion = Portion(),
) -> Activations:
    """Embeds all images of a cache; keeps the pooled outputs of every layer for some of them.

    Always in eval mode and float32: activations of two models are compared, so neither may be rounded more.

    Args:
        as_computed: the layers stay float32; else they are rounded as they are stored. Rounding costs nothing that is
            seen unless a layer hardly differs between images beside a large mean.
        layer_rows: `(m,)` rows, in increasing order, whose layer outputs are kept; None for none.
        portion: of the images, where several processes share them; what is returned is of all.
    Returns:
        `embedding` of all `n` images; `pooled` of the `m`; `ids` of all.
    Raises:
        NonFiniteError: an output is NaN or infinite; names the layer and the first image.
    """
    info = backbone.info
    ids = tuple(item.id for item in cache.items)
    wanted = np.zeros(len(ids), bool)
    if layer_rows is not None:
        wanted[layer_rows] = True
    embeddings = [np.empty((0, info.n_features), np.float32)]
    empty = [np.empty((0, width), np.float32) for width in info.widths]
    kept = {pooling: [[each] for each in empty] for pooling in (info.poolings if wanted.any() else ())}
    was_training = backbone.training
    backbone.eval()
    for start, batch in _batches(cache.pixels, info, next(backbone.parameters()).device, portion):
        mask = wanted[start : start + len(batch)]
        if mask.any():
            outputs = backbone.forward_blocks(batch)
            embedding = outputs.embedding
            chosen = torch.from_numpy(np.flatnonzero(mask)).to(batch.device)
            for pooling in info.poolings:
                values: tuple[Tensor, ...] = getattr(outputs, pooling)
                for part, layer in zip(kept[pooling], values, strict=True):
                    part.append(layer[chosen].float().cpu().numpy())
        else:
            embedding = backbone(batch)
        embeddings.append(embedding.float().cpu().numpy())
        if progress:
            progress(min(start + len(batch), len(ids)), len(ids))
    backbone.train(was_training)
    is_own = portion.has(len(ids))
    rows, own_of_layers = np.flatnonzero(is_own), np.flatnonzero(is_own[wanted])
    embedding_of_all = portion.merge(np.concatenate(embeddings), rows, len(ids))
    pooled = {
        pooling: tuple(portion.merge(np.concatenate(part), own_of_layers, int(wanted.sum())) for part in parts)
        for pooling, parts in kept.items()
    }
    found = Activations(ids, embedding_of_all, info.layers if pooled else (), pooled)
    _check_finite(found, np.flatnonzero(wanted))
    if as_computed:
        return found
    return Activations(found.ids, found.embedding, found.layers, {p: as_stored(v) for p, v in pooled.items()})


def key_of(info: BackboneInfo, images_digest: str) -> str:
    """The name under which the store keeps the activations of these images under the weights as they were loaded."""
    preprocessing = (info.name, info.input_size, info.mean, info.std)
    return activation_key(info.weights_sha256 or info.weights_source, images_digest, preprocessing)


def _batches(
    pixels: Pixels, info: BackboneInfo, device: torch.device, portion: Portion
) -> Iterator[tuple[int, Tensor]]:
    starts = portion.starts(len(pixels))
    read = Prefetched(lambda start: np.array(pixels[start : start + BATCH_SIZE]), starts)
    for start, batch in zip(starts, read, strict=True):
        moved = torch.from_numpy(batch).to(device, non_blocking=True)
        yield start, normalised(centre_crop(moved, info.input_size), info)


def _check_finite(found: Activations, layer_rows: np.ndarray) -> None:
    # Layer by layer from the input: the first that is not finite is where it begins.
    parts = [
        (layer, matrix, layer_rows)
        for i, layer in enumerate(found.layers)
        for matrix in (values[i] for values in found.pooled.values())
    ]
    for where, matrix, rows in [*parts, ("the embedding", found.embedding, np.arange(len(found.ids)))]:
        bad = ~np.isfinite(matrix).all(axis=1)
        if bad.any():
            first = found.ids[int(rows[np.argmax(bad)])]
            raise NonFiniteError(
                f"activations of {where}",
                f"not finite for {int(bad.sum())} images, first {first!r}",
                "lower the learning rate; if the model is not trained, check its weights file",
            )
