"""Owns how a file comes to be on disk: whole or not at all, with its digest; knows nothing of what is inside."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from engine.errors import DamagedError, MachineError, NoSpaceError
from engine.fault_points import reach
from engine.process import may_live, writer_mark

TEMP_MARK = ".tmp-"
_FORGOTTEN_S = 3600.0  # who writes a file touches it far more often
_CLOCK_S = 60.0
_clocks: dict[int, tuple[float, float]] = {}  # of each file system: asked when, and its lead over the monotonic clock
_MAX_SMALL_BYTES = 1 << 28  # the manifest of a million images


@contextmanager
def atomic_path(path: Path, n_bytes: int = 0) -> Iterator[Path]:
    """Gives a temporary path beside `path`; the finished file takes the final name when the block ends well.

    The order survives a crash at any point: write, fsync the file, rename, fsync the folder. After any error the
    temporary file is thrown away, because a file that failed once (a full disk) can look whole and be wrong.

    Args:
        n_bytes: what is about to be written, if known: a disk without that much room is refused at once.
    Raises:
        NoSpaceError: no space is left.
        MachineError: the folder cannot be written.
    """
    temp_path = temporary_path(path)
    point = f"{path.parent.name}/{path.name}"
    n_written = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if n_bytes > shutil.disk_usage(path.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reach(f"{point}:begin")
        yield temp_path
        reach(f"{point}:written")
        n_written = temp_path.stat().st_size
        _fsync(temp_path)
        reach(f"{point}:synced")
        temp_path.replace(path)
        reach(f"{point}:renamed")
        _fsync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):  # a folder that is a file, or a disk that is gone: the first failure counts
            n_written = max(n_written, temp_path.stat().st_size)
            temp_path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise as_machine_error(error, path, max(n_bytes, n_written)) from error
        raise


def atomic_write(path: Path, content: bytes | str) -> None:
    """Writes a small file whole; see `atomic_path`."""
    with atomic_path(path) as temp_path:
        temp_path.write_bytes(content.encode() if isinstance(content, str) else content)


def write_hint(path: Path, content: str) -> bool:
    """Writes what may be lost, whole but not forced to the disk; False where it cannot be written."""
    temp_path = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temp_path.write_text(content, "utf-8", "surrogatepass")
        temp_path.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temp_path.unlink(missing_ok=True)
        return False
    return True


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
        return json.loads(read_small(path))
    except (OSError, ValueError) as error:
        raise DamagedError(str(path), f"not readable as JSON ({error})", remake) from error


def open_file(path: Path) -> BufferedReader:
    """Opens a regular file for reading; a FIFO or a device is never opened, so this cannot block.

    Raises:
        OSError: `EINVAL` where it is no regular file, else as the system says.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def read_small(path: Path) -> bytes:
    """The content of a regular file that is no larger than such files of simtui's become.

    Raises:
        OSError: as `open_file`, or the file is larger.
    """
    with open_file(path) as file:
        content = file.read(_MAX_SMALL_BYTES + 1)
    if len(content) > _MAX_SMALL_BYTES:
        raise OSError(errno.EFBIG, f"more than {size_of(_MAX_SMALL_BYTES)}", str(path))
    return content


def sha256_file(path: Path) -> str:
    """SHA-256 of the file's bytes, as 64 hexadecimal digits."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON-like value in canonical form: the same value gives the same digest on any machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_system_s(folder: Path) -> float:
    """The time by the clock that stamps the files in a folder: that of a file server may differ from this machine's.

    Asked once a minute for each file system. Where the folder cannot be written, this machine's clock has to do.
    """
    now_s = time.monotonic()
    device = folder.stat().st_dev
    known = _clocks.get(device)
    if known is None or now_s - known[0] > _CLOCK_S:
        probe_path = temporary_path(folder / "clock")
        stamp_s = time.time()
        with contextlib.suppress(OSError):
            probe_path.touch()
            stamp_s = probe_path.stat().st_mtime
            probe_path.unlink()
        known = _clocks[device] = (now_s, stamp_s - now_s)
    return now_s + known[1]


def temporary_path(path: Path) -> Path:
    """Where this process, and no other on any host, prepares what is to stand at `path`."""
    return path.with_name(f"{path.name}{TEMP_MARK}{writer_mark()}")


def temporary_leftovers(folder: Path) -> Iterator[Path]:
    """What writers that died have left under `folder`: not what a living one, on this host or another, works on."""
    for temp_path in sorted(folder.rglob(f"*{TEMP_MARK}*")):
        mark = temp_path.name.rpartition(TEMP_MARK)[2]
        with contextlib.suppress(FileNotFoundError):
            if not may_live(mark) or file_system_s(folder) - temp_path.stat().st_mtime > _FORGOTTEN_S:
                yield temp_path


def sweep_temporary(folder: Path) -> None:
    """Removes what writers that died have left under `folder`; the caller holds the lock of the folder."""
    for temp_path in temporary_leftovers(folder):
        if temp_path.is_dir():
            shutil.rmtree(temp_path, ignore_errors=True)
        else:
            temp_path.unlink(missing_ok=True)


def as_machine_error(error: OSError, path: Path, need_bytes: int = 0) -> MachineError:
    """The machine's failure as one that the user can mend.

    Args:
        need_bytes: how large the file would have become, as far as it is known.
    """
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        cause = {errno.EDQUOT: "quota reached", errno.EFBIG: "largest file size reached"}.get(error.errno, "no space")
        need = f"need {size_of(need_bytes)}, " if need_bytes else ""
        free = size_of(shutil.disk_usage(folder).free)
        problem = f"{cause} in {folder} ({need}free {free})"
        return NoSpaceError(str(path), problem, "make room there, then run the same command", need_bytes)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return MachineError(
            str(path),
            "cannot be written (permission denied or read-only)",
            f"make {folder} writable, or give another folder with --out",
        )
    return MachineError(
        str(path), f"cannot be written ({error.strerror or error})", f"check the disk that holds {folder}"
    )


def size_of(n_bytes: float) -> str:
    """A size as `3 MB`: decimal units, two figures where the number is small."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if n_bytes >= 10 or unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def _fsync(path: Path) -> None:
    """Returns when what was written to a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
