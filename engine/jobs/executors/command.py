"""One command on one node: starts a worker for the preparation or for one run, and says how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.errors import NoSpaceError, SimtuiError
from engine.jobs.stage import Failure

PREPARATION = ""  # in the place of a run's id
_LOOK_S = 0.2
_PATIENCE_S = 60.0  # how long a step of training may take to notice a signal
_TAIL_BYTES = 4000


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        failure: what it said it failed of; `need_bytes` the room that it lacked on the disk.
        tail: the last of what it wrote to standard error, for the log of the study where it did not end well.
    """

    exit_code: int
    host: str = ""
    failure: Failure | None = None
    need_bytes: int = 0
    tail: str = ""

    def as_json(self) -> str:
        """What `outcome_of` reads."""
        return json.dumps(asdict(self))


def outcome_of(text: str) -> Outcome:
    """Reads what `as_json` wrote.

    Raises:
        ValueError, TypeError: it is something else.
    """
    raw = json.loads(text)
    failure = raw.pop("failure")
    return Outcome(**raw, failure=Failure(**failure) if failure else None)


def failure_line(error: SimtuiError) -> str:
    """The last line that a command prints of an error which ends it."""
    need_bytes = error.need_bytes if isinstance(error, NoSpaceError) else 0
    return json.dumps({**asdict(Failure.of(error)), "need_bytes": need_bytes})


class Command:
    """A worker process in a session of its own; it ends when this process does."""

    def __init__(self, study_path: Path, run_id: str, environment: Mapping[str, str] | None = None) -> None:
        wanted = ["--run", run_id] if run_id != PREPARATION else ["--only-prepare"]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - files, not pipes: nobody has to empty them
        self._complained = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engine.jobs.worker", str(study_path), *wanted],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._complained,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )

    def has_ended(self) -> bool:
        """Whether it has; asked of the system alone, so that a signal handler may ask in the middle of `wait`."""
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return True

    def wait(self, look: Callable[[], None] = lambda: None) -> Outcome:
        """Waits for its end; `look` is called again and again until then."""
        while not self.has_ended():
            look()
            time.sleep(_LOOK_S)
        said = _tail(self._said).strip().splitlines()
        failure, need_bytes = _failure(said[-1] if said else "")
        exit_code = self._process.wait()
        return Outcome(exit_code, socket.gethostname(), failure, need_bytes, _tail(self._complained))

    def stop(self, patience_s: float = _PATIENCE_S) -> None:
        """Has it leave its run as of the last epoch, and waits; kills it where that takes too long."""
        self._signal(signal.SIGTERM)
        end_s = time.monotonic() + patience_s
        while not self.has_ended():
            if time.monotonic() > end_s:
                self._signal(signal.SIGKILL)
            time.sleep(0.05)

    def _signal(self, number: signal.Signals) -> None:
        if not self.has_ended():
            os.kill(self._process.pid, number)


def _failure(line: str) -> tuple[Failure | None, int]:
    try:
        raw: dict[str, Any] = json.loads(line)
        need_bytes = int(raw.pop("need_bytes"))
        return Failure(**raw), need_bytes
    except (ValueError, TypeError, KeyError, AttributeError):
        return None, 0


def _tail(file: Any) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL_BYTES))
    text: str = file.read().decode("utf-8", "replace")
    return text
