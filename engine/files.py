"""Owns how a file comes to be on disk: whole or not at all, with its digest; knows nothing of what is inside."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import DamagedError, MachineError

TEMP_MARK = ".tmp-"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`; the finished file takes the final name when the block ends well.

    The order survives a crash at any point: write, fsync the file, rename, fsync the folder. After any error the
    temporary file is thrown away, because a file that failed once (a full disk) can look whole and be wrong.

    Raises:
        MachineError: no space is left, or the folder cannot be written.
    """
    temp_path = path.with_name(f"{path.name}{TEMP_MARK}{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temp_path
        _fsync(temp_path)
        temp_path.replace(path)
        _fsync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):  # a folder that is a file, or a disk that is gone: the first failure counts
            temp_path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise as_machine_error(error, path) from error
        raise


def atomic_write(path: Path, content: bytes | str) -> None:
    """Writes a small file whole; see `atomic_path`."""
    with atomic_path(path) as temp_path:
        temp_path.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON, whole; keys keep their order. ASCII, so that names that are not UTF-8 survive."""
    atomic_write(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, remake: str) -> Any:
    """Reads a JSON file of simtui's own.

    Args:
        remake: what the user does if the file is damaged, for the error.
    Raises:
        DamagedError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedError(str(path), f"not readable as JSON ({error})", remake) from error


def sha256_file(path: Path) -> str:
    """SHA-256 of the file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON-like value in canonical form: the same value gives the same digest on any machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sweep_temporary(folder: Path) -> None:
    """Removes what writers that died have left under `folder`; the caller holds the lock of the folder."""
    for temp_path in folder.rglob(f"*{TEMP_MARK}*"):
        if temp_path.is_dir():
            shutil.rmtree(temp_path, ignore_errors=True)
        else:
            temp_path.unlink(missing_ok=True)


def as_machine_error(error: OSError, path: Path) -> MachineError:
    """The machine's failure as one that the user can mend."""
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(folder).free
        return MachineError(
            str(path), f"no space left (free {free / 1e6:.0f} MB)", f"make room in {folder}, then run the same command"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return MachineError(
            str(path),
            "cannot be written (permission denied or read-only)",
            f"make {folder} writable, or give another folder with --out",
        )
    return MachineError(
        str(path), f"cannot be written ({error.strerror or error})", f"check the disk that holds {folder}"
    )


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
