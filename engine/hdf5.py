"""The one door to HDF5: named arrays with named dimensions in one immutable file; knows nothing of what they mean.

Files come from elsewhere, so a reader follows nothing that leads out of the file and believes no declared size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from engine.errors import DamagedError
from engine.files import atomic_path

SCHEMA = 1
_CHUNK_BYTES = 1 << 22
# What h5py raises for a damaged file, depending on where the damage lies.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)


@dataclass(frozen=True)
class NamedArray:
    """An array and the name of each of its dimensions."""

    values: np.ndarray
    dims: tuple[str, ...]


def write_arrays(
    path: Path,
    arrays: Mapping[str, NamedArray],
    coordinates: Mapping[str, np.ndarray],
    attributes: Mapping[str, str | int | float],
) -> None:
    """Writes all arrays into one file that appears whole; checksums on every chunk.

    Args:
        arrays: dataset path -> array; each dimension's name must be one of `coordinates`.
        coordinates: dimension name -> its values `(length,)`, stored as HDF5 dimension scales that xarray reads.
        attributes: of the file.
    """
    with atomic_path(path) as temp_path, h5py.File(temp_path, "w", libver="latest") as file:
        file.attrs.update({"schema": SCHEMA, "writer": "simtui", **attributes})
        for name, values in coordinates.items():
            stored = np.asarray(values, dtype=h5py.string_dtype()) if values.dtype.kind in "UO" else values
            file.create_dataset(name, data=stored).make_scale(name)
        for name, array in arrays.items():
            dataset = file.create_dataset(
                name, data=array.values, chunks=_chunks(array.values), fletcher32=array.values.size > 0
            )
            for axis, dim in enumerate(array.dims):
                dataset.dims[axis].attach_scale(file[dim])


@contextmanager
def open_arrays(path: Path, remake: str) -> Iterator[Reader]:
    """Opens a file for reading.

    Args:
        remake: the command or action that makes the file again, for the errors.
    Raises:
        DamagedError: not an HDF5 file of simtui's, damaged, or of a newer schema.
    """
    try:
        # Locking off: immutable files need none, and network file systems often have none.
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise DamagedError(str(path), f"is not a readable HDF5 file ({str(error)[:120]})", remake) from error
    with file:
        yield Reader(file, path, remake)


class Reader:
    """Reads the arrays of one open file, each checked before a byte of it is taken."""

    def __init__(self, file: h5py.File, path: Path, remake: str) -> None:
        self._file, self._path, self._remake = file, path, remake
        schema = self.attribute("schema")
        if not isinstance(schema, (int, np.integer)):
            raise self._damaged("", "has no schema version: not written by simtui")
        if int(schema) > SCHEMA:
            raise DamagedError(
                str(path), f"written by schema {schema}; this simtui reads up to {SCHEMA}", "upgrade simtui"
            )

    def attribute(self, name: str) -> object:
        """An attribute of the file, or None."""
        try:
            return self._file.attrs.get(name)
        except _DAMAGE as error:
            raise self._damaged(name, f"attribute cannot be read ({error})") from error

    def names(self, group: str) -> tuple[str, ...]:
        """The names directly under a group; empty where there is no such group."""
        node = self._object(group, missing_ok=True)
        if node is None:
            return ()
        try:
            return tuple(node)
        except _DAMAGE as error:
            raise self._damaged(group, f"cannot be listed ({str(error)[:80]})") from error

    def array(self, name: str) -> np.ndarray:
        """A numeric array, whole.

        Raises:
            DamagedError: missing, not numeric, stored elsewhere, larger than what is stored, or its checksum is wrong.
        """
        return self._read(self._numeric(name), slice(None))

    def row_batches(self, name: str, n_rows: int) -> Iterator[np.ndarray]:
        """A numeric array in batches of rows, first to last, for what does not fit into memory.

        Raises:
            DamagedError: as `array`; a wrong checksum shows when its batch is reached.
        """
        dataset = self._numeric(name)
        for start in range(0, len(dataset), n_rows):
            yield self._read(dataset, slice(start, start + n_rows))

    def _numeric(self, name: str) -> h5py.Dataset:
        """A dataset of numbers that may be read."""
        dataset = self._object(name)
        if not isinstance(dataset, h5py.Dataset):
            raise self._damaged(name, "is not a dataset")
        if dataset.is_virtual or dataset.external:
            raise self._damaged(name, "refers to another file; refused")
        if dataset.dtype.kind not in "fiu":
            raise self._damaged(name, f"has type {dataset.dtype}; need numbers")
        stored = dataset.id.get_storage_size()
        if dataset.nbytes > 2 * stored + 4096 * dataset.dtype.itemsize:
            raise self._damaged(name, f"declares {dataset.nbytes} bytes, stores {stored}")
        return dataset

    def _read(self, dataset: h5py.Dataset, rows: slice) -> np.ndarray:
        try:
            return np.asarray(dataset[rows] if dataset.ndim else dataset[()])
        except _DAMAGE as error:
            raise self._damaged(str(dataset.name), f"fails its checksum ({str(error)[:80]})") from error

    def strings(self, name: str) -> tuple[str, ...]:
        """A coordinate of text."""
        dataset = self._object(name)
        if (
            not isinstance(dataset, h5py.Dataset)
            or h5py.check_string_dtype(dataset.dtype) is None
            or dataset.is_virtual
            or dataset.external
        ):
            raise self._damaged(name, "is not a list of texts")
        if dataset.size > 10_000_000:
            raise self._damaged(name, f"declares {dataset.size} texts")
        return tuple(str(value) for value in np.ravel(dataset.asstr(errors="replace")[()]))

    def _object(self, name: str, missing_ok: bool = False) -> h5py.Group | h5py.Dataset | None:
        """Walks the path one hard link at a time: soft and external links lead anywhere on the machine."""
        node: h5py.Group | h5py.Dataset = self._file
        for part in name.strip("/").split("/"):
            try:
                link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
            except _DAMAGE as error:
                raise self._damaged(name, f"cannot be found ({str(error)[:80]})") from error
            if link is None:
                if missing_ok:
                    return None
                raise self._damaged(name, "is missing")
            if not isinstance(link, h5py.HardLink):
                raise self._damaged(name, "refers to another file; refused")
            try:
                node = node[part]
            except _DAMAGE as error:
                raise self._damaged(name, f"cannot be opened ({str(error)[:80]})") from error
        return node

    def _damaged(self, name: str, problem: str) -> DamagedError:
        return DamagedError(f"{self._path}{':' + name if name else ''}", problem, self._remake)


def _chunks(values: np.ndarray) -> tuple[int, ...] | None:
    """Whole trailing dimensions, as many leading rows as make a chunk of a few megabytes; checksums need chunks."""
    if values.size == 0:
        return None
    row_bytes = max(1, values[0].nbytes) if values.ndim else values.nbytes
    return (max(1, min(len(values), _CHUNK_BYTES // row_bytes)), *values.shape[1:])
