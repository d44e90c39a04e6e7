"""The cache of decoded pixels and the choice of the probe images."""

from __future__ import annotations

import errno
import json
import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.data.images import decode_square, open_regular
from engine.data.manifest import Item, Manifest
from engine.data.pixels import pixel_cache, probe_items
from engine.data.read import read_dataset
from engine.errors import DataError, MachineError
from tests.engine.data.making import make_folder_dataset, noise, save_image

SIDE = 16  # for a backbone of 14 pixels


@pytest.fixture
def dataset(tmp_path: Path) -> Manifest:
    return read_dataset(make_folder_dataset(tmp_path / "data", {"a": 15, "b": 15}))


def files_in(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_pixels_are_the_items_in_order(dataset: Manifest, tmp_path: Path) -> None:
    items = dataset.items[::-1]
    cache = pixel_cache(dataset.root, items, 14, tmp_path / "cache")
    assert cache.items == items
    assert cache.skipped == ()
    assert cache.warnings == ()
    assert cache.pixels.shape == (30, SIDE, SIDE, 3)
    assert cache.pixels.dtype == np.uint8
    assert isinstance(cache.pixels, np.memmap)
    assert not cache.pixels.flags.writeable
    for pixels, item in zip(cache.pixels, items, strict=True):
        with open_regular(dataset.root / item.path) as file:
            np.testing.assert_array_equal(pixels, decode_square(file, Path(item.path), SIDE).pixels)


def test_images_for_224_are_kept_at_256(dataset: Manifest, tmp_path: Path) -> None:
    assert pixel_cache(dataset.root, dataset.items[:1], 224, tmp_path / "cache").pixels.shape == (1, 256, 256, 3)


def test_second_time_nothing_is_decoded(dataset: Manifest, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    first = pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache", progress=lambda *done: told.append(done))
    assert told == [(done, 30) for done in range(1, 31)]
    written = files_in(tmp_path / "cache")
    told.clear()
    shutil.rmtree(dataset.root)
    second = pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache", progress=lambda *done: told.append(done))
    assert told == [(30, 30)]
    assert files_in(tmp_path / "cache") == written
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert (second.items, second.skipped, second.digest) == (first.items, first.skipped, first.digest)


def test_digest_is_of_contents_order_and_size(dataset: Manifest, tmp_path: Path) -> None:
    def digest(items: tuple[Item, ...], size: int = 14) -> str:
        return pixel_cache(dataset.root, items, size, tmp_path / "cache").digest

    items = dataset.items
    renamed = tuple(replace(item, id=f"other {item.id}", label=0, split="test") for item in items)
    assert digest(renamed) == digest(items)
    assert len({digest(items), digest(items[::-1]), digest(items[1:]), digest(items, 28)}) == 4


def spoil_npy(content: bytes) -> bytes:
    return content[: len(content) // 2]


def reshape_npy(content: bytes) -> bytes:
    return content.replace(b"(30, 16, 16, 3)", b"(15, 32, 16, 3)")


def retype_npy(content: bytes) -> bytes:
    return content.replace(b"'|u1'", b"'|i1'")


@pytest.mark.parametrize("damage", [spoil_npy, reshape_npy, retype_npy, lambda _: b"", lambda _: b"no array"])
def test_damaged_pixels_are_made_again(dataset: Manifest, tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    first = np.array(pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache").pixels)
    (path,) = (tmp_path / "cache").glob("*.npy")
    damaged = damage(path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    np.testing.assert_array_equal(pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache").pixels, first)


@pytest.mark.parametrize("change", [{"digest": "0" * 64}, {"kept": [0, 1]}, {"skipped": 3}, {"kept": [*range(29), 99]}])
def test_notes_that_do_not_fit_are_made_again(dataset: Manifest, tmp_path: Path, change: dict[str, object]) -> None:
    pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.json")
    content = path.read_text()
    path.write_text(json.dumps(json.loads(content) | change))
    assert pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache").items == dataset.items
    assert path.read_text() == content


def test_undecodable_images_are_skipped_and_the_rest_closes_up(tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path / "data", {"a": 20, "b": 20})
    content = (root / "a" / "0003.png").read_bytes()
    (root / "a" / "0003.png").write_bytes(content[: len(content) // 2])
    (root / "b" / "0030.png").write_text("text")
    Image.new("RGBA", (9, 9)).save(root / "b" / "0031.png")
    Image.new("RGBA", (9, 8)).save(root / "b" / "0032.png")
    items = read_dataset(root).items
    for _ in range(2):  # decoded, then from the cache
        cache = pixel_cache(root, items, 14, tmp_path / "cache")
        assert [(one.path, one.problem) for one in cache.skipped] == [
            ("a/0003.png", "image is cut short"),
            ("b/0030.png", "not an image"),
        ]
        assert cache.items == tuple(item for item in items if item.path not in ("a/0003.png", "b/0030.png"))
        assert cache.pixels.shape == (38, SIDE, SIDE, 3)
        assert cache.warnings == ("2 images: alpha, composited on black",)
        with open_regular(root / cache.items[-1].path) as file:
            np.testing.assert_array_equal(cache.pixels[-1], decode_square(file, Path("x.png"), SIDE).pixels)


def test_more_than_five_percent_undecodable(dataset: Manifest, tmp_path: Path) -> None:
    for number in range(4):
        (dataset.root / "a" / f"000{number}.png").write_text(f"text {number}")
    items = read_dataset(dataset.root).items
    with pytest.raises(DataError) as caught:
        pixel_cache(dataset.root, items, 14, tmp_path / "cache")
    assert caught.value.problem == (
        "4 of 30 images cannot be used (limit 5%): "
        "a/0000.png: not an image; a/0001.png: not an image; a/0002.png: not an image"
    )
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_16_bit_image_stops_with_its_name(dataset: Manifest, tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9), 40_000, dtype=np.uint16)).save(dataset.root / "a" / "0000.png")
    with pytest.raises(DataError, match=r"a/0000\.png: 16-bit image"):
        pixel_cache(dataset.root, read_dataset(dataset.root).items, 14, tmp_path / "cache")


@pytest.mark.parametrize("is_removed", [True, False])
def test_an_image_that_changed_since_it_was_read(dataset: Manifest, tmp_path: Path, is_removed: bool) -> None:
    path = dataset.root / dataset.items[0].path
    if is_removed:
        path.unlink()
    else:
        save_image(path, 999)
    seen = "no such file" if is_removed else "other content"
    with pytest.raises(DataError, match=rf"changed since the dataset was read \({seen}\)"):
        pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_items(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images to decode"):
        pixel_cache(tmp_path, (), 14, tmp_path / "cache")


def test_full_disk_leaves_nothing_behind(dataset: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", fail)
    with pytest.raises(MachineError, match="no space in"):
        pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_odd_metadata_neither_warns_nor_costs_the_image(dataset: Manifest, tmp_path: Path) -> None:
    path = dataset.root / "a" / "odd.jpg"
    Image.fromarray(noise(77)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:2] + b"\xff\xe2\x00\x10MPF\0no index!" + content[2:])
    with pytest.warns(UserWarning, match="malformed MPO"), open_regular(path) as file:
        pixels = decode_square(file, path, SIDE).pixels
    items = tuple(item for item in read_dataset(dataset.root).items if item.path == "a/odd.jpg")
    np.testing.assert_array_equal(pixel_cache(dataset.root, items, 14, tmp_path / "cache").pixels[0], pixels)


def made_items(labels: list[int]) -> list[Item]:
    draw = random.Random(7)
    return [
        Item(f"{row}", f"{row}.png", label, "test", f"{draw.getrandbits(256):064x}") for row, label in enumerate(labels)
    ]


@settings(deadline=None, derandomize=True, max_examples=150)
@given(labels=st.lists(st.integers(0, 6), max_size=80), n=st.integers(0, 100), order=st.randoms(use_true_random=False))
def test_probe_is_stratified_and_blind_to_order_and_names(labels: list[int], n: int, order: random.Random) -> None:
    items = made_items(labels)
    probe = probe_items(items, n, 7)
    assert len(probe) == min(n, len(items))
    assert len({item.id for item in probe}) == len(probe)
    present, chosen = Counter(labels), Counter(item.label for item in probe)
    if n >= len(present):
        assert set(chosen) == set(present)
    if chosen and min(present.values()) * len(probe) >= len(items):
        for label, n_present in present.items():
            assert abs(chosen[label] - n_present * len(probe) / len(items)) < 1
    renamed = [replace(item, id=f"x{item.id}", path=f"x/{item.path}") for item in items]
    shuffled = order.sample(renamed, len(renamed))
    assert [item.sha256 for item in probe_items(shuffled, n, 7)] == [item.sha256 for item in probe]


def test_probe_of_a_few_images_keeps_rare_classes() -> None:
    items = made_items([0] * 100 + [1] * 2 + [2])
    assert Counter(item.label for item in probe_items(items, 10, 3)) == {0: 8, 1: 1, 2: 1}
    assert Counter(item.label for item in probe_items(items, 2, 3)) == {0: 2}
