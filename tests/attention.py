"""Makes attention maps for tests, without any model."""

from __future__ import annotations

import numpy as np

from engine.runs.attention_maps import AttentionMaps

SIDE, N_HEADS, PIXELS = 4, 3, 8


def made_maps(
    seed: int = 0,
    *,
    images: tuple[str, ...] = ("a/1.png", "a/2.png", "b/3.png", "c/10.png"),
    domains: tuple[str, ...] = ("target", "target", "origin", "origin"),
    poolings: tuple[str, ...] = ("cls", "feat"),
    layers: tuple[str, ...] = ("blocks.0", "blocks.1"),
    with_pixels: bool = False,
) -> AttentionMaps:
    """Maps over 4 × 4 patches of images of 8 × 8 pixels by 3 heads, of which 9 tenths of each go to the patches."""
    draw = np.random.default_rng(seed)
    shape = (len(images), len(layers), N_HEADS)
    maps = {each: 0.9 * draw.dirichlet(np.full(SIDE**2, 0.5), shape) for each in poolings}
    shares = {each: values / values.sum(-1, keepdims=True) for each, values in maps.items()}
    return AttentionMaps(
        images,
        domains,
        layers,
        {each: values.astype(np.float16) for each, values in maps.items()},
        {each: -(values * np.log(values + 1e-30)).sum(-1).astype(np.float32) for each, values in shares.items()},
        draw.uniform(0, 11, shape).astype(np.float32),
        draw.integers(0, 256, (len(images), PIXELS, PIXELS, 3), dtype=np.uint8) if with_pixels else None,
    )
