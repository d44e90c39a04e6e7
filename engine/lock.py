"""Owns who may write: a lock is a folder with the host and process that made it; knows nothing of what it guards.

A folder, because `mkdir` is atomic on every file system, network ones too, where HDF5's and POSIX's locks are not.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from engine.errors import LockedError
from engine.files import as_machine_error


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock; `started_s` tells it from a later one that got the same number."""

    host: str
    pid: int
    started_s: float

    @property
    def is_alive(self) -> bool:
        """False only where it is certain: a process of another host counts as alive."""
        if self.host != socket.gethostname():
            return True
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started_s) < 2.0
        except psutil.Error:
            return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def holder_of(lock_path: Path) -> Holder | None:
    """Who holds the lock; None where nobody does, or where the holder has died on this host."""
    try:
        raw = json.loads((lock_path / "holder.json").read_text())
        holder = Holder(str(raw["host"]), int(raw["pid"]), float(raw["started_s"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return Holder("an unknown host", 0, 0.0) if lock_path.exists() else None
    return holder if holder.is_alive else None


@contextmanager
def locked(lock_path: Path) -> Iterator[None]:
    """Holds the lock for the block; a lock whose holder has died on this host is taken over.

    Raises:
        LockedError: another process holds it.
    """
    _take(lock_path)
    try:
        yield
    finally:
        shutil.rmtree(lock_path, ignore_errors=True)


def _take(lock_path: Path) -> None:
    """The folder appears under its name with the holder already inside: no reader ever sees a lock without one."""
    me = Holder(socket.gethostname(), os.getpid(), psutil.Process().create_time())
    prepared_path = lock_path.with_name(f"{lock_path.name}.tmp-{os.getpid()}")
    try:
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(prepared_path, ignore_errors=True)
        prepared_path.mkdir()
        (prepared_path / "holder.json").write_text(json.dumps(me.__dict__))
        for _ in range(3):
            try:
                # Renaming onto a folder that is not empty fails on every system: that makes it a lock.
                prepared_path.rename(lock_path)
                return
            except OSError:
                holder = holder_of(lock_path)
                if holder is not None:
                    raise LockedError(
                        str(lock_path.parent),
                        f"is in use by {holder}",
                        f"wait for it, or stop it; if that machine is gone, remove {lock_path}",
                    ) from None
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
