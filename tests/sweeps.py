"""How long a sweep is: a sample by default, all of it where `SIMTUI_SWEEP=full` (`make faults`)."""

from __future__ import annotations

import os

IS_FULL = os.environ.get("SIMTUI_SWEEP") == "full"


def n_of(sample: int, full: int) -> int:
    """How many cases this sweep has."""
    return full if IS_FULL else sample
