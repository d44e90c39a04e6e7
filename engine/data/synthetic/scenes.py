"""Generated scenes of coloured objects and textures, with captions: the origin domain of the bundled backbones.

The class of a scene is the shape of its objects or the pattern of its texture; colours, number, sizes, places,
directions, ground and light vary inside every class, so that colour alone says nothing of the class. Knows nothing of
models. Generated datasets and pre-training draw from disjoint seeds: see `image_seed` and `PRETRAINING_SEEDS`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from engine.data.synthetic.shapes import OUTLINES
from engine.data.synthetic.textures import TEXTURES
from engine.errors import DataError
from engine.files import atomic_write, write_json

CLASSES: tuple[str, ...] = (*OUTLINES, *TEXTURES)
SIZE = 80  # pixels a side: the bundled backbones see 64 of the 73 that the k-NN protocol resizes to
IMAGES_A_DATASET = 1_000_000
PRETRAINING_SEEDS = 1_000_000_000  # image seeds from here on belong to pre-training; datasets end below

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (236, 236, 232), "black": (32, 30, 34), "grey": (132, 132, 136), "red": (198, 44, 40),
    "orange": (232, 134, 40), "yellow": (234, 208, 62), "green": (66, 148, 66), "teal": (44, 146, 148),
    "blue": (48, 86, 186), "purple": (122, 58, 158), "pink": (228, 138, 172), "brown": (118, 76, 46),
}  # fmt: skip
PLURALS = {name: {"cross": "crosses", "leaf": "leaves"}.get(name, name + "s") for name in OUTLINES}
KINDS: tuple[str, ...] = (*OUTLINES, *PLURALS.values(), *TEXTURES)  # what a caption calls a class
COUNTS = ("one", "two", "three", "four", "five", "six")
GROUNDS = ("plain", "shaded", "cloudy", "grainy")
MIN_CONTRAST = 55.0  # luma levels between figure and ground, so that a scene survives the loss of its colours


def scene(class_index: int, seed: int, size: int = SIZE) -> tuple[np.ndarray, str]:
    """One scene and its caption, the same for the same arguments.

    Args:
        class_index: index into `CLASSES`.
        seed: any non-negative integer; every class draws differently from the same seed.
        size: pixels a side.
    Returns:
        Image `(size, size, 3)` uint8 and a caption in lower-case words, such as "three small red stars on a cloudy
        blue ground".
    """
    rng = np.random.default_rng((seed, class_index))
    name = CLASSES[class_index]
    ground_kind = GROUNDS[rng.integers(len(GROUNDS))]
    ground_name, figure_name = _two_colours(rng)
    ground = _ground(rng, _shade(rng, ground_name), ground_kind, size)
    if name in OUTLINES:
        image, words = _draw_objects(rng, ground, OUTLINES[name](), figure_name)
        kind = name if words[0] == "one" else PLURALS[name]
    else:
        image, words = _draw_texture(rng, ground, name, figure_name)
        kind = name
    image = _light(rng, image)
    return image, " ".join([*words, figure_name, kind, "on a", ground_kind, ground_name, "ground"])


def image_seed(seed: int, index: int) -> int:
    """The image seed of image `index` of the generated dataset `seed`; always below `PRETRAINING_SEEDS`."""
    return seed * IMAGES_A_DATASET + index


def generate(out: Path, n: int, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> None:
    """Writes a dataset of `n` scenes in the `folder` layout, classes in turn.

    Files: `<class>/scene_<index>.jpg`, `captions.csv` (id, caption) and, last, `synthetic.json`.

    Raises:
        DataError: `n` or `seed` is out of range.
    """
    n_seeds = PRETRAINING_SEEDS // IMAGES_A_DATASET
    if not 0 <= seed < n_seeds:
        raise DataError("seed", f"is out of range (seen {seed}, need 0 to {n_seeds - 1})", "choose a seed in the range")
    if not len(CLASSES) <= n <= IMAGES_A_DATASET:
        need = f"need {len(CLASSES)} to {IMAGES_A_DATASET}"
        raise DataError("n", f"is out of range (seen {n}, {need})", "choose a number of images in the range")
    rows = []
    for index in range(n):
        class_index = index % len(CLASSES)
        image, caption = scene(class_index, image_seed(seed, index))
        name = f"scene_{index:06d}"
        path = out / CLASSES[class_index] / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, quality=92)
        rows.append((name, caption))
        if progress is not None:
            progress(index + 1, n)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("id", "caption"), *rows])
    atomic_write(out / "captions.csv", text.getvalue())
    write_json(out / "synthetic.json", {"recipe": "scenes", "seed": seed, "n": n})


def _two_colours(rng: np.random.Generator) -> tuple[str, str]:
    """Names of the colours of ground and figure, far enough apart in luma."""
    names = list(COLOURS)
    ground = names[rng.integers(len(names))]
    others = [name for name in names if abs(_luma(COLOURS[name]) - _luma(COLOURS[ground])) >= MIN_CONTRAST]
    return ground, others[rng.integers(len(others))]


def _luma(colour: tuple[int, int, int]) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _shade(rng: np.random.Generator, name: str) -> np.ndarray:
    return np.asarray(COLOURS[name], dtype=np.float32) + rng.uniform(-16, 16, 3).astype(np.float32)


def _ground(rng: np.random.Generator, colour: np.ndarray, kind: str, size: int) -> np.ndarray:
    """`(size, size, 3)` float32 in one colour, with the faint unevenness of its kind."""
    relief: np.ndarray
    if kind == "shaded":
        relief = _slope(rng, size) * rng.uniform(15, 30)
    elif kind == "cloudy":
        coarse = Image.fromarray(rng.normal(size=(5, 5)).astype(np.float32))
        relief = np.array(coarse.resize((size, size), Image.Resampling.BICUBIC)) * rng.uniform(8, 16)
    elif kind == "grainy":
        relief = rng.normal(size=(size, size)).astype(np.float32) * np.float32(rng.uniform(8, 14))
    else:
        relief = np.zeros((size, size), np.float32)
    return colour + relief[..., None].astype(np.float32)


def _slope(rng: np.random.Generator, size: int) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    return np.float32(np.cos(angle)) * axis[None, :] + np.float32(np.sin(angle)) * axis[:, None]


def _draw_objects(
    rng: np.random.Generator, ground: np.ndarray, outline: np.ndarray, colour_name: str
) -> tuple[np.ndarray, list[str]]:
    """Objects of one outline, apart from each other; the words of the caption that say how many and how large."""
    size, scale = ground.shape[0], 3
    n = int(rng.integers(1, len(COUNTS) + 1))
    radius = rng.uniform(0.75, 1.1) * (0.36, 0.24, 0.21, 0.19, 0.17, 0.155)[n - 1]
    centres = _apart(rng, n, radius)
    sheet = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8)).resize((size * scale,) * 2, 0)
    draw = ImageDraw.Draw(sheet)
    for centre in centres:
        angle, own = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.8, 1.1)
        turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
        points = (outline @ turn * own + centre) * size * scale
        fill = np.clip(_shade(rng, colour_name), 0, 255).astype(int)
        draw.polygon([(float(x), float(y)) for x, y in points], fill=tuple(fill.tolist()))
    image = np.asarray(sheet.reduce(scale), dtype=np.float32)
    words = [COUNTS[len(centres) - 1]]
    if radius > 0.24 or radius < 0.15:
        words.append("large" if radius > 0.24 else "small")
    return image, words


def _apart(rng: np.random.Generator, n: int, radius: float) -> list[np.ndarray]:
    """Up to `n` centres in the unit square, two radii apart where there is room."""
    centres: list[np.ndarray] = []
    for _ in range(40):
        centre = rng.uniform(0.9 * radius, 1 - 0.9 * radius, 2)
        if all(np.hypot(*(centre - other)) > 2 * radius for other in centres):
            centres.append(centre)
        if len(centres) == n:
            break
    return centres


def _draw_texture(
    rng: np.random.Generator, ground: np.ndarray, name: str, colour_name: str
) -> tuple[np.ndarray, list[str]]:
    """A texture over the whole ground, and the word of the caption that says how fine it is."""
    size, scale = ground.shape[0], 2
    n_periods = float(np.exp(rng.uniform(np.log(3.0), np.log(7.0))))
    axis = (np.arange(size * scale, dtype=np.float32) + 0.5) / (size * scale) - 0.5
    x, y = axis[None, :] - np.float32(rng.uniform(-0.35, 0.35)), axis[:, None] - np.float32(rng.uniform(-0.35, 0.35))
    angle, squeeze = rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1.15)
    cos, sin = np.float32(n_periods * squeeze * np.cos(angle)), np.float32(n_periods * np.sin(angle))
    ink = TEXTURES[name](cos * x + sin * y, cos * y - sin * x, rng)
    cover = ink.reshape(size, scale, size, scale).mean(axis=(1, 3), dtype=np.float32)[..., None]
    image = ground * (1 - cover) + _shade(rng, colour_name) * cover
    return image, ["fine" if n_periods > 4.6 else "coarse"]


def _light(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Uneven light and a little sensor noise over the whole scene, as uint8."""
    size = image.shape[0]
    light = 1 + np.float32(rng.uniform(0, 0.12)) * _slope(rng, size)[..., None]
    noise = rng.normal(size=(size, size, 1)).astype(np.float32) * np.float32(rng.uniform(1, 4))
    return np.clip(image * light + noise + 0.5, 0, 255).astype(np.uint8)
