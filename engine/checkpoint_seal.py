"""Owns how a checkpoint proves itself: a SHA-256 over all its bytes, kept in its own header; needs no torch.

The safetensors format has no checksum. The header has a place for 64 digits, which count as zeros when the
digest is made.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from engine.files import open_file

UNSEALED = "0" * 64
FACTS = "simtui"
_FIELD = re.compile(rb'\\"seal\\": \\"([0-9a-f]{64})\\"')
_MAX_HEADER_BYTES = 100 << 20
_READ_BYTES = 1 << 22


class CheckpointError(ValueError):
    """The file is not what it was when it was written, or not a checkpoint of simtui's."""


def header_facts(path: Path) -> dict[str, Any]:
    """What simtui wrote about the tensors, unchecked.

    Raises:
        CheckpointError: not a safetensors file of simtui's.
    """
    try:
        header = json.loads(_header(path))
        facts = json.loads(header["__metadata__"][FACTS])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(f"not a checkpoint of simtui's ({str(error)[:80]})") from error
    if not isinstance(facts, dict):
        raise CheckpointError("not a checkpoint of simtui's (its metadata is not an object)")
    return facts


def seal_checkpoint(path: Path) -> None:
    """Puts the digest into the header of a file that was written with `"seal": UNSEALED` among its facts."""
    start, _ = _field(path)
    digest = _digest(path, start)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(digest.encode())


def check_checkpoint(path: Path) -> None:
    """Reads the whole file.

    Raises:
        CheckpointError: a byte of it differs from what was written, or it has no seal.
        OSError: it cannot be read.
    """
    start, found = _field(path)
    if _digest(path, start) != found:
        raise CheckpointError("its digest does not match: changed since it was written")


def _header(path: Path) -> bytes:
    with open_file(path) as file:
        n_bytes = int.from_bytes(file.read(8), "little")
        if not 2 <= n_bytes <= min(_MAX_HEADER_BYTES, path.stat().st_size):
            raise CheckpointError("not a safetensors file, or cut short in its header")
        return file.read(n_bytes)


def _field(path: Path) -> tuple[int, str]:
    """Where the digits are, and what they say."""
    found = _FIELD.search(_header(path))
    if found is None:
        raise CheckpointError("not a checkpoint of simtui's (it has no seal)")
    return 8 + found.start(1), found[1].decode()


def _digest(path: Path, field_start: int) -> str:
    total = hashlib.sha256()
    with open_file(path) as file:
        total.update(file.read(field_start))
        total.update(UNSEALED.encode())
        file.seek(len(UNSEALED), 1)
        while part := file.read(_READ_BYTES):
            total.update(part)
    return total.hexdigest()
