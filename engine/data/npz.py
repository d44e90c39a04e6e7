"""Reads the arrays of an `.npz` file row by row, never unpickling and never more than declared; knows no dataset."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from engine.data.images import open_regular
from engine.errors import DataError, ImageError

_DOWNLOAD = "download the file again"
_MAX_ROW_BYTES = 300_000_000
_MAX_LABEL_BYTES = 200_000_000


@dataclass(frozen=True)
class ArrayHeader:
    """What an array of the file is declared to be."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class NpzFile:
    """An `.npz` file whose arrays are read as streams.

    Raises:
        DataError: from every method, where the file is none, is damaged, or holds pickled objects.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with open_regular(path) as file, zipfile.ZipFile(file) as archive:
                members = {each.filename: each.file_size for each in archive.infolist()}
        except ImageError as error:
            raise DataError(error.where, error.problem, _DOWNLOAD) from error
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(str(path), f"not an .npz file ({error})", _DOWNLOAD) from error
        self._sizes = {name.removesuffix(".npy"): size for name, size in members.items() if name.endswith(".npy")}

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays in the file."""
        return tuple(self._sizes)

    def header(self, name: str) -> ArrayHeader:
        """Shape and dtype of an array."""
        with self._open(name) as (_, header):
            return header

    def array(self, name: str) -> NDArray[np.generic]:
        """A whole array; only for small ones, such as labels."""
        with self._open(name) as (stream, header):
            n_bytes = math.prod(header.shape) * header.dtype.itemsize
            if n_bytes > _MAX_LABEL_BYTES:
                raise DataError(str(self._path), f"{name} is {header.shape}, too large for labels", _DOWNLOAD)
            return np.frombuffer(self._read(stream, n_bytes, name), header.dtype).reshape(header.shape)

    def rows(self, name: str, wanted: Sequence[int]) -> Iterator[NDArray[np.generic]]:
        """Rows of an array, in one pass.

        Args:
            wanted: row numbers, in increasing order, none twice.
        """
        with self._open(name) as (stream, header):
            at = 0
            for row in wanted:
                while at < row:  # a compressed stream has no other way forward
                    self._read(stream, header.row_bytes, name)
                    at += 1
                at += 1
                content = self._read(stream, header.row_bytes, name)
                yield np.frombuffer(content, header.dtype).reshape(header.shape[1:])

    def _open(self, name: str) -> _Stream:
        return _Stream(self._path, name, self._sizes.get(name, 0))

    def _read(self, stream: IO[bytes], n_bytes: int, name: str) -> bytes:
        try:
            content = stream.read(n_bytes)
        except (zipfile.BadZipFile, OSError, EOFError, zlib.error, ValueError) as error:
            raise DataError(str(self._path), f"{name} is damaged ({error})", _DOWNLOAD) from error
        if len(content) < n_bytes:
            raise DataError(str(self._path), f"{name} is cut short", _DOWNLOAD)
        return content


class _Stream:
    """One array opened at its first row."""

    def __init__(self, path: Path, name: str, n_bytes: int) -> None:
        self._path, self._name, self._n_bytes = path, name, n_bytes

    def __enter__(self) -> tuple[IO[bytes], ArrayHeader]:
        self._file = open_regular(self._path)
        try:
            self._archive = zipfile.ZipFile(self._file)
            self._stream = self._archive.open(f"{self._name}.npy")
            return self._stream, self._header()
        except DataError:
            self._file.close()
            raise
        except Exception as error:  # zipfile and numpy's header parser raise many kinds on damaged bytes
            self._file.close()
            raise DataError(str(self._path), f"{self._name} is damaged ({error})", _DOWNLOAD) from error

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._archive.close()
        self._file.close()

    def _header(self) -> ArrayHeader:
        version = np.lib.format.read_magic(self._stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)  # fmt: skip
        if read is None:
            raise DataError(str(self._path), f"{self._name} is in version {version} of .npy", "save it again")
        shape, is_fortran, dtype = read(self._stream)
        if dtype.hasobject:
            problem = f"{self._name} holds pickled objects, which can run code; refused"
            raise DataError(str(self._path), problem, "save the arrays as plain numbers: np.savez without objects")
        header = ArrayHeader(shape, dtype)
        declared, stored = math.prod(shape) * dtype.itemsize, self._n_bytes - self._stream.tell()
        if declared != stored or header.row_bytes > _MAX_ROW_BYTES or (is_fortran and len(shape) > 1):
            problem = f"{self._name} declares {declared} bytes, stores {stored}"
            if declared == stored:
                problem = f"{self._name} is {shape}{' in Fortran order' if is_fortran else ''}, which is not read"
            raise DataError(str(self._path), problem, _DOWNLOAD)
        return header


def row_path(name: str, row: int) -> str:
    """How a row is named in a manifest; the order of these names is that of the rows."""
    return f"{name}/{row:08d}"


def row_of_path(path: str) -> tuple[str, int]:
    """Array and row of `row_path`; raises ValueError for any other text."""
    found = re.fullmatch(r"(\w+)/(\d{8,})", path)
    if found is None:
        raise ValueError(f"{path!r} names no row of an array")
    return found[1], int(found[2])
