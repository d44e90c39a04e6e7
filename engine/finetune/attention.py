"""The attention maps of a model on a fixed set of images, and how far they are from those of θ*."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from engine.activations.extract import centre_crop, normalised
from engine.backbones.attention import BlockAttention, attention_of
from engine.backbones.backbone import Backbone
from engine.data.pixels import PixelCache
from engine.files import digest
from engine.quality.attention import map_correlation, map_overlap
from engine.runs.attention_maps import AttentionMaps, metric_name

# The matrices of one block take heads · tokens² floats an image, and reducing them about three times that: 8 images of
# 224 pixels are 60 MB for ViT-B/16. The tokens grow with the square of the side, so one image of 518 pixels is enough.
_BATCH_SIZE, _AT_PIXELS, _MAX_BATCH_SIZE = 8, 224, 64


def attention_digest(images: Mapping[str, PixelCache]) -> str:
    """Digest of the images of an attention set and of how their pixels were made."""
    return digest(["attention", *(f"{domain}:{cache.digest}" for domain, cache in images.items())])


def attention_ids(images: Mapping[str, PixelCache]) -> tuple[str, ...]:
    """The ids of an attention set, in the order of its maps."""
    return tuple(item.id for cache in images.values() for item in cache.items)


def take_attention(backbone: Backbone, images: Mapping[str, PixelCache], *, with_pixels: bool = False) -> AttentionMaps:
    """The maps of a model on every image of the set, in eval mode and float32.

    Args:
        images: domain -> its images.
        with_pixels: keeps the images too, as the model sees them.
    Raises:
        StudyError: the blocks of this backbone do not give their attention.
    """
    domains = tuple(domain for domain, cache in images.items() for _ in cache.items)
    pixels = [np.asarray(cache.pixels[np.arange(len(cache.items))]) for cache in images.values()]
    cropped = centre_crop(torch.from_numpy(np.concatenate(pixels)), backbone.info.input_size)
    return attention_maps(backbone, cropped, attention_ids(images), domains, with_pixels=with_pixels)


def attention_maps(
    backbone: Backbone, pixels: Tensor, ids: tuple[str, ...], domains: tuple[str, ...], *, with_pixels: bool = False
) -> AttentionMaps:
    """The maps of a model on `(n, s, s, 3)` uint8 pixels, s its input size.

    Raises:
        StudyError: the blocks of this backbone do not give their attention.
    """
    device = next(backbone.parameters()).device
    batches = pixels.split(_batch_size(backbone.info.input_size))
    parts = [attention_of(backbone, normalised(batch.to(device), backbone.info)) for batch in batches]
    poolings = backbone.info.poolings
    return AttentionMaps(
        ids,
        domains,
        backbone.info.layers,
        {pooling: _joined(parts, pooling).astype(np.float16) for pooling in poolings},
        {pooling: _joined(parts, f"{pooling}_entropy") for pooling in poolings},
        _joined(parts, "distance"),
        pixels.numpy() if with_pixels else None,
    )


def attention_metrics(reference: AttentionMaps, found: AttentionMaps) -> dict[str, np.ndarray]:
    """How the attention of a model is, and how alike to that of θ*, by layer, mean over the images of each domain.

    Returns:
        `attention_{statistic}_{domain}_{pooling}` -> `(n_layers,)` float64, for the statistics `entropy` (nats) and
        `distance` (pixels; `feat` only), means over images and heads; `correlation` and `overlap` with θ*'s, of the
        maps averaged over the heads, because heads need not keep their places. NaN where undefined for an image.
    """
    metrics: dict[str, np.ndarray] = {}
    for domain in dict.fromkeys(found.domains):
        rows = np.array([each == domain for each in found.domains])
        for pooling, maps in found.maps.items():
            before, after = (each.astype(np.float64).mean(2)[rows] for each in (reference.maps[pooling], maps))
            values = {
                "entropy": found.entropy[pooling][rows].mean(2),
                "correlation": map_correlation(before, after),
                "overlap": map_overlap(before, after),
            }
            if pooling == "feat":
                values["distance"] = found.distance[rows].mean(2)
            metrics |= {
                metric_name(name, domain, pooling): value.astype(np.float64).mean(0) for name, value in values.items()
            }
    return metrics


def _batch_size(input_size: int) -> int:
    return max(1, min(_MAX_BATCH_SIZE, int(_BATCH_SIZE * (_AT_PIXELS / input_size) ** 4)))


def _joined(parts: list[BlockAttention], name: str) -> np.ndarray:
    joined: np.ndarray = torch.cat([getattr(part, name).cpu() for part in parts]).numpy()
    return joined
