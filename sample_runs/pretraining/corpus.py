"""The generated images that pre-training sees, rendered once into a memory-mapped file; knows nothing of recipes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from engine.data.synthetic.scenes import CLASSES, PRETRAINING_SEEDS, SIZE, scene
from engine.files import atomic_path, read_json, write_json

IMAGES_A_CORPUS = 1_000_000
IMAGES_A_CHUNK = 240


@dataclass(frozen=True)
class Corpus:
    """Images of all classes in turn: `pixels` `(n, s, s, 3)` uint8, `labels` `(n,)` int64, one caption an image."""

    pixels: np.ndarray
    labels: np.ndarray
    captions: tuple[str, ...]


def render_corpus(
    folder: Path, n: int, seed: int, n_processes: int, progress: Callable[[int, int], None] | None = None
) -> Corpus:
    """Renders `n` images of the pre-training seeds into `folder`, or maps those that are there already."""
    pixels_path, captions_path = (folder / f"scenes-{n}-{seed}{suffix}" for suffix in (".npy", ".json"))
    if not (pixels_path.is_file() and captions_path.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        captions: list[str] = []
        starts = range(0, n, IMAGES_A_CHUNK)
        with atomic_path(pixels_path) as path, ProcessPoolExecutor(n_processes) as pool:
            pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, SIZE, SIZE, 3))
            for start, (images, texts) in zip(starts, pool.map(partial(_chunk, n, seed), starts), strict=True):
                pixels[start : start + len(images)] = images
                captions += texts
                if progress is not None:
                    progress(len(captions), n)
            pixels.flush()
            del pixels
        write_json(captions_path, captions)
    labels = np.arange(n) % len(CLASSES)
    return Corpus(np.load(pixels_path, mmap_mode="r"), labels, tuple(read_json(captions_path, "delete it")))


def _chunk(n: int, seed: int, start: int) -> tuple[np.ndarray, list[str]]:
    first_seed = PRETRAINING_SEEDS + seed * IMAGES_A_CORPUS
    indices = range(start, min(start + IMAGES_A_CHUNK, n))
    images, captions = zip(*(scene(index % len(CLASSES), first_seed + index) for index in indices), strict=True)
    return np.stack(images), list(captions)
