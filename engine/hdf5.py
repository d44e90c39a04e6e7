"""The one door to HDF5: named arrays with named dimensions in one immutable file; knows nothing of what they mean.

Every byte is proved by the seal in front (`engine.hdf5_seal`). Files come from elsewhere too, so a reader follows
nothing that leads out of the file, believes no declared size, and lets a child process read them first.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from engine.errors import DamagedError
from engine.files import atomic_path, sha256_file, size_of
from engine.hdf5_image import Image
from engine.hdf5_seal import Extent, Seal, SealError, block_size_for, read_seal
from engine.vetting import is_known, is_refused, vet

# 1: checksums of HDF5's own on every chunk, none on texts. 2: a seal over everything, arrays in one piece.
SCHEMA = 2
_SEALED_SINCE = 2
_EXTENT_BYTES = 1 << 20  # an array from this size on has a digest of its own
# Of the files beside one that is read in a child process, so many go along, each up to so large.
_N_BESIDE = 100
_MAX_BESIDE_BYTES = 64 << 20
# What h5py raises for a damaged file, depending on where the damage lies.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_LEADS_OUT = "refers to another file; refused"
_NEWER = "written by schema"
_UPGRADE = "upgrade simtui"


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
    """Writes all arrays into one file that appears whole, with its seal.

    Args:
        arrays: dataset path -> array; each dimension's name must be one of `coordinates`.
        coordinates: dimension name -> its values `(length,)`, stored as HDF5 dimension scales that xarray reads.
        attributes: of the file.
    Raises:
        NoSpaceError, MachineError: the file cannot be written.
    """
    n_bytes = sum(each.nbytes for each in [*(array.values for array in arrays.values()), *coordinates.values()])
    with atomic_path(path, n_bytes) as temp_path, temp_path.open("wb") as file, ThreadPoolExecutor(1) as pool:
        image, block_size = _image(arrays, coordinates, attributes, n_bytes)
        # Beside the writing: together they take hardly longer than the slower of the two.
        digests = pool.map(_sha256, [place.values for place in image.places])
        image.write_out(file)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        file.write(Seal.of(image, block_size, digests).to_block())


def _image(
    arrays: Mapping[str, NamedArray],
    coordinates: Mapping[str, np.ndarray],
    attributes: Mapping[str, str | int | float],
    n_bytes: int,
) -> tuple[Image, int]:
    """The file as it is to be, and the room for the seal in front of it."""
    block_size = block_size_for(sum(array.values.nbytes >= _EXTENT_BYTES for array in arrays.values()))
    image = Image(n_bytes)
    with h5py.File(image, "w", libver="latest", userblock_size=block_size) as file:
        file.attrs.update({"schema": SCHEMA, "writer": "simtui", **attributes})
        for name, scale in coordinates.items():
            stored = _encoded(scale) if scale.dtype.kind in "UO" else scale
            file.create_dataset(name, data=stored).make_scale(name)
        for name, array in arrays.items():
            values = np.ascontiguousarray(array.values)
            if values.nbytes >= _EXTENT_BYTES:
                image.expect(values)
            dataset = file.create_dataset(name, data=values)
            for axis, dim in enumerate(array.dims):
                dataset.dims[axis].attach_scale(file[dim])
    return image, block_size


def _encoded(texts: np.ndarray) -> np.ndarray:
    """Texts as HDF5 stores them; names of files need not be UTF-8, and come back as they were."""
    encoded = np.empty(texts.shape, dtype=h5py.string_dtype())
    encoded[:] = [str(text).encode("utf-8", "surrogateescape") for text in texts]
    return encoded


def _sha256(values: np.ndarray) -> str:
    return hashlib.sha256(values.reshape(-1).view(np.uint8).data).hexdigest()


@contextmanager
def open_arrays(path: Path, remake: str) -> Iterator[Reader]:
    """Opens a file for reading; one that somebody else wrote is first read in a child process.

    Args:
        remake: the command or action that makes the file again, for the errors.
    Raises:
        DamagedError: not an HDF5 file of simtui's, changed since it was written, or of a newer schema.
    """
    seal = _checked_seal(path, remake)
    content_sha256 = seal.digest if seal else sha256_file(path)
    if not (seal and seal.is_own) and not is_known(content_sha256):
        _vet([(path, content_sha256), *_unknown_beside(path)], remake)
    with _opened(path, seal, remake) as reader:
        yield reader


@contextmanager
def open_unvetted(path: Path, remake: str) -> Iterator[Reader]:
    """As `open_arrays`, in this very process: only for one that may die of it."""
    with _opened(path, _checked_seal(path, remake), remake) as reader:
        yield reader


def check_arrays(path: Path, remake: str) -> None:
    """Reads every byte of a file.

    Raises:
        DamagedError: as `open_arrays`.
    """
    seal = _checked_seal(path, remake)
    if seal is None:
        with open_arrays(path, remake) as reader:
            reader.read_everything()
        return
    for extent in seal.extents:
        try:
            seal.check_extent(path, extent)
        except (SealError, OSError) as error:
            raise DamagedError(str(path), str(error), remake) from error


def _vet(files: list[tuple[Path, str]], remake: str) -> None:
    try:
        vet(files, remake)
    except DamagedError as error:
        # The child says only what is wrong: what a newer simtui wrote is not to be made again.
        is_newer = error.problem.startswith(_NEWER)
        raise DamagedError(error.where, error.problem, _UPGRADE if is_newer else error.fix) from error


def _checked_seal(path: Path, remake: str) -> Seal | None:
    try:
        seal = read_seal(path)
        if seal is not None:
            seal.check_structure(path)
        return seal
    except SealError as error:
        raise DamagedError(str(path), str(error), remake) from error
    except OSError as error:
        raise DamagedError(str(path), f"cannot be read ({error.strerror or error})", remake) from error


def _unknown_beside(path: Path) -> list[tuple[Path, str]]:
    """Files of the same name in the folders beside: whoever opens one result of a study will open the others."""
    found = []
    for other in sorted(path.parent.parent.glob(f"*/{path.name}")):
        if other == path or other.stat().st_size > _MAX_BESIDE_BYTES:
            continue
        try:
            seal = read_seal(other)
            sha256 = seal.digest if seal else sha256_file(other)
        except (SealError, OSError):
            continue  # its own reader says so
        if not (seal and seal.is_own) and not is_known(sha256) and not is_refused(sha256):
            found.append((other, sha256))
        if len(found) == _N_BESIDE:
            break
    return found


@contextmanager
def _opened(path: Path, seal: Seal | None, remake: str) -> Iterator[Reader]:
    try:
        # Locking off: immutable files need none, and network file systems often have none.
        file = h5py.File(path, "r", locking=False)
    except _DAMAGE as error:
        raise DamagedError(str(path), f"is not a readable HDF5 file ({str(error)[:120]})", remake) from error
    with file:
        yield Reader(file, path, seal, remake)


class Reader:
    """Reads the arrays of one open file, each checked before a byte of it is believed."""

    def __init__(self, file: h5py.File, path: Path, seal: Seal | None, remake: str) -> None:
        self._file, self._path, self._seal, self._remake = file, path, seal, remake
        schema = self.attribute("schema")
        if not isinstance(schema, (int, np.integer)):
            raise self._damaged("", "has no schema version: not written by simtui")
        if int(schema) > SCHEMA:
            problem = f"{_NEWER} {schema}; this simtui reads up to {SCHEMA}; upgrade"
            raise DamagedError(str(path), problem, _UPGRADE)
        if seal is None and int(schema) >= _SEALED_SINCE:
            raise self._damaged("", "has no seal")

    @property
    def path(self) -> Path:
        """Of the file."""
        return self._path

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
            DamagedError: missing, not numeric, stored elsewhere, larger than what is stored, or not what was written.
        """
        dataset = self._numeric(name)
        values = self._read(dataset, slice(None))
        extent = self._extent(dataset)
        if extent is not None and _sha256(np.ascontiguousarray(values)) != extent.sha256:
            raise self._damaged(name, "its digest does not match: changed since it was written")
        return values

    def row_batches(self, name: str, n_rows: int) -> Iterator[np.ndarray]:
        """A numeric array in batches of rows, first to last, for what does not fit into memory.

        Raises:
            DamagedError: as `array`, before the first batch.
        """
        dataset = self._numeric(name)
        if (extent := self._extent(dataset)) is not None and self._seal is not None:
            try:
                self._seal.check_extent(self._path, extent)
            except (SealError, OSError) as error:
                raise self._damaged(name, str(error)) from error
        for start in range(0, len(dataset), n_rows):
            yield self._read(dataset, slice(start, start + n_rows))

    def read_everything(self) -> None:
        """Reads every array and text that hard links lead to.

        Raises:
            DamagedError: one of them cannot be read.
        """
        seen = set()
        waiting = [""]
        while waiting:
            group = waiting.pop()
            for name in self.names(group):
                path = f"{group}/{name}"
                node = self._object(path)
                assert node is not None
                address = h5py.h5o.get_info(node.id).addr  # a group may lead back to one above it
                if address in seen:
                    continue
                seen.add(address)
                if isinstance(node, h5py.Group):
                    waiting.append(path)
                elif isinstance(node, h5py.Dataset) and h5py.check_string_dtype(node.dtype) is not None:
                    self.strings(path)
                else:
                    self.array(path)

    def _extent(self, dataset: h5py.Dataset) -> Extent | None:
        return self._seal.extent_at(dataset.id.get_offset()) if self._seal else None

    def _numeric(self, name: str) -> h5py.Dataset:
        """A dataset of numbers that may be read."""
        dataset = self._object(name)
        if not isinstance(dataset, h5py.Dataset):
            raise self._damaged(name, "is not a dataset")
        try:
            kind = dataset.dtype.kind
            # What is declared must be there, as written by simtui: the file's size bounds it too.
            stored = min(dataset.id.get_storage_size(), self._path.stat().st_size)
            n_bytes = dataset.nbytes
        except _DAMAGE as error:
            raise self._damaged(name, f"cannot be opened ({str(error)[:80]})") from error
        self._check_storage(name, dataset)
        if kind not in "fiu":
            raise self._damaged(name, f"has type {dataset.dtype}; need numbers")
        if n_bytes > 2 * stored + 4096 * dataset.dtype.itemsize:
            raise self._damaged(name, f"declares {size_of(n_bytes)}, stores {size_of(stored)}")
        return dataset

    def _check_storage(self, name: str, dataset: h5py.Dataset) -> None:
        """Refuses what is read from elsewhere, or by code that is neither simtui's nor HDF5's."""
        try:
            settings = dataset.id.get_create_plist()
            filters = {settings.get_filter(i)[0] for i in range(settings.get_nfilters())}
            leads_out = dataset.is_virtual or bool(dataset.external)
        except _DAMAGE as error:
            raise self._damaged(name, f"cannot be opened ({str(error)[:80]})") from error
        if leads_out:
            raise self._damaged(name, _LEADS_OUT)
        if unknown := filters - _FILTERS:
            raise self._damaged(name, f"needs HDF5 filter {min(unknown)}, which is not simtui's; refused")

    def _read(self, dataset: h5py.Dataset, rows: slice) -> np.ndarray:
        try:
            return np.asarray(dataset[rows] if dataset.ndim else dataset[()])
        except _DAMAGE as error:
            raise self._damaged(str(dataset.name), f"cannot be read ({str(error)[:80]})") from error

    def strings(self, name: str) -> tuple[str, ...]:
        """A coordinate of text."""
        dataset = self._object(name)
        try:
            is_text = isinstance(dataset, h5py.Dataset) and h5py.check_string_dtype(dataset.dtype) is not None
            if dataset is None or not is_text:
                raise self._damaged(name, "is not a list of texts")
            self._check_storage(name, dataset)
            if dataset.size > min(10_000_000, self._path.stat().st_size):
                raise self._damaged(name, f"declares {dataset.size} texts")
            return tuple(str(value) for value in np.ravel(dataset.asstr(errors="surrogateescape")[()]))
        except _DAMAGE as error:
            raise self._damaged(name, f"cannot be read ({str(error)[:80]})") from error

    def _object(self, name: str, missing_ok: bool = False) -> h5py.Group | h5py.Dataset | None:
        """Walks the path one hard link at a time: soft and external links lead anywhere on the machine."""
        node: h5py.Group | h5py.Dataset = self._file
        for part in filter(None, name.split("/")):
            try:
                link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
            except _DAMAGE as error:
                raise self._damaged(name, f"cannot be found ({str(error)[:80]})") from error
            if link is None:
                if missing_ok:
                    return None
                raise self._damaged(name, "is missing")
            if not isinstance(link, h5py.HardLink):
                raise self._damaged(name, _LEADS_OUT)
            try:
                node = node[part]
            except _DAMAGE as error:
                raise self._damaged(name, f"cannot be opened ({str(error)[:80]})") from error
        return node

    def _damaged(self, name: str, problem: str) -> DamagedError:
        return DamagedError(f"{self._path}{':' + name if name else ''}", problem, self._remake)
