"""Tells whether the files of a checkpoint are what they were; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.files import digest, sha256_file


def stamps_of(files: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """What changes whenever one of the files is replaced.

    Raises:
        OSError: one is not there.
    """
    found = [Path(file).stat() for file in files]
    return tuple((each.st_mtime_ns, each.st_size) for each in found)


def content_of(files: Sequence[str]) -> str:
    """SHA-256 of a checkpoint: of its file, or of those of its shards.

    Raises:
        OSError: one cannot be read.
    """
    found = [sha256_file(Path(file)) for file in files]
    return found[0] if len(found) == 1 else digest(found)
