"""Owns where an export goes: a file that was not there before, in a folder that can be written."""

from __future__ import annotations

import os
import re
from pathlib import Path

from engine.analysis.names import TABLE_USES
from engine.analysis.options import TableOptions
from engine.analysis.table import Table
from engine.errors import MachineError
from engine.export import write_table


def name_of(study: str, table: Table, options: TableOptions) -> str:
    """What tells an exported file from others: study, table, and what was chosen otherwise than by default."""
    chosen = []
    for name in TABLE_USES[table.name]:
        value = getattr(options, name)
        if value != getattr(TableOptions, name):
            chosen.append(value if isinstance(value, str) else f"{name}{value:g}")
    return "-".join((study, table.name, *chosen))


def export_csv(table: Table, name: str, folders: tuple[Path, ...]) -> Path:
    """Writes the table into the first folder that can be written, under a name that is free there.

    Args:
        name: what the file is about; what does not belong in a file name becomes a hyphen.
    Raises:
        MachineError: none of the folders can be written, or the disk is full.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:120] or table.name
    for folder in folders:
        if os.access(folder, os.W_OK | os.X_OK):
            path = _free(folder, stem)
            write_table(table, path)
            return path
    shown = " nor ".join(str(folder) for folder in folders)
    raise MachineError(shown, "cannot be written", "start simtui in a folder of your own")


def _free(folder: Path, stem: str) -> Path:
    path, n = folder / f"{stem}.csv", 1
    while path.exists():
        n += 1
        path = folder / f"{stem}-{n}.csv"
    return path
