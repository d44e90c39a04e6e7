"""Reads `history.csv` of a run: its figures by epoch, for views that show how a run goes; needs no HDF5."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from engine.files import open_file
from engine.runs.results import HISTORY_FILE

_MAX_BYTES = 1 << 22  # some ten thousand epochs
History = Mapping[str, tuple[float | None, ...]]


def read_history(run_path: Path) -> History | None:
    """Every metric by epoch, epoch 0 first, None where an epoch lacks it; None while there is nothing to be read.

    Not sealed, so only shown: every analysis reads `results.h5`.
    """
    try:
        with open_file(run_path / HISTORY_FILE) as file:
            rows = list(csv.reader(io.StringIO(file.read(_MAX_BYTES).decode("utf-8"))))
        if not rows or rows[0][:1] != ["epoch"] or any(len(row) != len(rows[0]) for row in rows):
            return None
        columns = zip(*([float(cell) if cell else None for cell in row] for row in rows[1:]), strict=True)
        return dict(zip(rows[0][1:], list(columns)[1:], strict=False))
    except (OSError, ValueError, csv.Error):
        return None
