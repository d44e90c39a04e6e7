"""Owns the log of each run, and reads the end of any log of a study; knows nothing of what is said in them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

LOG_FILE = "log.txt"
_TAIL_BYTES = 16_000
# A FIFO or a link in the place of a log must neither block a process nor lead it elsewhere.
_GUARDED = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def run_log(run_path: Path, run_id: str) -> Iterator[None]:
    """What is logged in the block is written to the log of the run too; a log that cannot be written stops no run."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _GUARDED
        descriptor = os.open(run_path / LOG_FILE, flags, 0o666)
    except OSError as error:
        logging.getLogger("simtui.worker").warning("%s: has no log of its own: %s", run_id, error)
        yield
        return
    handler = _RunLog(descriptor, run_id)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        os.close(descriptor)


def log_tail(path: Path, folder_path: Path) -> tuple[str, ...]:
    """The last lines of a log, at most 16 kB of them; none where there is no log.

    Raises:
        OSError: it is no regular file, leads out of the folder, or cannot be read.
    """
    try:
        real_path = Path(os.path.realpath(path, strict=True))  # `resolve` raises RuntimeError at a loop of links
    except FileNotFoundError:
        return ()
    if not real_path.is_relative_to(folder_path.resolve()):
        raise OSError(errno.EINVAL, "leads out of the study folder", str(path))
    descriptor = os.open(real_path, os.O_RDONLY | _GUARDED)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        start = max(status.st_size - _TAIL_BYTES, 0)
        file.seek(start)
        content = file.read(_TAIL_BYTES)
    lines = content.decode("utf-8", "backslashreplace").splitlines()
    return tuple(lines[1:] if start else lines)  # the first is cut short


class _RunLog(logging.Handler):
    """Lines of one run: they need not name it."""

    def __init__(self, descriptor: int, run_id: str) -> None:
        super().__init__(logging.INFO)
        self._descriptor, self._prefix = descriptor, f"{run_id}: "
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        """Writes at once: what the run said last before a crash is what is looked for."""
        text = self.format(record).replace(self._prefix, "", 1)
        with contextlib.suppress(OSError):  # the disk is full: the run itself says so
            os.write(self._descriptor, f"{text}\n".encode("utf-8", "backslashreplace"))
