"""Generated dermoscopy: ISIC's layout and imbalance, every class in every split, whatever processes draw it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data.read import read_dataset
from engine.data.synthetic import dermoscopy
from engine.data.synthetic.dermoscopy import MIN_IMAGES, SHARES, generate
from engine.data.synthetic.lesions import TRAITS, draw_lesion
from engine.errors import DataError
from engine.files import read_json

N = 100


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dermoscopy")
    seen: list[tuple[int, int]] = []
    generate(root, N, seed=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, N) for done in range(1, N + 1)]
    return root


def test_it_is_read_as_isic2018_and_known_to_be_synthetic(dataset: Path) -> None:
    manifest = read_dataset(dataset)
    assert manifest.layout == "isic2018" and manifest.synthetic
    assert not manifest.skipped
    assert [warning.partition(" ")[0] for warning in manifest.warnings] == ["few", "imbalance:"]
    assert manifest.classes == ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC") == tuple(TRAITS)
    assert Counter(item.split for item in manifest.items) == {"train": 70, "val": 10, "test": 20}
    assert {(item.split, item.label) for item in manifest.items} == {
        (split, label) for split in ("train", "val", "test") for label in range(7)
    }
    assert read_json(dataset / "synthetic.json", "") == {"recipe": "dermoscopy", "seed": 1, "n": N}


def test_images_are_jpeg_of_the_published_size_and_all_differ(dataset: Path) -> None:
    paths = sorted(dataset.glob("*_Input/ISIC_*.jpg"))
    assert len(paths) == N == len({hashlib.sha256(path.read_bytes()).digest() for path in paths})
    with Image.open(paths[0]) as image:
        assert image.format == "JPEG" and image.size == (600, 450)


def test_one_process_draws_the_same_bytes(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(dermoscopy, "_IMAGES_A_TASK", 50)
    generate(tmp_path, N, seed=1)
    for path in (each for each in dataset.rglob("*") if each.is_file()):
        assert path.read_bytes() == (tmp_path / path.relative_to(dataset)).read_bytes()


@pytest.mark.parametrize("n", [100, 209, 400, 700, 1500, 10_015])
def test_every_split_has_every_class_in_about_the_published_shares(n: int) -> None:
    splits = dermoscopy._labels(n, 0)
    assert sum(map(len, splits.values())) == n
    for names in splits.values():
        counts = Counter(names)
        assert set(counts) == set(SHARES)
        assert min(counts.values()) >= min(3, len(names) // 10)
        assert counts["NV"] == max(counts.values())
    if n >= 1500:
        whole = Counter(name for names in splits.values() for name in names)
        assert all(abs(whole[name] / n - share) < 0.015 for name, share in SHARES.items())


def test_another_seed_gives_another_order_and_other_images() -> None:
    assert dermoscopy._labels(400, 0) != dermoscopy._labels(400, 1)
    first, second = (draw_lesion("NV", np.random.default_rng((seed, 0))) for seed in (0, 1))
    assert first.tobytes() != second.tobytes()


def test_pixels_are_those_of_the_recipe() -> None:
    image = draw_lesion("MEL", np.random.default_rng((0, 0)))
    assert image.shape == (450, 600, 3) and image.dtype == np.uint8
    assert hashlib.sha256(image.tobytes()).hexdigest()[:16] == "cf6d1579232c8a92"


def test_classes_differ_as_their_traits_say() -> None:
    """Vascular lesions are redder than nevi, melanomas darker than actinic keratoses, in the middle of the image."""

    def middle(name: str) -> np.ndarray:
        images = [draw_lesion(name, np.random.default_rng((seed, 9))) for seed in range(12)]
        return np.stack([image[175:275, 250:350].mean((0, 1)) for image in images])

    vascular, nevus, melanoma, keratosis = (middle(name) for name in ("VASC", "NV", "MEL", "AKIEC"))
    assert (vascular[:, 0] / vascular[:, 1]).mean() > 1.3 * (nevus[:, 0] / nevus[:, 1]).mean()
    assert melanoma.mean() < 0.9 * keratosis.mean()


@pytest.mark.parametrize(("n", "seed", "problem"), [
    (MIN_IMAGES - 1, 0, "n: is out of range"), (100_001, 0, "n: is out of range"), (N, -1, "seed: is out of range"),
])  # fmt: skip
def test_what_is_out_of_range_is_refused(tmp_path: Path, n: int, seed: int, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        generate(tmp_path, n, seed)
    assert not list(tmp_path.iterdir())
