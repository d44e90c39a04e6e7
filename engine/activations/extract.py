"""Takes the outputs of every layer for a set of images in one pass; knows nothing of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
) -> Activations:
    """Embeds all images of a cache; keeps the pooled outputs of every layer for some of them.

    Always in eval mode and float32: activations of two models are compared, so neither may be rounded more.

    Args:
        as_computed: the layers stay float32; else they are rounded as they are stored. Rounding costs nothing that is
            seen unless a layer hardly differs between images beside a large mean.
        layer_rows: `(m,)` rows, in increasing order, whose layer outputs are kept; None for none.
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
    embeddings: list[np.ndarray] = []
    kept: dict[str, list[list[np.ndarray]]] = {}
    was_training = backbone.training
    backbone.eval()
    for start, batch in _batches(cache.pixels, info, next(backbone.parameters()).device):
        mask = wanted[start : start + len(batch)]
        if mask.any():
            outputs = backbone.forward_blocks(batch)
            embedding = outputs.embedding
            chosen = torch.from_numpy(np.flatnonzero(mask)).to(batch.device)
            for pooling in info.poolings:
                values: tuple[Tensor, ...] = getattr(outputs, pooling)
                parts = kept.setdefault(pooling, [[] for _ in values])
                for part, layer in zip(parts, values, strict=True):
                    part.append(layer[chosen].float().cpu().numpy())
        else:
            embedding = backbone(batch)
        embeddings.append(embedding.float().cpu().numpy())
        if progress:
            progress(min(start + len(batch), len(ids)), len(ids))
    backbone.train(was_training)
    pooled = {pooling: tuple(map(np.concatenate, parts)) for pooling, parts in kept.items()}
    found = Activations(ids, np.concatenate(embeddings), info.layers if pooled else (), pooled)
    _check_finite(found, np.flatnonzero(wanted))
    if as_computed:
        return found
    return Activations(found.ids, found.embedding, found.layers, {p: as_stored(v) for p, v in pooled.items()})


def key_of(info: BackboneInfo, images_digest: str) -> str:
    """The name under which the store keeps the activations of these images under the weights as they were loaded."""
    preprocessing = (info.name, info.input_size, info.mean, info.std)
    return activation_key(info.weights_sha256 or info.weights_source, images_digest, preprocessing)


def _batches(pixels: Pixels, info: BackboneInfo, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    starts = range(0, len(pixels), BATCH_SIZE)
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
