"""Owns decoded pixels: which images are compared, and their cache on disk; decodes nothing itself, knows no model."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.images import SQUARE_PROTOCOL, Decoded, decode_square, open_regular, quiet_pillow
from engine.data.manifest import Item, Skipped, refuse_many_skipped
from engine.errors import DamagedError, DataError, ImageError
from engine.files import atomic_path, digest, sha256_file
from engine.sealed import read_sealed_json, write_sealed_json

# Tasks are handed out so many at a time, so that finished images never pile up in memory and ctrl+c is heard at once.
_BATCH = 256
_READ_AGAIN = "read the dataset again"
_REMOVE = "remove the file and run the study again; it is decoded anew"


@dataclass(frozen=True)
class PixelCache:
    """Decoded images.

    Args:
        pixels: `(n, s, s, 3)` uint8 RGB, a read-only memory map, one row an item.
        items: those that decoded, in the order asked for.
        skipped: the others.
        digest: 64 hexadecimal digits over the contents asked for, in order, their size and how they were resized.
        warnings: what had to be done to some images, with counts.
    """

    pixels: NDArray[np.uint8]
    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...]
    digest: str
    warnings: tuple[str, ...] = ()


def pixel_cache(
    root: Path,
    items: Sequence[Item],
    size: int,
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    checks: bool = False,
) -> PixelCache:
    """The items' pixels, decoded once and kept in `folder`; the next call with the same contents opens the same file.

    Args:
        root: the dataset's folder.
        size: what the backbone takes; images are kept at `s = round(size * 8 / 7)` for it to crop from (256 for 224).
        folder: where the cache lies; made if it is not there.
        progress: is told `(done, total)` after every image.
        checks: reads every byte of a cache that is there, and makes it again where one has changed.
    Raises:
        DataError: more than 5 % cannot be decoded, or an image is too deep, has several frames, or changed.
        MachineError: the cache cannot be written.
    """
    if not items:
        raise DataError(str(root), "no images to decode", "give a split that has images")
    side = round(size * 8 / 7)
    key = digest([SQUARE_PROTOCOL, side, [item.sha256 for item in items]])
    pixels_path, notes_path = folder / f"{key[:16]}.npy", folder / f"{key[:16]}.json"
    try:
        cache = _open(pixels_path, notes_path, items, side, key)
        if checks:
            check_pixels(notes_path)
    except DamagedError:  # or absent
        _build(pixels_path, notes_path, root, items, side, key, progress)
        return _open(pixels_path, notes_path, items, side, key)
    if progress is not None:
        progress(len(items), len(items))
    return cache


def check_pixels(notes_path: Path) -> None:
    """Reads the cache to which the notes belong, whole.

    Raises:
        DamagedError: it is not what was written.
    """
    notes = read_sealed_json(notes_path, _REMOVE)
    pixels_path = notes_path.with_suffix(".npy")
    try:
        if sha256_file(pixels_path) != notes.get("sha256_of_pixels"):
            raise DamagedError(str(pixels_path), "its digest does not match: changed since it was written", _REMOVE)
    except OSError as error:
        raise DamagedError(str(pixels_path), f"cannot be read ({error.strerror or error})", _REMOVE) from error


def probe_items(items: Sequence[Item], n: int, n_classes: int) -> tuple[Item, ...]:
    """`n` of the items (or all), each class by its share, and at least once if `n` allows; chosen by content.

    The same images give the same probe in the same order, whatever their names, order and place.

    Args:
        n_classes: labels are below it.
    """
    ordered = sorted(items, key=lambda item: (item.sha256, item.id))
    n_wanted = min(n, len(ordered))
    n_of_class = np.bincount(np.array([item.label for item in ordered], dtype=np.int64), minlength=n_classes)
    n_left = (n_of_class > 0).astype(int) if np.count_nonzero(n_of_class) <= n_wanted else np.zeros(n_classes, int)
    while n_left.sum() < n_wanted:
        n_left[np.argmax(n_of_class * n_wanted - n_left * len(ordered))] += 1  # the class furthest below its share
    chosen = []
    for item in ordered:
        if n_left[item.label] > 0:
            n_left[item.label] -= 1
            chosen.append(item)
    return tuple(chosen)


def _open(pixels_path: Path, notes_path: Path, items: Sequence[Item], side: int, key: str) -> PixelCache:
    """The cache as it lies on disk; DamagedError where it is absent or is not what it should be."""
    try:
        notes = read_sealed_json(notes_path, _REMOVE)
        pixels = np.load(pixels_path, mmap_mode="r", allow_pickle=False)
        kept, skipped = notes["kept"], notes["skipped"]
        if notes["digest"] != key or sorted([*kept, *(row for row, _ in skipped)]) != list(range(len(items))):
            raise ValueError("of other images")
        if pixels.dtype != np.uint8 or pixels.shape != (len(items), side, side, 3):
            raise ValueError(f"{pixels.dtype} {pixels.shape}, need uint8 {(len(items), side, side, 3)}")
        return PixelCache(
            pixels[: len(kept)],
            tuple(items[row] for row in kept),
            tuple(Skipped(items[row].path, problem) for row, problem in skipped),
            key,
            tuple(notes["warnings"]),
        )
    except (OSError, EOFError, DamagedError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(str(pixels_path), f"not a pixel cache ({error})", _REMOVE) from error


def _build(
    pixels_path: Path,
    notes_path: Path,
    root: Path,
    items: Sequence[Item],
    side: int,
    key: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    kept: list[int] = []
    skipped: list[tuple[int, str]] = []
    counts: Counter[str] = Counter()
    shape = (len(items), side, side, 3)
    # Written, not mapped: on a full disk a write raises, a page of a memory map kills the process.
    with (
        quiet_pillow(),
        ThreadPoolExecutor() as pool,
        atomic_path(pixels_path, int(np.prod(shape))) as temp_path,
        temp_path.open("wb") as file,
    ):
        header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        n_bytes = file.tell() + int(np.prod(shape))
        for row, decoded in enumerate(_decode_all(pool, root, items, side)):
            if isinstance(decoded, Skipped):
                skipped.append((row, decoded.problem))
            else:
                kept.append(row)
                counts.update(decoded.notes)
                file.write(decoded.pixels.data)
            if progress is not None:
                progress(row + 1, len(items))
        refuse_many_skipped(str(root), [Skipped(items[row].path, why) for row, why in skipped], len(items))
        file.truncate(n_bytes)  # the header promises a row for every item; those of skipped ones are a hole at the end
        file.flush()
        sha256 = sha256_file(temp_path)
    warnings = [f"{n} images: {note}" for note, n in sorted(counts.items())]
    notes = {"digest": key, "sha256_of_pixels": sha256, "kept": kept, "skipped": skipped, "warnings": warnings}
    write_sealed_json(notes_path, notes)


def _decode_all(pool: ThreadPoolExecutor, root: Path, items: Sequence[Item], side: int) -> Iterator[Decoded | Skipped]:
    """Decodes in order. In threads: Pillow frees the lock, and they were faster than processes that have to start."""
    for start in range(0, len(items), _BATCH):
        yield from pool.map(lambda item: _decode_one(root, item, side), items[start : start + _BATCH])


def _decode_one(root: Path, item: Item, side: int) -> Decoded | Skipped:
    path = root / item.path
    with _open_unchanged(path, item.sha256) as file:
        try:
            return decode_square(file, path, side)
        except ImageError as error:
            return Skipped(item.path, error.problem)


def _open_unchanged(path: Path, sha256: str) -> BufferedReader:
    """Opens the file if it still is what was read: the cache goes by that content's name, and must hold no other's."""
    try:
        file = open_regular(path)
        seen = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
    except (ImageError, OSError) as error:
        problem = error.problem if isinstance(error, ImageError) else str(error)
        raise DataError(str(path), f"changed since the dataset was read ({problem})", _READ_AGAIN) from error
    if seen != sha256:
        file.close()
        raise DataError(str(path), "changed since the dataset was read (other content)", _READ_AGAIN)
    return file
