"""How a worker ends when it is asked to, or when the process that started it has gone; knows nothing of runs."""

from __future__ import annotations

import logging
import os
import signal
import stat
import threading
from types import FrameType

_log = logging.getLogger("simtui.worker")


class Stopped(BaseException):
    """A signal asked this process to end; not an `Exception`, so that nothing takes it for a failed run."""


def end_in_order(*, is_job: bool) -> None:
    """From now on a signal raises `Stopped`, once. A job of a cluster also ends with the process that started it."""
    signals = (signal.SIGTERM, signal.SIGUSR2) if is_job else (signal.SIGTERM,)

    def stop(number: int, frame: FrameType | None) -> None:
        if is_job:  # Slurm sends several: the second must not disturb what the first has set off
            for each in signals:
                signal.signal(each, signal.SIG_IGN)
        raise Stopped

    for each in signals:
        signal.signal(each, stop)
    if is_job and stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_end_with_parent, name="simtui-parent", daemon=True).start()


def _end_with_parent() -> None:
    """Standard input is a pipe from the process that started this one, and closes with it."""
    if not os.read(0, 1):
        _log.warning("the process that started this one is gone: ending")
        os.kill(os.getpid(), signal.SIGTERM)
