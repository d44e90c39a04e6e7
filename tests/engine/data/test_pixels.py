"""The cache of decoded pixels and the choice of the probe images."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.data import sources
from engine.data.images import SQUARE_PROTOCOL, decode_square, open_regular, square_of_array
from engine.data.intensity import Decoding
from engine.data.manifest import Item, Label, Manifest
from engine.data.pixels import (
    CacheOptions,
    ChosenRows,
    PartlyCached,
    PixelCache,
    check_pixels,
    chosen,
    pixel_cache,
    probe_items,
)
from engine.data.read import read_dataset
from engine.errors import DamagedError, DataError, ImageError, MachineError
from engine.files import digest
from engine.sealed import write_sealed_json
from tests.engine.data.making import make_folder_dataset, noise, save_arrays, save_image

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


@pytest.mark.parametrize("change", [{"digest": "0" * 64}, {"kept": [0, 1]}, {"n_cached": 7}, {"n_cached": 31}])
def test_sealed_notes_that_do_not_fit_are_made_again(
    dataset: Manifest, tmp_path: Path, change: dict[str, object]
) -> None:
    pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.json")
    content = path.read_text()
    notes = json.loads(content) | change
    del notes["sha256"]
    write_sealed_json(path, notes)
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


# Windows and frames


def deep_dataset(root: Path) -> Manifest:
    """16-bit images, and one of two frames."""
    (root / "a").mkdir(parents=True)
    for n in range(4):
        values = np.random.default_rng(n).integers(0, 4096, (20, 24), dtype=np.uint16)
        Image.fromarray(values).save(root / "a" / f"{n}.png")
    frames = [Image.fromarray(noise(seed)) for seed in (50, 51)]
    frames[0].save(root / "a" / "4.tif", save_all=True, append_images=frames[1:])
    return replace(EMPTY, root=root, items=tuple(hashed(root, f"a/{n}.{'png' if n < 4 else 'tif'}") for n in range(5)))


EMPTY = Manifest(Path("/"), "folder", ("a", "b"), ())


def hashed(root: Path, path: str) -> Item:
    return Item(path, path, 0, "train", hashlib.sha256((root / path).read_bytes()).hexdigest())


def test_window_and_frame_make_other_pixels_and_other_files(tmp_path: Path) -> None:
    manifest = deep_dataset(tmp_path / "data")
    decodings = [
        Decoding((0.0, 4095.0), 0), Decoding((0.0, 4095.0), 1), Decoding((0.0, 2000.0), 0), Decoding("auto", 0),
    ]  # fmt: skip
    caches = [
        pixel_cache(manifest.root, manifest.items, 14, tmp_path / "cache", options=CacheOptions(decoding))
        for decoding in decodings
    ]
    assert len({cache.digest for cache in caches}) == 4
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 4
    for cache, decoding in zip(caches, decodings, strict=True):
        for pixels, item in zip(cache.pixels[:], cache.items, strict=True):
            with open_regular(manifest.root / item.path) as file:
                expected = decode_square(file, Path(item.path), SIDE, decoding).pixels
            np.testing.assert_array_equal(pixels, expected)
    assert (caches[0].pixels[4] != caches[1].pixels[4]).any()
    assert (caches[0].pixels[:4] != caches[2].pixels[:4]).any()


def test_without_window_and_frame_the_digest_is_the_old_one(dataset: Manifest, tmp_path: Path) -> None:
    cache = pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache")
    assert cache.digest == digest([SQUARE_PROTOCOL, SIDE, [item.sha256 for item in dataset.items]])
    decoding = Decoding((0.0, 1.0))
    other = pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache", options=CacheOptions(decoding))
    assert other.digest != cache.digest
    np.testing.assert_array_equal(other.pixels[:], cache.pixels[:])  # of 8-bit images


# A cache that is too small


@pytest.mark.parametrize("n_cached", [0, 1, 17, 29])
def test_a_small_cache_gives_the_same_pixels(dataset: Manifest, tmp_path: Path, n_cached: int) -> None:
    whole = pixel_cache(dataset.root, dataset.items, 14, tmp_path / "whole")
    options = CacheOptions(max_bytes=n_cached * SIDE * SIDE * 3 + 5)
    for _ in range(2):  # built, then opened
        small = pixel_cache(dataset.root, dataset.items, 14, tmp_path / "small", options=options)
        assert isinstance(small.pixels, PartlyCached)
        assert (small.items, small.skipped, small.digest) == (whole.items, whole.skipped, whole.digest)
        assert (small.pixels.shape, len(small.pixels)) == ((30, SIDE, SIDE, 3), 30)
        for rows in (slice(None), slice(3, 25, 4), slice(0), np.array([29, 0, 5, 28, 5]), np.array([], dtype=np.int64)):
            found = small.pixels[rows]
            assert found.dtype == np.uint8
            assert found.tobytes() == whole.pixels[rows].tobytes()
    (path,) = (tmp_path / "small").glob("*.npy")
    assert np.load(path).shape == (n_cached, SIDE, SIDE, 3)


def test_a_small_cache_closes_up_over_images_that_do_not_decode(dataset: Manifest, tmp_path: Path) -> None:
    (dataset.root / "a" / "0001.png").write_text("not a picture")
    items = read_dataset(dataset.root).items
    options = CacheOptions(max_bytes=4 * SIDE * SIDE * 3)
    small = pixel_cache(dataset.root, items, 14, tmp_path / "small", options=options)
    whole = pixel_cache(dataset.root, items, 14, tmp_path / "whole")
    assert [one.path for one in small.skipped] == ["a/0001.png"]
    assert small.items == whole.items
    np.testing.assert_array_equal(small.pixels[:], whole.pixels[:])


def test_a_cache_of_all_that_fits_is_a_plain_map(dataset: Manifest, tmp_path: Path) -> None:
    options = CacheOptions(max_bytes=30 * SIDE * SIDE * 3)
    pixels = pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache", options=options).pixels
    assert isinstance(pixels, np.memmap)


def test_a_cache_that_may_grow_is_made_again_and_a_larger_one_is_kept(dataset: Manifest, tmp_path: Path) -> None:
    def shape(max_bytes: float) -> tuple[int, ...]:
        options = CacheOptions(max_bytes=max_bytes)
        pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache", options=options)
        (path,) = (tmp_path / "cache").glob("*.npy")
        return tuple(np.load(path, mmap_mode="r").shape)

    assert [shape(n * SIDE * SIDE * 3)[0] for n in (5, 3, 20, 5, 99)] == [5, 5, 20, 20, 30]


@pytest.mark.parametrize("is_removed", [True, False])
def test_an_image_beyond_the_cache_that_has_changed(dataset: Manifest, tmp_path: Path, is_removed: bool) -> None:
    options = CacheOptions(max_bytes=10 * SIDE * SIDE * 3)
    pixels = pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache", options=options).pixels
    path = dataset.root / dataset.items[20].path
    if is_removed:
        path.unlink()
    else:
        save_image(path, 999)
    assert pixels[:20].shape == (20, SIDE, SIDE, 3)
    with pytest.raises(DataError, match=r"changed since the dataset was read \("):
        pixels[:21]


def test_an_image_beyond_the_cache_that_decodes_no_more(
    dataset: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = CacheOptions(max_bytes=10 * SIDE * SIDE * 3)
    pixels = pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache", options=options).pixels

    def fail(*_: object) -> None:
        raise ImageError("a/0020.png", "cannot be decoded (of a library's own)", "copy it again")

    monkeypatch.setattr(sources, "decode_square", fail)
    assert pixels[:10].shape == (10, SIDE, SIDE, 3)
    with pytest.raises(DataError) as caught:
        pixels[20:21]
    assert str(caught.value) == (
        "a/0020.png: changed since the dataset was read (cannot be decoded (of a library's own))\n  fix: copy it again"
    )


def test_rows_of_an_archive_cannot_be_read_one_by_one(tmp_path: Path) -> None:
    images = np.stack([noise(seed) for seed in range(40)])
    labels = np.arange(40) % 2
    path = save_arrays(tmp_path / "my.npz", train_images=images, train_labels=labels)
    items = read_dataset(path).items
    with pytest.raises(DataError) as caught:
        pixel_cache(path, items, 14, tmp_path / "cache", options=CacheOptions(max_bytes=39 * SIDE * SIDE * 3))
    assert str(caught.value) == (
        "machine.cache_gb: the images of my.npz take 31 kB decoded, and cannot be read one by one\n"
        "  fix: raise machine.cache_gb"
    )
    cache = pixel_cache(path, items, 14, tmp_path / "cache")
    for pixels, item in zip(cache.pixels[:], cache.items, strict=True):
        np.testing.assert_array_equal(pixels, square_of_array(images[int(item.path[-8:])], SIDE).pixels)


# Some of the images


@pytest.mark.parametrize("n_cached", [30, 17, 0])
def test_chosen_images_are_read_where_they_lie(dataset: Manifest, tmp_path: Path, n_cached: int) -> None:
    options = CacheOptions(max_bytes=n_cached * SIDE * SIDE * 3)
    whole = pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache", options=options)
    wanted = [whole.items[row] for row in (29, 4, 11)]
    part = chosen(whole, wanted)
    assert isinstance(part.pixels, ChosenRows)
    assert part.items == tuple(whole.items[row] for row in (4, 11, 29))  # in the order of the cache
    assert (part.pixels.shape, len(part.pixels), part.skipped) == ((3, SIDE, SIDE, 3), 3, ())
    expected = np.array(whole.pixels[np.array([4, 11, 29])])
    for rows in (slice(None), slice(1, 9), slice(0), np.array([2, 0, 2]), np.array([], np.int64)):
        found = part.pixels[rows]
        assert found.dtype == np.uint8
        assert found.tobytes() == expected[rows].tobytes() and found.shape == expected[rows].shape


def test_the_digest_of_chosen_images_is_of_what_they_are_and_how_they_were_decoded(
    dataset: Manifest, tmp_path: Path
) -> None:
    whole = pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache")
    digests = {chosen(whole, whole.items[:n]).digest for n in (1, 2, 30)} | {whole.digest}
    assert len(digests) == 4
    assert chosen(whole, whole.items[1::-1]).digest == chosen(whole, whole.items[:2]).digest
    larger = pixel_cache(dataset.root, dataset.items, 28, tmp_path / "cache")
    assert chosen(larger, whole.items[:2]).digest not in digests


# Other studies


def study_cache(studies: Path, name: str) -> Path:
    return studies / name / "probes" / "isic"


def linked(studies: Path, name: str, dataset: Manifest, **options: Any) -> PixelCache:
    folder = study_cache(studies, name)
    return pixel_cache(dataset.root, dataset.items, 14, folder, options=CacheOptions(siblings=studies, **options))


def test_the_cache_of_a_sibling_study_is_shared(dataset: Manifest, tmp_path: Path) -> None:
    first = linked(tmp_path, "one", dataset)
    pixels = np.array(first.pixels[:])
    shutil.rmtree(dataset.root)  # so that nothing can be decoded
    told: list[tuple[int, int]] = []
    second = pixel_cache(
        dataset.root, dataset.items, 14, study_cache(tmp_path, "two"), options=CacheOptions(siblings=tmp_path),
        progress=lambda *done: told.append(done),
    )  # fmt: skip
    assert told == [(30, 30)]
    (one,) = study_cache(tmp_path, "one").glob("*.npy")
    (two,) = study_cache(tmp_path, "two").glob("*.npy")
    assert one.stat().st_ino == two.stat().st_ino
    assert (second.items, second.skipped, second.digest) == (first.items, first.skipped, first.digest)
    shutil.rmtree(tmp_path / "one")  # the other study does not mind
    np.testing.assert_array_equal(linked(tmp_path, "two", dataset).pixels[:], pixels)


def test_without_siblings_nothing_is_shared(dataset: Manifest, tmp_path: Path) -> None:
    linked(tmp_path, "one", dataset)
    pixel_cache(dataset.root, dataset.items, 14, study_cache(tmp_path, "two"))
    (one,) = study_cache(tmp_path, "one").glob("*.npy")
    (two,) = study_cache(tmp_path, "two").glob("*.npy")
    assert one.stat().st_ino != two.stat().st_ino


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["*.npy", "*.json"])
def test_a_sibling_that_is_damaged_is_not_taken(dataset: Manifest, tmp_path: Path, kind: str) -> None:
    expected = np.array(linked(tmp_path, "one", dataset).pixels[:])
    (path,) = study_cache(tmp_path, "one").glob(kind)
    flip_a_byte(path)
    found = linked(tmp_path, "two", dataset)
    np.testing.assert_array_equal(found.pixels[:], expected)
    (one,) = study_cache(tmp_path, "one").glob("*.npy")
    (two,) = study_cache(tmp_path, "two").glob("*.npy")
    assert one.stat().st_ino != two.stat().st_ino
    check_pixels(two.with_suffix(".json"))


def test_a_sibling_that_is_a_link_or_too_small_is_not_taken(dataset: Manifest, tmp_path: Path) -> None:
    linked(tmp_path, "one", dataset, max_bytes=10 * SIDE * SIDE * 3)
    assert isinstance(linked(tmp_path, "two", dataset).pixels, np.memmap)
    (path,) = study_cache(tmp_path, "one").glob("*.npy")
    (other,) = study_cache(tmp_path, "two").glob("*.npy")
    assert path.stat().st_ino != other.stat().st_ino
    moved = other.rename(tmp_path / "moved.npy")
    other.symlink_to(moved)
    linked(tmp_path, "three", dataset)
    (third,) = study_cache(tmp_path, "three").glob("*.npy")
    assert third.stat().st_ino != moved.stat().st_ino


def test_a_file_system_without_links_costs_the_decoding(
    dataset: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.array(linked(tmp_path, "one", dataset).pixels[:])

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    np.testing.assert_array_equal(linked(tmp_path, "two", dataset).pixels[:], expected)


def test_a_sibling_that_allowed_more_to_be_skipped(dataset: Manifest, tmp_path: Path) -> None:
    for number in range(3):
        (dataset.root / "a" / f"000{number}.png").write_text(f"not a picture {number}")
    manifest = read_dataset(dataset.root)
    assert len(linked(tmp_path, "one", manifest, max_skipped=0.5).skipped) == 3
    with pytest.raises(DataError, match=r"3 of 30 images cannot be used \(limit 5%\)"):
        linked(tmp_path, "two", manifest)
    with pytest.raises(DataError, match=r"3 of 30 images cannot be used \(limit 5%\)"):
        linked(tmp_path, "one", manifest)


# Checking


def test_a_changed_byte_shows_when_every_byte_is_read(dataset: Manifest, tmp_path: Path) -> None:
    expected = np.array(pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache").pixels[:])
    (path,) = (tmp_path / "cache").glob("*.npy")
    check_pixels(path.with_suffix(".json"))
    flip_a_byte(path)
    with pytest.raises(DamagedError) as caught:
        check_pixels(path.with_suffix(".json"))
    assert (caught.value.where, caught.value.problem) == (
        str(path), "its digest does not match: changed since it was written",
    )  # fmt: skip
    unchecked = pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache").pixels[:]
    assert (unchecked != expected).any()
    checked = pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache", options=CacheOptions(checks=True))
    np.testing.assert_array_equal(checked.pixels[:], expected)


def test_pixels_that_are_gone(dataset: Manifest, tmp_path: Path) -> None:
    pixel_cache(dataset.root, dataset.items, 14, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.npy")
    path.unlink()
    with pytest.raises(DamagedError, match=r"cannot be read \(No such file or directory\)"):
        check_pixels(path.with_suffix(".json"))


def made_items(labels: Sequence[Label]) -> list[Item]:
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


@pytest.mark.parametrize("n", [0, 3, 10, 50, 120, 1000])
def test_probe_of_findings_has_every_finding(n: int) -> None:
    draw = random.Random(3)
    labels: list[Label] = [tuple(int(draw.random() < share) for share in (0.4, 0.1, 0.02)) for _ in range(120)]
    labels[7] = (-1, -1, 1)
    items = made_items(labels)
    probe = probe_items(items, n, 3)
    assert len({item.id for item in probe}) == min(n, 120)
    if n >= 4:
        assert all(any(item.label[number] == 1 for item in probe) for number in range(3))  # type: ignore[index]
        assert any(1 not in item.label for item in probe)  # type: ignore[operator]
    shuffled = random.Random(n).sample(items, len(items))
    assert probe_items(shuffled, n, 3) == probe


def test_probe_of_findings_takes_each_by_its_rarest_class() -> None:
    labels: list[Label] = [(1, 0)] * 60 + [(1, 1)] * 20 + [(0, 0)] * 20
    chosen = Counter(item.label for item in probe_items(made_items(labels), 10, 2))
    assert chosen == {(1, 0): 6, (1, 1): 2, (0, 0): 2}


def test_probe_of_a_few_images_keeps_rare_classes() -> None:
    items = made_items([0] * 100 + [1] * 2 + [2])
    assert Counter(item.label for item in probe_items(items, 10, 3)) == {0: 8, 1: 1, 2: 1}
    assert Counter(item.label for item in probe_items(items, 2, 3)) == {0: 2}
