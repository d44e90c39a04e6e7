"""Owns the places at which a test lets this process die; does nothing unless the environment asks for it.

`SIMTUI_FAULT="*/results.h5:synced#3"` sends SIGKILL when a point of that name (a shell pattern) is reached for the
third time.
"""

from __future__ import annotations

import fnmatch
import os
import signal

_WANTED, _, _NUMBER = os.environ.get("SIMTUI_FAULT", "").partition("#")
_n_reached = 0


def reach(point: str) -> None:
    """Says that the process is at `point`; the process ends here if this is the asked one."""
    global _n_reached
    if _WANTED and fnmatch.fnmatchcase(point, _WANTED):
        _n_reached += 1
        if _n_reached == int(_NUMBER or 1):
            os.kill(os.getpid(), signal.SIGKILL)
