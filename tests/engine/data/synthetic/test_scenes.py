"""Scenes: the same for the same seed, captions that agree with the picture, a class that colour does not give away."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from engine.data.read import read_dataset
from engine.data.synthetic.scenes import (
    CLASSES,
    COLOURS,
    COUNTS,
    GROUNDS,
    IMAGES_A_DATASET,
    KINDS,
    MIN_CONTRAST,
    PLURALS,
    PRETRAINING_SEEDS,
    SIZE,
    generate,
    image_seed,
    scene,
)
from engine.data.synthetic.shapes import OUTLINES
from engine.data.synthetic.textures import TEXTURES
from engine.errors import DataError
from engine.files import read_json

N = 100


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    generate(root, N, seed=3)
    return root


def test_there_are_at_least_twenty_classes_of_two_kinds() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == len(OUTLINES) + len(TEXTURES) >= 20


@pytest.mark.parametrize("class_index", range(len(CLASSES)), ids=CLASSES)
def test_a_scene_is_the_same_twice_and_another_for_another_seed(class_index: int) -> None:
    image, caption = scene(class_index, 5)
    again, caption_again = scene(class_index, 5)
    assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
    assert image.tobytes() == again.tobytes() and caption == caption_again
    assert image.tobytes() != scene(class_index, 6)[0].tobytes()


def test_pixels_are_those_of_the_recipe_that_the_weights_were_trained_on() -> None:
    digests = [hashlib.sha256(scene(CLASSES.index(name), 7)[0].tobytes()).hexdigest()[:16] for name in ("star", "net")]
    assert digests == ["f54eeea69bcac877", "50adfa4e2d839c43"]


def test_a_size_can_be_asked_for() -> None:
    assert scene(0, 0, size=64)[0].shape == (64, 64, 3)


@pytest.mark.parametrize("class_index", range(len(CLASSES)), ids=CLASSES)
def test_captions_name_the_class_and_only_it(class_index: int) -> None:
    name = CLASSES[class_index]
    for seed in range(20):
        words = scene(class_index, seed)[1].split()
        kinds = [word for word in words if word in KINDS]
        number = words[0] == "one" if name in OUTLINES else True
        assert kinds == [name if number else PLURALS[name]]
        assert words[0] in (COUNTS if name in OUTLINES else ("fine", "coarse"))
        assert words[-5:-3] == ["on", "a"] and words[-3] in GROUNDS and words[-2] in COLOURS and words[-1] == "ground"


def test_captions_name_the_colours_that_are_seen() -> None:
    seen = 0
    for seed in range(40):
        image, caption = scene(CLASSES.index("checks"), seed)  # half ground, half figure
        colours = [np.array(COLOURS[word], float) for word in caption.split() if word in COLOURS]
        pixels = image.reshape(-1, 3).astype(float)
        nearest = [np.linalg.norm(pixels - colour, axis=1) for colour in colours]
        seen += all(np.percentile(distance, 35) < 60 for distance in nearest)
    assert seen >= 36


def test_figure_and_ground_differ_without_their_colours() -> None:
    luma = {name: 0.299 * r + 0.587 * g + 0.114 * b for name, (r, g, b) in COLOURS.items()}
    for seed in range(60):
        figure, ground = (word for word in scene(0, seed)[1].split() if word in COLOURS)
        assert abs(luma[figure] - luma[ground]) >= MIN_CONTRAST


def test_the_number_of_objects_is_the_number_in_the_caption() -> None:
    from scipy.ndimage import label  # an independent count: connected regions that are not ground

    agree, n = 0, 40
    for seed in range(n):
        image, caption = scene(CLASSES.index("disc"), seed)
        words = caption.split()
        figure, ground = (np.array(COLOURS[word], float) for word in words if word in COLOURS)
        pixels = image.astype(float)
        is_figure = np.linalg.norm(pixels - figure, axis=2) < np.linalg.norm(pixels - ground, axis=2)
        sizes = np.bincount(label(is_figure)[0].ravel())[1:]
        agree += int((sizes > 60).sum()) == 1 + COUNTS.index(words[0])
    assert agree >= 0.8 * n  # discs that touch count as one


def test_mean_colour_says_next_to_nothing_of_the_class() -> None:
    n = 30
    means = np.array([[scene(c, seed)[0].mean((0, 1)) for seed in range(n)] for c in range(len(CLASSES))])
    between, within = means.mean(axis=1).var(axis=0), means.var(axis=1).mean(axis=0)
    assert (between < 3 / n * within).all()  # 1 / n is what chance gives


def test_a_generated_dataset_is_read_as_folders_and_known_to_be_synthetic(dataset: Path) -> None:
    manifest = read_dataset(dataset)
    assert manifest.layout == "folder" and manifest.synthetic and not manifest.skipped
    assert sorted(manifest.classes) == sorted(CLASSES)
    assert set(Counter(item.label for item in manifest.items).values()) == {4, 5}
    assert read_json(dataset / "synthetic.json", "") == {"recipe": "scenes", "seed": 3, "n": N}


def test_every_image_has_the_caption_of_its_scene(dataset: Path) -> None:
    with (dataset / "captions.csv").open(newline="") as file:
        captions = {row["id"]: row["caption"] for row in csv.DictReader(file)}
    assert len(captions) == len(list(dataset.glob("*/*.jpg"))) == N
    assert captions["scene_000025"] == scene(1, image_seed(3, 25))[1]
    assert (dataset / CLASSES[1] / "scene_000025.jpg").is_file()


def test_the_same_seed_writes_the_same_bytes_and_progress_reaches_the_end(tmp_path: Path, dataset: Path) -> None:
    seen: list[tuple[int, int]] = []
    generate(tmp_path, N, seed=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, N) for done in range(1, N + 1)]
    for path in dataset.rglob("*.jpg"):
        assert path.read_bytes() == (tmp_path / path.relative_to(dataset)).read_bytes()


def test_generated_datasets_and_pre_training_share_no_image_seed() -> None:
    assert image_seed(999, IMAGES_A_DATASET - 1) < PRETRAINING_SEEDS
    assert image_seed(0, IMAGES_A_DATASET - 1) < image_seed(1, 0)


@pytest.mark.parametrize(
    ("n", "seed", "where"), [(23, 0, "n"), (1_000_001, 0, "n"), (60, -1, "seed"), (60, 1000, "seed")]
)
def test_what_is_out_of_range_is_refused(tmp_path: Path, n: int, seed: int, where: str) -> None:
    with pytest.raises(DataError, match="is out of range") as caught:
        generate(tmp_path, n, seed)
    assert caught.value.where == where and not list(tmp_path.iterdir())
