"""Owns how a table becomes a file; knows nothing of what is in it.

Names of classes and runs come from outside: a cell that a spreadsheet would run as a formula starts with an apostrophe.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from engine.analysis.table import Cell, Table
from engine.files import atomic_write

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def to_csv(table: Table) -> str:
    """The table as CSV: a header, one line a row, nine significant digits, empty where there is no value."""
    return "".join(f"{_line(row)}\n" for row in (table.columns, *table.rows))


def write_csv(table: Table, path: Path) -> None:
    """Writes the table as CSV: the old file stays, or the whole new one is there."""
    atomic_write(path, to_csv(table).encode("utf-8", "surrogateescape"))


def _line(row: Sequence[Cell]) -> str:
    text = io.StringIO()
    # Python 3.11 quotes a lone carriage return only where it is part of the line end.
    csv.writer(text, lineterminator="\r\n").writerow([_cell(cell) for cell in row])
    return text.getvalue().removesuffix("\r\n")


def _cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.9g}" if math.isfinite(cell) else ""
    text = str(cell)
    return f"'{text}" if isinstance(cell, str) and text.startswith(_FORMULA_STARTS) else text
