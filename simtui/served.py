"""The app's side of `simtui serve`: whether a browser shows it, and that it does not outlive the server."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def is_served() -> bool:
    """Whether textual-serve has started this process; a browser is its terminal then, behind two pipes."""
    return os.environ.get("TEXTUAL_DRIVER") == "textual.drivers.web_driver:WebDriver"


def end_with_server() -> None:
    """Asks the kernel to end this process with the one that started it: a server that is killed ends nothing itself."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
