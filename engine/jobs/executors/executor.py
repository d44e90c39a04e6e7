"""What the scheduler asks of an executor, and what the executors have in common: the wait for room on a full disk."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.runs.study_folder import StudyFolder

EXIT_PAUSED = 75  # of a worker: no space is left on the disk
EXIT_LOST = 76  # of a worker: another process of its run has ended
MAX_DEATHS_OF_A_RUN = 2
MAX_DEATHS_WITHOUT_RUN = 2
_PAUSE_POLL_S = 5.0
_MIN_ROOM_BYTES = 64 << 20


class Executor(Protocol):
    """Places the runs of one study. The caller holds the study's lock, and asks until nothing is left to do.

    `poll_s` is how long it need not be asked again.
    """

    poll_s: float

    def begin(self, queue: Queue) -> None:
        """Starts with the preparation of the study.

        Raises:
            MachineError: what it places runs with is missing, or refuses.
        """

    def step(self) -> bool:
        """Looks at what goes on and does what there is to do now; False when nothing is left."""

    def end(self) -> None:
        """Ends at once what still goes on; what it has finished is kept."""


@dataclass(frozen=True)
class Queue:
    """The runs of a study that are to be done, in its order, with the epochs that each has done (-1: not even 0).

    `held` are those on which a process works already: one that a scheduler which has died had started.
    """

    waiting: Mapping[str, int]
    held: Sequence[str] = ()


class Room:
    """What a study that found its disk full waits for."""

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self._need_bytes = 0
        self._looks_again_s = 0.0

    def lacks(self, need_bytes: int) -> None:
        """A process needs so much; 0 where it does not know."""
        self._need_bytes = max(need_bytes, _MIN_ROOM_BYTES)
        self._looks_again_s = time.monotonic() + _PAUSE_POLL_S

    def is_there(self) -> bool:
        """Whether that much is free; looks every few seconds, and says no in between."""
        if time.monotonic() < self._looks_again_s:
            return False
        self._looks_again_s = time.monotonic() + _PAUSE_POLL_S
        return shutil.disk_usage(self._folder.path).free >= self._need_bytes


def cause_of(returncode: int, said: str = "") -> str:
    """How a process ended, in words; `said`: why its run is seen as interrupted."""
    if returncode < 0:
        return f"was killed by {signal.Signals(-returncode).name}"
    if returncode == EXIT_LOST:
        return "lost another process of its run" + (f" ({said})" if said else "")
    return f"ended with code {returncode}"
