"""Owns the block in front of an HDF5 file by which every byte of it is proved, and known to be one's own or not.

HDF5 leaves room for a block of the writer's in front (the user block). It holds the SHA-256 of each large array, of all
other bytes of the file, and of itself; so whoever reads one array of a large file checks that array and the structure,
not gigabytes. A code from a secret of the user's tells files of their own from files of somebody else.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from platformdirs import user_state_path

from engine.files import open_file
from engine.hdf5_image import Image

_MAGIC = b"simtui seal\n"
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_MIN_BLOCK = 512  # HDF5 takes powers of two from here
_MAX_BLOCK = 1 << 24
_READ_BYTES = 1 << 18


class SealError(ValueError):
    """The file is not what it was when it was written."""


@dataclass(frozen=True)
class Extent:
    """Bytes `[start, start + size)` of the file and their SHA-256."""

    start: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Seal:
    """What proves a file: its large arrays in the order in which they lie, and the SHA-256 of everything else."""

    block_size: int
    file_size: int
    extents: tuple[Extent, ...]
    rest_sha256: str
    code: str = ""

    @classmethod
    def of(cls, image: Image, block_size: int, digests: Iterable[str]) -> Seal:
        """The seal of a file that is still in memory, with room for the block in front.

        Args:
            digests: SHA-256 of the large arrays, in the order of `image.places`.
        """
        rest, n_bytes = hashlib.sha256(), block_size
        for part in image.parts(block_size):
            rest.update(part)
            n_bytes += len(part)
        extents = [
            Extent(place.start, len(place.data), sha256) for place, sha256 in zip(image.places, digests, strict=True)
        ]
        extents.sort(key=lambda each: each.start)
        return cls(block_size, n_bytes + sum(each.size for each in extents), tuple(extents), rest.hexdigest())

    @property
    def digest(self) -> str:
        """SHA-256 that stands for the whole content of the file."""
        return hashlib.sha256(self._facts().encode()).hexdigest()

    @property
    def is_own(self) -> bool:
        """Whether this user wrote the file, on this machine or with the same home."""
        return bool(self.code) and hmac.compare_digest(self.code, _code(self._facts()))

    def to_block(self) -> bytes:
        """The block, filled up with zeros."""
        facts = self._facts()
        body = f"{facts}\n{_code(facts)}\n".encode()
        content = _MAGIC + body + hashlib.sha256(body).hexdigest().encode() + b"\n"
        return content.ljust(self.block_size, b"\0")

    def extent_at(self, start: int | None) -> Extent | None:
        """The extent that starts at a byte of the file."""
        return next((each for each in self.extents if each.start == start), None)

    def check_structure(self, path: Path) -> None:
        """Reads all but the large arrays.

        Raises:
            SealError: a byte of it differs from what was written.
        """
        if path.stat().st_size != self.file_size:
            raise SealError(f"has {path.stat().st_size} bytes, was written with {self.file_size}")
        if _rest_sha256(path, self.block_size, self.extents) != self.rest_sha256:
            raise SealError("its digest does not match: changed since it was written")

    def check_extent(self, path: Path, extent: Extent) -> None:
        """Reads one large array.

        Raises:
            SealError: a byte of it differs from what was written.
        """
        total = hashlib.sha256()
        _update(total, path, extent.start, extent.start + extent.size)
        if total.hexdigest() != extent.sha256:
            raise SealError("its digest does not match: changed since it was written")

    def _facts(self) -> str:
        extents = [[each.start, each.size, each.sha256] for each in self.extents]
        return json.dumps([self.file_size, extents, self.rest_sha256])


def block_size_for(n_extents: int) -> int:
    """A block that has room for so many extents."""
    size = _MIN_BLOCK
    while size < 400 + n_extents * 120:
        size *= 2
    return size


def read_seal(path: Path) -> Seal | None:
    """The seal of a file; None where it was written without one.

    Raises:
        SealError: the block itself has been changed.
        OSError: the file cannot be read.
    """
    with open_file(path) as file:
        start = file.read(len(_MAGIC))
        if start.startswith(_HDF5_MAGIC):
            return None
        if start != _MAGIC:
            raise SealError("does not begin as an HDF5 file or with a seal")
        facts, code, own_sha256 = (file.readline(_MAX_BLOCK).rstrip(b"\n") for _ in range(3))
        block_end = file.tell()
        block_size = block_size_for(facts.count(b"]") - 2)
        padding = file.read(max(0, block_size - block_end))
    try:
        if hashlib.sha256(facts + b"\n" + code + b"\n").hexdigest() != own_sha256.decode("ascii"):
            raise SealError("its seal has been changed")
        file_size, extents, rest = json.loads(facts)
        seal = Seal(block_size, file_size, tuple(Extent(*each) for each in extents), rest, code.decode("ascii"))
    except (ValueError, TypeError, RecursionError) as error:
        raise SealError(f"its seal cannot be read ({str(error)[:80]})") from error
    if block_end > block_size or padding != bytes(block_size - block_end):
        raise SealError("its seal has been changed")
    return seal


def _rest_sha256(path: Path, block_size: int, extents: Iterable[Extent]) -> str:
    """SHA-256 of everything behind the block but the extents."""
    total = hashlib.sha256()
    at = block_size
    for extent in extents:
        if extent.start < at:
            raise SealError("its seal cannot be read (arrays overlap)")
        _update(total, path, at, extent.start)
        at = extent.start + extent.size
    _update(total, path, at, path.stat().st_size)
    return total.hexdigest()


def _update(total: hashlib._Hash, path: Path, start: int, end: int) -> None:
    with open_file(path) as file:
        file.seek(start)
        while start < end and (part := file.read(min(_READ_BYTES, end - start))):
            total.update(part)
            start += len(part)


def _code(facts: str) -> str:
    key = own_key()
    return hmac.new(key, facts.encode(), "sha256").hexdigest() if key else ""


@cache
def own_key() -> bytes:
    """This user's secret, made at its first use; empty where there is no place to keep one."""
    path = user_state_path("simtui") / "key"
    with contextlib.suppress(OSError):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temp_path = path.with_name(f"key.{os.getpid()}")
            temp_path.touch(mode=0o600)
            temp_path.write_bytes(secrets.token_bytes(32))
            with contextlib.suppress(FileExistsError):
                os.link(temp_path, path)  # of two processes that start at once, the first decides
            temp_path.unlink()
        return path.read_bytes()
    return b""
