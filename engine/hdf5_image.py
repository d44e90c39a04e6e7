"""Owns the place in memory into which HDF5 writes a file, so that only simtui's own code writes to a disk.

Where a disk is full, HDF5's `close` fails and the process crashes later on, or the file reopens and is silently wrong.
Here HDF5 sees a file that never fails. Its structure lies in memory; large arrays are not copied, only their places are
noted, and the disk gets them from where they are.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

_SLACK_BYTES = 1 << 20


@dataclass(frozen=True)
class Place:
    """Where in the file the bytes of a large array lie."""

    start: int
    values: np.ndarray

    @property
    def data(self) -> memoryview:
        """The bytes."""
        return self.values.reshape(-1).view(np.uint8).data

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.values.nbytes


class Image(io.RawIOBase):
    """A file in memory; memory that is never written to costs nothing.

    Args:
        n_bytes: about how large it will become; it grows beyond that.
    """

    def __init__(self, n_bytes: int) -> None:
        self._memory = mmap.mmap(-1, n_bytes + _SLACK_BYTES)
        self._at = self._size = 0
        self._expected: np.ndarray | None = None
        self.places: list[Place] = []

    def expect(self, values: np.ndarray) -> None:
        """The next write of this length is of these values, which stay as they are until the file is written out."""
        self._expected = values

    def parts(self, start: int) -> Iterator[memoryview]:
        """The bytes of the file from `start` on, in order, without those of the large arrays."""
        view = memoryview(self._memory)
        for place in sorted(self.places, key=lambda each: each.start):
            yield view[start : place.start]
            start = place.end
        yield view[start : self._size]

    def write_out(self, file: BinaryIO) -> None:
        """Writes everything to a file."""
        places = iter(sorted(self.places, key=lambda each: each.start))
        for part in self.parts(0):
            file.write(part)
            place = next(places, None)
            if place is not None:
                file.write(place.data)

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """What HDF5 writes at the position."""
        n = len(data)
        end = self._at + n
        if end > len(self._memory):
            self._memory.resize(max(end, 2 * len(self._memory)))
        if self._expected is not None and n == self._expected.nbytes:
            self.places.append(Place(self._at, self._expected))
            self._expected = None
        else:
            self._memory[self._at : end] = bytes(data)
        self._at = end
        self._size = max(self._size, end)
        return n

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """What HDF5 reads back of its structure; it never asks for the arrays."""
        part = self._memory[self._at : min(self._at + len(buffer), self._size)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves the position."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at

    def truncate(self, size: int | None = None) -> int:
        """Sets the size of the file."""
        self._size = self._at if size is None else size
        if self._size > len(self._memory):
            self._memory.resize(max(self._size, 2 * len(self._memory)))
        return self._size

    def readable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True
