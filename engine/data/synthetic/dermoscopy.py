"""Writes generated, dermoscopy-like images in the ISIC2018 task 3 layout; nothing medical follows from them.

Owns the classes' shares, the splits and the files; what a lesion looks like is in `lesions.py`.
"""

from __future__ import annotations

import csv
import io
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from engine.data.synthetic.lesions import draw_lesion
from engine.errors import DataError
from engine.files import atomic_write, write_json

# The order and, roughly, the shares of ISIC2018 task 3.
SHARES = {"MEL": 0.11, "NV": 0.67, "BCC": 0.05, "AKIEC": 0.035, "BKL": 0.11, "DF": 0.0125, "VASC": 0.0125}
SPLITS = {"Training": 0.7, "Validation": 0.1, "Test": 0.2}
MIN_OF_A_CLASS = 3  # in every split that has 30 images or more; fewer in smaller ones
MIN_IMAGES = 100
MAX_IMAGES = 100_000
_FIRST_NUMBER = 24306  # ISIC2018's own first image
_IMAGES_A_TASK = 8


def generate(out: Path, n: int, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> None:
    """Writes a dataset of `n` images, 600 × 450 JPEG, with ISIC2018's class imbalance; `synthetic.json` comes last.

    Every class is in every split, from 300 images on with at least 3 images. Image i depends on (seed, i, class)
    alone, however many processes draw.

    Args:
        progress: is told `(done, total)` as images are written.
    Raises:
        DataError: `n` or `seed` is out of range.
    """
    if not MIN_IMAGES <= n <= MAX_IMAGES:
        problem = f"is out of range (seen {n}, need {MIN_IMAGES} to {MAX_IMAGES})"
        raise DataError("n", problem, "choose a number of images in the range")
    if seed < 0:
        raise DataError("seed", f"is out of range (seen {seed}, need 0 or more)", "choose a seed from 0")
    labels = _labels(n, seed)
    tasks, index = [], 0
    for split, names in labels.items():
        folder = out / f"ISIC2018_Task3_{split}_Input"
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            tasks.append((folder / f"{_image_id(index)}.jpg", name, seed, index))
            index += 1
    # Spawned, not forked: whoever calls may have threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=context) as pool:
        for done, _ in enumerate(pool.map(_draw, tasks, chunksize=_IMAGES_A_TASK), 1):
            if progress is not None:
                progress(done, n)
    first = 0
    for split, names in labels.items():
        _write_ground_truth(out, split, names, first)
        first += len(names)
    write_json(out / "synthetic.json", {"recipe": "dermoscopy", "seed": seed, "n": n})


def _labels(n: int, seed: int) -> dict[str, list[str]]:
    """The class of every image of every split, in random order: rounded shares, the rest to the commonest class."""
    labels = {}
    left = n
    for number, (split, share) in enumerate(SPLITS.items()):
        n_split = left if number == len(SPLITS) - 1 else round(n * share)
        left -= n_split
        few = min(MIN_OF_A_CLASS, n_split // 10)
        counts = {name: max(few, round(n_split * part)) for name, part in SHARES.items()}
        counts["NV"] += n_split - sum(counts.values())
        names = [name for name, count in counts.items() for _ in range(count)]
        # Three numbers: a stream that no image has.
        np.random.default_rng([seed, n, number]).shuffle(names)
        labels[split] = names
    return labels


def _draw(task: tuple[Path, str, int, int]) -> None:
    path, name, seed, index = task
    Image.fromarray(draw_lesion(name, np.random.default_rng([seed, index]))).save(path, quality=88)


def _write_ground_truth(out: Path, split: str, names: list[str], first: int) -> None:
    name = f"ISIC2018_Task3_{split}_GroundTruth"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *SHARES])
    for offset, label in enumerate(names):
        writer.writerow([_image_id(first + offset), *("1.0" if each == label else "0.0" for each in SHARES)])
    atomic_write(out / name / f"{name}.csv", text.getvalue())


def _image_id(index: int) -> str:
    return f"ISIC_{_FIRST_NUMBER + index:07d}"
