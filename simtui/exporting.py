"""Owns where an export goes: files that were not there before, in a folder that can be written."""

from __future__ import annotations

import os
import re
from itertools import count
from pathlib import Path

from platformdirs import user_state_path

from engine.analysis.names import TABLE_USES
from engine.analysis.options import TableOptions
from engine.analysis.table import Table
from engine.errors import MachineError
from engine.export import to_bytes, write_table
from engine.files import as_machine_error
from engine.runs.study_folder import StudyFolder
from engine.sources import write_sources
from simtui.reader import Snapshot

_UNNAMED = "simtui"
_MAX_COPIED_BYTES = 50_000  # tmux and xterm drop longer sequences without a word


def name_of(study: str, table: Table, options: TableOptions) -> str:
    """What tells an exported file from others: study, table, and what was chosen otherwise than by default."""
    chosen = []
    for name in TABLE_USES[table.name]:
        value = getattr(options, name)
        if value != getattr(TableOptions, name):
            is_name = isinstance(value, str)
            chosen.append(value if is_name else name if value is True else f"{name}{value:g}")
    return "-".join((study, table.name, *chosen))


def folders() -> tuple[Path, ...]:
    """Where files are written: where simtui was started, else the home folder."""
    return Path.cwd(), Path.home()


def save_table(table: Table, options: TableOptions, study: Snapshot) -> str:
    """Writes a table as CSV with its sources beside it, under a name that is free; returns what to say.

    Raises:
        MachineError: none of the folders can be written, or the disk is full.
    """
    (path,) = free_paths(folders(), name_of(study.name, table, options), (".csv",))
    write_table(table, path)
    write_sources(path, StudyFolder(study.path), table, options)
    return f"wrote {path}"


def copied_text(table: Table) -> str | None:
    """The table as spreadsheets paste it; None where it is more than terminals take through OSC 52."""
    content = to_bytes(table, "tsv")
    return content.decode("utf-8", "backslashreplace") if len(content) <= _MAX_COPIED_BYTES else None


def save_copied(table: Table, *, is_copied: bool) -> str:
    """Writes what was copied into a file too, as not every terminal has a clipboard; returns what to say.

    Raises:
        MachineError: the file cannot be written.
    """
    path = user_state_path("simtui") / "copied.tsv"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise as_machine_error(error, path) from error
    write_table(table, path, "tsv")
    n = len(table.rows)
    said = f"copied {n} rows as text; also in" if is_copied else f"{n} rows are more than terminals copy: they are in"
    return f"{said} {path}"


def free_paths(among: tuple[Path, ...], name: str, suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    """Names that are free in the first folder that can be written: one stem, with each of the suffixes.

    Args:
        name: what the file is about; what does not belong in a file name becomes a hyphen.

    Raises:
        MachineError: none of the folders can be written.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:120] or _UNNAMED
    for folder in among:
        if os.access(folder, os.W_OK | os.X_OK):
            numbered = (_named(folder, stem, n, suffixes) for n in count(1))
            return next(paths for paths in numbered if not any(path.exists() for path in paths))
    shown = " nor ".join(str(folder) for folder in among)
    raise MachineError(shown, "cannot be written", "start simtui in a folder of your own")


def _named(folder: Path, stem: str, n: int, suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    numbered = stem if n == 1 else f"{stem}-{n}"
    return tuple(folder / f"{numbered}{suffix}" for suffix in suffixes)
