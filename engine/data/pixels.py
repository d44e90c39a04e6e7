"""Owns decoded pixels: which images are compared, and their cache on disk; decodes nothing itself, knows no model."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.images import SQUARE_PROTOCOL, quiet_decoders
from engine.data.intensity import AS_STORED, Decoding
from engine.data.manifest import MAX_SKIPPED, Item, Skipped, refuse_many_skipped
from engine.data.sources import FolderSource, Source, source_of
from engine.data.splits import strata
from engine.errors import DamagedError, DataError
from engine.files import atomic_path, digest, sha256_file, size_of
from engine.sealed import read_sealed_json, write_sealed_json

_REMOVE = "remove the file and run the study again; it is decoded anew"


class PartlyCached:
    """Pixels of which only the first rows are in the cache; the others are decoded whenever they are asked for."""

    def __init__(self, cached: NDArray[np.uint8], source: Source, items: Sequence[Item], decoding: Decoding) -> None:
        self._cached, self._source, self._items, self._decoding = cached, source, items, decoding
        self.shape = (len(items), *cached.shape[1:])

    def __len__(self) -> int:
        """How many images there are."""
        return len(self._items)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        """`(k, s, s, 3)` of these rows.

        Raises:
            DataError: an image has changed since the dataset was read.
        """
        wanted = np.arange(len(self))[rows]
        found = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        is_cached = wanted < len(self._cached)
        found[is_cached] = self._cached[wanted[is_cached]]
        absent = np.flatnonzero(~is_cached)
        items = [self._items[wanted[at]] for at in absent]
        for at, decoded in zip(absent, self._source.squares(items, self.shape[1], self._decoding), strict=True):
            if isinstance(decoded, Exception):
                raise DataError(decoded.where, f"changed since the dataset was read ({decoded.problem})", decoded.fix)
            found[at] = decoded.pixels
        return found


class ChosenRows:
    """Some rows of other pixels, read where they lie."""

    def __init__(self, pixels: NDArray[np.uint8] | PartlyCached, rows: NDArray[np.int64]) -> None:
        self._pixels, self._rows = pixels, rows
        self.shape = (len(rows), *pixels.shape[1:])

    def __len__(self) -> int:
        """How many images there are."""
        return len(self._rows)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        """`(k, s, s, 3)` of these rows."""
        return self._pixels[self._rows[rows]]


Pixels = NDArray[np.uint8] | PartlyCached | ChosenRows


@dataclass(frozen=True)
class PixelCache:
    """Decoded images.

    Args:
        pixels: `(n, s, s, 3)` uint8 RGB, read-only, one row an item: a memory map where all of them are in the cache.
        items: those that decoded, in the order asked for.
        skipped: the others.
        digest: 64 hexadecimal digits over the contents asked for, in order, their size and how they were resized.
        warnings: what had to be done to some images, with counts.
    """

    pixels: Pixels
    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...]
    digest: str
    warnings: tuple[str, ...] = ()


def chosen(cache: PixelCache, wanted: Sequence[Item]) -> PixelCache:
    """The part of a cache that holds these items, in the order of the cache; its digest goes by their contents."""
    ids = {item.id for item in wanted}
    rows = np.array([row for row, item in enumerate(cache.items) if item.id in ids], np.int64)
    assert not isinstance(cache.pixels, ChosenRows)
    items = tuple(cache.items[row] for row in rows)
    content = ["chosen", cache.digest, [(item.id, item.sha256) for item in items]]
    return PixelCache(ChosenRows(cache.pixels, rows), items, (), digest(content))


@dataclass(frozen=True)
class CacheOptions:
    """How pixels are kept.

    Attributes:
        decoding: the user's window and frame.
        max_bytes: what the cache may take; images beyond it are decoded whenever they are used.
        max_skipped: the share of images that may fail to decode.
        siblings: a folder whose studies are looked into first: pixels that one of them has are linked, not decoded.
        checks: reads every byte of a cache that is there, and makes it again where one has changed.
    """

    decoding: Decoding = AS_STORED
    max_bytes: float = float("inf")
    max_skipped: float = MAX_SKIPPED
    siblings: Path | None = None
    checks: bool = False


def side_of(size: int) -> int:
    """The side of the kept squares for a backbone that takes `size` pixels: 256 for 224, for random crops."""
    return round(size * 8 / 7)


def cache_bytes(n_images: int, size: int) -> int:
    """What a cache of so many images takes."""
    return n_images * side_of(size) ** 2 * 3


def pixel_cache(
    root: Path,
    items: Sequence[Item],
    size: int,
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    options: CacheOptions = CacheOptions(),
) -> PixelCache:
    """The items' pixels, decoded once and kept in `folder`; the next call with the same contents opens the same file.

    Args:
        root: the dataset's folder, or its `.npz` file.
        size: what the backbone takes; images are kept at `s = round(size * 8 / 7)` for it to crop from (256 for 224).
        folder: where the cache lies; made if it is not there.
        progress: is told `(done, total)` after every image.
    Raises:
        DataError: too many cannot be decoded, an image is too deep, has several frames, or changed; or the cache is
            too small for images that cannot be read one by one.
        MachineError: the cache cannot be written.
    """
    if not items:
        raise DataError(str(root), "no images to decode", "give a split that has images")
    job = _Job(root, tuple(items), side_of(size), folder, options)
    try:
        cache = job.open()
        if options.checks:
            check_pixels(job.notes_path)
    except DamagedError:  # or absent
        if not job.link_from_sibling():
            job.build(progress)
            return job.open()
        cache = job.open()
    # Whoever made it may have allowed more.
    refuse_many_skipped(str(root), cache.skipped, len(items), options.max_skipped)
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

    The same images give the same probe in the same order, whatever their names, order and place. An image of several
    classes is drawn as one of its rarest.

    Args:
        n_classes: labels are below it.
    """
    ordered = sorted(items, key=lambda item: (item.sha256, item.id))
    n_wanted = min(n, len(ordered))
    # Images without any finding are a class of their own, the last.
    classes = [stratum % (n_classes + 1) for stratum in strata([item.label for item in ordered])]
    n_of_class = np.bincount(np.array(classes, dtype=np.int64), minlength=n_classes + 1)
    n_left = (n_of_class > 0).astype(int) if np.count_nonzero(n_of_class) <= n_wanted else np.zeros(n_classes + 1, int)
    while n_left.sum() < n_wanted:
        n_left[np.argmax(n_of_class * n_wanted - n_left * len(ordered))] += 1  # the class furthest below its share
    chosen = []
    for item, number in zip(ordered, classes, strict=True):
        if n_left[number] > 0:
            n_left[number] -= 1
            chosen.append(item)
    return tuple(chosen)


class _Job:
    """One cache file and its notes: opening, finding and building it."""

    def __init__(self, root: Path, items: tuple[Item, ...], side: int, folder: Path, options: CacheOptions) -> None:
        self._root, self._items, self._side, self._options = root, items, side, options
        content: list[Any] = [SQUARE_PROTOCOL, side, [item.sha256 for item in items]]
        if options.decoding != AS_STORED:
            content.append([options.decoding.window, options.decoding.frame])
        self._key = digest(content)
        self._n_cached = int(min(len(items), options.max_bytes // (side * side * 3)))
        self.pixels_path = folder / f"{self._key[:16]}.npy"
        self.notes_path = folder / f"{self._key[:16]}.json"

    def open(self) -> PixelCache:
        """The cache as it lies on disk; DamagedError where it is absent, smaller than it may be, or not what it was."""
        return self._open(self.pixels_path, self.notes_path)

    def link_from_sibling(self) -> bool:
        """Takes over the whole cache that another study beside this one has; the file is shared, not copied."""
        if self._options.siblings is None:
            return False
        for found in sorted(self._options.siblings.glob(f"*/probes/*/{self.pixels_path.name}")):
            notes_path = found.with_suffix(".json")
            if found != self.pixels_path and found.is_file() and not found.is_symlink():
                # Not a cache, damaged, or on a file system without links: decoding is always right.
                with contextlib.suppress(DamagedError, OSError):
                    self._open(found, notes_path)
                    check_pixels(notes_path)
                    notes = read_sealed_json(notes_path, _REMOVE)
                    self.pixels_path.parent.mkdir(parents=True, exist_ok=True)
                    self.pixels_path.unlink(missing_ok=True)
                    os.link(found, self.pixels_path)
                    write_sealed_json(self.notes_path, notes)
                    return True
        return False

    def build(self, progress: Callable[[int, int], None] | None) -> None:
        """Decodes every image; writes as many as the cache may hold."""
        source = source_of(self._root)
        if self._n_cached < len(self._items) and not isinstance(source, FolderSource):
            need = size_of(len(self._items) * self._side**2 * 3)
            problem = f"the images of {self._root.name} take {need} decoded, and cannot be read one by one"
            raise DataError("machine.cache_gb", problem, "raise machine.cache_gb")
        kept: list[int] = []
        skipped: list[tuple[int, str]] = []
        counts: Counter[str] = Counter()
        shape = (self._n_cached, self._side, self._side, 3)
        n_pixel_bytes = int(np.prod(shape))
        # Written, not mapped: on a full disk a write raises, a page of a memory map kills the process.
        with (
            quiet_decoders(),
            atomic_path(self.pixels_path, n_pixel_bytes) as temp_path,
            temp_path.open("wb") as file,
        ):
            header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            n_bytes = file.tell() + n_pixel_bytes
            for row, decoded in enumerate(source.squares(self._items, self._side, self._options.decoding)):
                if isinstance(decoded, DataError):
                    raise decoded
                if isinstance(decoded, Exception):
                    skipped.append((row, decoded.problem))
                else:
                    if len(kept) < self._n_cached:
                        file.write(decoded.pixels.data)
                    kept.append(row)
                    counts.update(decoded.notes)
                if progress is not None:
                    progress(row + 1, len(self._items))
            unusable = [Skipped(self._items[row].path, why) for row, why in skipped]
            refuse_many_skipped(str(self._root), unusable, len(self._items), self._options.max_skipped)
            file.truncate(n_bytes)  # the header promises rows for skipped items too; those are a hole at the end
            file.flush()
            sha256 = sha256_file(temp_path)
        warnings = [f"{n} images: {note}" for note, n in sorted(counts.items())]
        notes = {"digest": self._key, "sha256_of_pixels": sha256, "kept": kept, "skipped": skipped}
        write_sealed_json(self.notes_path, {**notes, "n_cached": self._n_cached, "warnings": warnings})

    def _open(self, pixels_path: Path, notes_path: Path) -> PixelCache:
        items = self._items
        try:
            notes = read_sealed_json(notes_path, _REMOVE)
            cached = np.load(pixels_path, mmap_mode="r", allow_pickle=False)
            kept, skipped, n_cached = notes["kept"], notes["skipped"], notes.get("n_cached", len(items))
            if notes["digest"] != self._key or sorted([*kept, *_rows_of(skipped)]) != list(range(len(items))):
                raise ValueError("of other images")
            if not self._n_cached <= n_cached <= len(items):
                raise ValueError(f"of {n_cached} images only")
            shape = (n_cached, self._side, self._side, 3)
            if cached.dtype != np.uint8 or cached.shape != shape:
                raise ValueError(f"{cached.dtype} {cached.shape}, need uint8 {shape}")
            found = tuple(items[row] for row in kept)
            pixels: Pixels = cached[: len(kept)]
            if n_cached < len(kept):
                pixels = PartlyCached(cached, source_of(self._root), found, self._options.decoding)
            return PixelCache(
                pixels,
                found,
                tuple(Skipped(items[row].path, problem) for row, problem in skipped),
                self._key,
                tuple(notes["warnings"]),
            )
        except (OSError, EOFError, DamagedError, KeyError, TypeError, ValueError) as error:
            raise DamagedError(str(pixels_path), f"not a pixel cache ({error})", _REMOVE) from error


def _rows_of(skipped: Sequence[Sequence[Any]]) -> Iterator[int]:
    for row, _ in skipped:
        yield row
