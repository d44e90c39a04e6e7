"""Owns who may write: a lock is a folder with the host and process that made it; knows nothing of what it guards.

A folder, because `mkdir` is atomic on every file system, network ones too, where HDF5's and POSIX's locks are not. The
holder touches its file every few seconds: where its process cannot be asked, its silence tells that it has died.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import LockedError
from engine.files import TEMP_MARK, as_machine_error, file_system_s, read_small, temporary_path
from engine.process import space, started

BEAT_S = 10.0
SILENT_S = 180.0
_EXIT_LOST = 75
_ASIDE_MARK = f"{TEMP_MARK}stale-"
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
        if (self.host, self.space) == (socket.gethostname(), space()):
            return started(self.pid) == self.started
        return self.silent_s < SILENT_S

    @property
    def identity(self) -> tuple[str, int, str, str]:
        """What tells it from any other holder, ever."""
        return self.host, self.pid, self.started, self.space

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
    me = Holder(socket.gethostname(), os.getpid(), started(os.getpid()), space())
    has_taken_over = _take(lock_path, me)
    _beats.begin(lock_path, me)
    try:
        yield
    finally:
        _beats.end(lock_path)
        shutil.rmtree(lock_path, ignore_errors=True)
        if has_taken_over:
            for aside_path in lock_path.parent.glob(f"{lock_path.name}{_ASIDE_MARK}*"):
                shutil.rmtree(aside_path, ignore_errors=True)


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
    here = (who[0], who[3]) == (socket.gethostname(), space())
    return Holder(*who, silent_s=0.0 if here else _silent_s(lock_path, file_path))


def _silent_s(lock_path: Path, file_path: Path) -> float:
    """How long ago the holder touched its file, by the clock of the file system."""
    try:
        return max(0.0, file_system_s(lock_path.parent) - file_path.stat().st_mtime)
    except OSError:
        return 0.0


def _take(lock_path: Path, me: Holder) -> bool:
    """Takes the lock; returns whether a dead holder had left one, which lies beside it now.

    The folder appears under its name with the holder already inside: no reader ever sees a lock without one.
    """
    prepared_path = temporary_path(lock_path)
    has_taken_over = False
    try:
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(prepared_path, ignore_errors=True)
        prepared_path.mkdir()
        (prepared_path / "holder.json").write_text(json.dumps(asdict(me)))
        for _ in range(3):
            try:
                # Renaming onto a folder that is not empty fails on every system: that makes it a lock.
                prepared_path.rename(lock_path)
                return has_taken_over
            except OSError:
                holder = _read(lock_path)
                if holder is not None and holder.identity == me.identity and not prepared_path.exists():
                    return has_taken_over  # a file server did it, and lost its answer
                if holder is not None and holder.is_alive:
                    raise LockedError(
                        str(lock_path.parent),
                        f"is in use by {holder}",
                        f"wait for it, or stop it; if that machine is gone, remove {lock_path}",
                    ) from None
                _log.warning("%s was left behind by %s: taken over", lock_path, holder)
                _put_aside(lock_path, holder)
                has_taken_over = True
        raise LockedError(str(lock_path.parent), "is being taken by another process", "try again")
    except OSError as error:
        raise as_machine_error(error, lock_path) from error
    finally:
        shutil.rmtree(prepared_path, ignore_errors=True)


def _put_aside(stale_path: Path, dead: Holder | None) -> None:
    """Moves a dead holder's lock away, to a name of that holder, where it stays while the new one holds the lock.

    So one rename wins where two processes try at once, and a slow second one cannot move the lock of the first.
    """
    who = hashlib.sha256(repr(dead.identity if dead else None).encode()).hexdigest()[:12]
    with contextlib.suppress(OSError):
        stale_path.rename(stale_path.with_name(f"{stale_path.name}{_ASIDE_MARK}{who}"))


class _Beats:
    """Touches the holder's file of every lock of this process: one thread, however many there are.

    A machine that slept may find that a lock has been taken over: two processes must not write, so this one ends.
    """

    def __init__(self) -> None:
        self._held: dict[Path, Holder] = {}
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self, lock_path: Path, me: Holder) -> None:
        """Touches this one too."""
        with self._guard:
            self._held[lock_path] = me
            if self._thread is None:
                # A fork has no threads, and holds none of its parent's locks.
                os.register_at_fork(after_in_child=self.__init__)  # type: ignore[misc]
                self._thread = threading.Thread(target=self._beat, name="simtui-lock", daemon=True)
                self._thread.start()

    def end(self, lock_path: Path) -> None:
        """Touches this one no more; when it returns, its folder may go."""
        with self._guard:
            self._held.pop(lock_path, None)

    def _beat(self) -> None:
        wake = threading.Event()
        while True:
            wake.wait(BEAT_S)
            for lock_path in list(self._held):
                with self._guard:
                    if me := self._held.get(lock_path):
                        _touch(lock_path, me)


def _touch(lock_path: Path, me: Holder) -> None:
    holder = _read(lock_path)
    if holder is not None and holder.identity != me.identity:
        _log.error("%s has been taken over by %s while this process was silent: ending", lock_path, holder)
        os._exit(_EXIT_LOST)
    with contextlib.suppress(OSError):
        os.utime(lock_path / "holder.json")


_beats = _Beats()
