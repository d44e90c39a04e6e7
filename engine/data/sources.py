"""Where the bytes of images come from: files of a folder, or rows of an `.npz` file; knows no labels and no splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.data.images import Decoded, decode_square, open_regular, square_of_array, unreadable
from engine.data.intensity import Decoding
from engine.data.manifest import Item, Skipped
from engine.data.npz import NpzFile, row_of_path
from engine.errors import DataError, ImageError

# Tasks are handed out so many at a time, so that finished images never pile up in memory and ctrl+c is heard at once.
_BATCH = 256
_READ_AGAIN = "read the dataset again"


class Source(Protocol):
    """Images by the paths of a manifest."""

    def hashes(self, paths: Sequence[str]) -> Iterator[str | Skipped]:
        """SHA-256 of each image's content, in order; what cannot be read is skipped."""

    def squares(
        self, items: Sequence[Item], side: int, decoding: Decoding
    ) -> Iterator[Decoded | ImageError | DataError]:
        """Each image's centre square, in order, decoded in parallel; or why there is none.

        Raises:
            DataError: the content is no longer that of the item.
        """


def source_of(root: Path) -> Source:
    """The source behind a dataset's root: a folder, or an `.npz` file."""
    return NpzSource(root) if root.suffix == ".npz" and root.is_file() else FolderSource(root)


class FolderSource:
    """Files below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def hashes(self, paths: Sequence[str]) -> Iterator[str | Skipped]:
        """See `Source`."""
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(paths), _BATCH):
                yield from pool.map(self._hash, paths[start : start + _BATCH])

    def squares(
        self, items: Sequence[Item], side: int, decoding: Decoding
    ) -> Iterator[Decoded | ImageError | DataError]:
        """See `Source`. In threads: Pillow frees the lock, and they were faster than processes that have to start."""
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(items), _BATCH):
                part = items[start : start + _BATCH]
                yield from pool.map(lambda item: self._square(item, side, decoding), part)

    def _hash(self, relative_path: str) -> str | Skipped:
        path = self._root / relative_path
        try:
            with open_regular(path) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except ImageError as error:
            return Skipped(relative_path, error.problem)
        except OSError as error:
            return Skipped(relative_path, unreadable(error, path).problem)

    def _square(self, item: Item, side: int, decoding: Decoding) -> Decoded | ImageError | DataError:
        path = self._root / item.path
        with _open_unchanged(path, item.sha256) as file:
            try:
                return decode_square(file, path, side, decoding)
            except (ImageError, DataError) as error:
                return error


def _open_unchanged(path: Path, sha256: str) -> BufferedReader:
    """Opens the file if it still is what was read: caches go by that content's name, and must hold no other's."""
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


class NpzSource:
    """Rows of the arrays of an `.npz` file, read as streams: the large sets do not fit into memory."""

    _BLOCK = 2048

    def __init__(self, path: Path) -> None:
        self._path = path

    def hashes(self, paths: Sequence[str]) -> Iterator[str | Skipped]:
        """See `Source`; the content of an array's row is its shape and its bytes."""
        for values in self._rows(paths):
            yield _sha256_of_array(values)

    def squares(
        self, items: Sequence[Item], side: int, decoding: Decoding
    ) -> Iterator[Decoded | ImageError | DataError]:
        """See `Source`."""
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(items), self._BLOCK):
                part = items[start : start + self._BLOCK]
                rows = self._rows([item.path for item in part])
                yield from pool.map(lambda pair: self._square(pair[0], pair[1], side), zip(part, rows, strict=True))

    def _square(self, item: Item, values: NDArray[np.uint8], side: int) -> Decoded:
        if _sha256_of_array(values) != item.sha256:
            where = f"{self._path} {item.path}"
            raise DataError(where, "changed since the dataset was read (other content)", _READ_AGAIN)
        return square_of_array(values, side)

    def _rows(self, paths: Sequence[str]) -> Iterator[NDArray[np.uint8]]:
        """The arrays' rows in the order of `paths`; one pass a block over each array, whatever the order in it."""
        archive = NpzFile(self._path)
        wanted = [row_of_path(path) for path in paths]
        if wanted == sorted(set(wanted)):
            for name in dict.fromkeys(name for name, _ in wanted):
                for values in archive.rows(name, [row for other, row in wanted if other == name]):
                    yield values.astype(np.uint8, copy=False)
            return
        for start in range(0, len(wanted), self._BLOCK):
            block = wanted[start : start + self._BLOCK]
            ordered = sorted(set(block))
            found: dict[tuple[str, int], NDArray[np.uint8]] = {}
            for name in dict.fromkeys(name for name, _ in ordered):
                rows = [row for other, row in ordered if other == name]
                for row, values in zip(rows, archive.rows(name, rows), strict=True):
                    found[name, row] = values.astype(np.uint8, copy=False)
            yield from (found[key] for key in block)


def _sha256_of_array(values: NDArray[np.uint8]) -> str:
    return hashlib.sha256(repr(values.shape).encode() + b"\n" + values.tobytes()).hexdigest()
