"""Asks a child process, which loads torch, for one answer, and keeps answers in the user's cache; knows no question.

An answer is a folder of files under the digest of all that decides it, so it never grows old.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from engine.errors import DamagedError, MachineError, SimtuiError
from engine.jobs.stage import Failure

_LOOK_S = 0.2  # how often a child is looked at that may be told to stop
_BUSY = "try again when this machine has less to do"
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Request:
    """What a child process is asked: `python -m engine.jobs.<module> <arguments> <place>`.

    Attributes:
        where, what: the file or run concerned and what is computed ("its attention"), for the errors.
        stop: set by another thread that wants the answer no more.
    """

    module: str
    arguments: Sequence[object]
    where: str
    what: str
    timeout_s: float
    stop: threading.Event | None = None


def kept_or_asked(place: Path, n_kept: int, request: Request, read: Callable[[Path], _Answer]) -> _Answer:
    """The answer that lies in the cache; where it is absent or damaged, what a child process writes there.

    Args:
        place: the answer's folder; where the cache cannot be written, another one for the moment.
        n_kept: how many answers stay beside it; the oldest go.
        read: reads the answer from a folder; raises `DamagedError` where it is not whole.
    Raises:
        SimtuiError: what the child says it failed of.
        MachineError: the child crashes, takes too long, is stopped, or cannot be started.
    """
    try:
        return read(place)
    except DamagedError:  # or absent
        with _writable(place, n_kept) as written:
            _ask(request, written)
            return read(written)


def answer_for(compute: Callable[[], None]) -> int:
    """The child's side: computes; prints an expected error as its last line, JSON. Returns the exit code."""
    try:
        compute()
    except SimtuiError as error:
        print(json.dumps(asdict(Failure.of(error))))
        return error.exit_code
    return 0


def run_child(command: Sequence[str], timeout_s: float, stop: threading.Event | None) -> tuple[int, bytes, bytes]:
    """Runs a command to its end: exit code, standard output and error.

    Raises:
        subprocess.TimeoutExpired: it takes too long, or was to stop; it is killed then.
        OSError: it cannot be started.
    """
    deadline_s = time.monotonic() + timeout_s
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:  # fmt: skip
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    said, complained = child.communicate(timeout=_LOOK_S)
                    return child.returncode, said, complained
                if time.monotonic() > deadline_s or (stop and stop.is_set()):
                    raise subprocess.TimeoutExpired(command, timeout_s)
        except BaseException:
            child.kill()
            raise


@contextmanager
def _writable(place: Path, n_kept: int) -> Iterator[Path]:
    """The place in the cache, with room made for it; one for the moment where the cache cannot be written."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        others = sorted(place.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    for old in others[n_kept:]:
        shutil.rmtree(old, ignore_errors=True)
    yield place


def _ask(request: Request, place: Path) -> None:
    command = [sys.executable, "-m", f"engine.jobs.{request.module}", *map(str, request.arguments), str(place)]
    try:
        code, said, complained = run_child(command, request.timeout_s, request.stop)
    except subprocess.TimeoutExpired as error:
        if request.stop and request.stop.is_set():
            raise MachineError(request.where, f"{request.what} was not waited for", "ask again") from error
        problem = f"{request.what} was not there after {request.timeout_s:.0f} s"
        raise MachineError(request.where, problem, _BUSY) from error
    except OSError as error:
        problem = f"no process could be started for it ({error.strerror})"
        raise MachineError(request.where, problem, _BUSY) from error
    if code != 0:
        raise _failure(request, code, said, complained)


def _failure(request: Request, code: int, said: bytes, complained: bytes) -> SimtuiError:
    """What the child said last, or how it ended without a word."""
    with contextlib.suppress(ValueError, TypeError, IndexError):
        return Failure(**json.loads(said.splitlines()[-1])).as_error()
    lines = complained.decode("utf-8", "replace").strip().splitlines()
    last = lines[-1][:200] if lines else "without a word"
    problem = f"the process that computes {request.what} ended with code {code} ({last})"
    return MachineError(request.where, problem, 'see what is broken with "simtui doctor"')
