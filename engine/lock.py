"""Owns who may write: a lock is a folder with the host and process that made it; knows nothing of what it guards.

A folder, because `mkdir` is atomic on every file system, network ones too, where HDF5's and POSIX's locks are not. The
holder touches its file every few seconds: where its process cannot be asked, its silence tells that it has died.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import psutil

from engine.errors import LockedError
from engine.files import as_machine_error, read_small

BEAT_S = 10.0
SILENT_S = 180.0
_EXIT_LOST = 75
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Args:
        host: its machine.
        pid: its number, which means something only within `space`.
        started: when it started by a clock that is never set: tells it from a later one that got the same number.
        space: the boot of the machine and the process namespace (a container has its own).
        silent_s: how long it has not been heard of.
    """

    host: str
    pid: int
    started: str
    space: str
    silent_s: float = 0.0

    @property
    def is_alive(self) -> bool:
        """Certain for a process of this machine; one of another is believed to live until it has been silent long."""
        if (self.host, self.space) == (socket.gethostname(), _space()):
            return _started(self.pid) == self.started
        return self.silent_s < SILENT_S

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def holder_of(lock_path: Path) -> Holder | None:
    """Who holds the lock; None where nobody does, or where the holder has died."""
    holder = _read(lock_path)
    return holder if holder and holder.is_alive else None


@contextmanager
def locked(lock_path: Path) -> Iterator[None]:
    """Holds the lock for the block; a lock whose holder has died is taken over.

    Raises:
        LockedError: another process holds it.
    """
    me = Holder(socket.gethostname(), os.getpid(), _started(os.getpid()), _space())
    _take(lock_path, me)
    is_done = threading.Event()
    threading.Thread(target=_beat, args=(lock_path, me, is_done), name="simtui-lock", daemon=True).start()
    try:
        yield
    finally:
        is_done.set()
        shutil.rmtree(lock_path, ignore_errors=True)


def _read(lock_path: Path) -> Holder | None:
    """The holder as it stands on disk, dead or alive."""
    file_path = lock_path / "holder.json"
    try:
        raw = json.loads(read_small(file_path))
        who = str(raw["host"]), int(raw["pid"]), str(raw["started"]), str(raw["space"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        who = "an unknown host", 0, "", ""
    if not lock_path.exists():
        return None
    here = (who[0], who[3]) == (socket.gethostname(), _space())
    return Holder(*who, silent_s=0.0 if here else _silent_s(lock_path, file_path))


def _silent_s(lock_path: Path, file_path: Path) -> float:
    """How long ago the holder touched its file, by the clock of the file system where it can be asked."""
    try:
        beat_s = file_path.stat().st_mtime
    except OSError:
        return 0.0
    now_s = time.time()
    probe_path = lock_path.with_name(f"{lock_path.name}.tmp-clock-{os.getpid()}")
    with contextlib.suppress(OSError):  # read-only: this machine's clock has to do
        probe_path.touch()
        now_s = probe_path.stat().st_mtime
        probe_path.unlink()
    return max(0.0, now_s - beat_s)


def _take(lock_path: Path, me: Holder) -> None:
    """The folder appears under its name with the holder already inside: no reader ever sees a lock without one."""
    prepared_path = lock_path.with_name(f"{lock_path.name}.tmp-{os.getpid()}")
    try:
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(prepared_path, ignore_errors=True)
        prepared_path.mkdir()
        (prepared_path / "holder.json").write_text(json.dumps(asdict(me)))
        for _ in range(3):
            try:
                # Renaming onto a folder that is not empty fails on every system: that makes it a lock.
                prepared_path.rename(lock_path)
                return
            except OSError:
                holder = _read(lock_path)
                if holder is not None and holder.is_alive:
                    raise LockedError(
                        str(lock_path.parent),
                        f"is in use by {holder}",
                        f"wait for it, or stop it; if that machine is gone, remove {lock_path}",
                    ) from None
                _log.warning("%s was left behind by %s: taken over", lock_path, holder)
                _put_aside(lock_path)
        raise LockedError(str(lock_path.parent), "is being taken by another process", "try again")
    except OSError as error:
        raise as_machine_error(error, lock_path) from error
    finally:
        shutil.rmtree(prepared_path, ignore_errors=True)


def _put_aside(stale_path: Path) -> None:
    """Removes a dead holder's lock; of two processes that try at once, one rename wins."""
    aside_path = stale_path.with_name(f"{stale_path.name}.stale-{os.getpid()}")
    try:
        stale_path.rename(aside_path)
    except FileNotFoundError:
        return
    shutil.rmtree(aside_path, ignore_errors=True)


def _beat(lock_path: Path, me: Holder, is_done: threading.Event) -> None:
    """Touches the holder's file until the lock is given back.

    A machine that slept may find that its lock has been taken over: two processes must not write, so this one ends.
    """
    while not is_done.wait(BEAT_S):
        holder = _read(lock_path)
        if is_done.is_set():
            return
        if holder is not None and (holder.host, holder.pid, holder.started) != (me.host, me.pid, me.started):
            _log.error("%s has been taken over by %s while this process was silent: ending", lock_path, holder)
            os._exit(_EXIT_LOST)
        with contextlib.suppress(OSError):
            os.utime(lock_path / "holder.json")


def _started(pid: int) -> str:
    """When a process started, in ticks since the boot: unlike a time of day, setting the clock does not change it."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        return status.rpartition(")")[2].split()[19]
    except OSError:
        pass
    try:
        return f"{psutil.Process(pid).create_time():.0f}"
    except psutil.Error:
        return ""


@cache
def _space() -> str:
    """This boot of this machine, and the namespace in which process numbers mean something."""
    parts = []
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)
