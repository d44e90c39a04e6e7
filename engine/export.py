"""Owns how a table becomes a file; knows nothing of what is in it.

Names of classes and runs come from outside: each format escapes what it would otherwise obey.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from engine.analysis.table import Cell, Table
from engine.errors import MachineError, StudyError
from engine.files import atomic_write

DIGITS = 4
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def to_csv(table: Table, delimiter: str = ",") -> str:
    """The table as CSV: a header, one line a row, nine significant digits, empty where there is no value.

    A cell that a spreadsheet would run as a formula starts with an apostrophe.

    Args:
        delimiter: between cells; a tab makes what spreadsheets paste as cells.
    """
    return "".join(f"{_line(row, delimiter)}\n" for row in (table.columns, *table.rows))


def to_markdown(table: Table, digits: int = DIGITS) -> str:
    """The table as Markdown, `digits` significant digits, with its notes as a list below."""
    notes = "".join(f"- {_markdown(note)}\n" for note in table.notes)
    return f"{_tabulated(table, 'github', digits, _markdown)}\n" + (f"\n{notes}" if notes else "")


def to_latex(table: Table, digits: int = DIGITS) -> str:
    """The table as a LaTeX `tabular` with the rules of booktabs, `digits` significant digits, its notes as comments."""
    notes = "".join(f"% {_plain(note)}\n" for note in table.notes)
    return f"{notes}{_tabulated(table, 'latex_booktabs', digits, _latex)}\n"


def to_parquet(table: Table) -> bytes:
    """The table as Parquet: integers, doubles and strings by column, null where there is no value, notes as metadata.

    Raises:
        MachineError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MachineError("parquet", "needs pyarrow", 'pip install "simtui[parquet]", or take csv') from error
    columns = {name: pyarrow.array(*_column(table.column(name))) for name in table.columns}
    notes = {"simtui.table": table.name, "simtui.notes": _utf8("\n".join(table.notes))}
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns).replace_schema_metadata(notes), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


FORMATS: Mapping[str, Callable[[Table, int], bytes]] = {
    "csv": lambda table, digits: to_csv(table).encode("utf-8", "surrogateescape"),
    "tsv": lambda table, digits: to_csv(table, "\t").encode("utf-8", "surrogateescape"),
    "markdown": lambda table, digits: to_markdown(table, digits).encode("utf-8", "surrogateescape"),
    "latex": lambda table, digits: to_latex(table, digits).encode("utf-8", "surrogateescape"),
    "parquet": lambda table, digits: to_parquet(table),
}
SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".md": "markdown", ".tex": "latex", ".parquet": "parquet"}


def to_bytes(table: Table, file_format: str, digits: int = DIGITS) -> bytes:
    """The table in one of `FORMATS`.

    Args:
        digits: significant digits in what is for people to read (markdown, latex); csv has nine, parquet all.
    Raises:
        StudyError: no such format.
        MachineError: the format needs a library that is not installed.
    """
    if file_format not in FORMATS:
        raise StudyError(f"format {file_format!r}", "no such format", f"choose one of {', '.join(FORMATS)}")
    return FORMATS[file_format](table, digits)


def format_of(path: Path) -> str:
    """The format that a file's name asks for; csv where it asks for none."""
    return SUFFIXES.get(path.suffix.lower(), "csv")


def write_table(table: Table, path: Path, file_format: str = "csv", digits: int = DIGITS) -> None:
    """Writes the table: the old file stays, or the whole new one is there.

    Raises:
        StudyError, MachineError: as `to_bytes`, or the file cannot be written.
    """
    atomic_write(path, to_bytes(table, file_format, digits))


def _line(row: Sequence[Cell], delimiter: str) -> str:
    text = io.StringIO()
    # Python 3.11 quotes a lone carriage return only where it is part of the line end.
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerow([_cell(cell) for cell in row])
    return text.getvalue().removesuffix("\r\n")


def _cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.9g}" if math.isfinite(cell) else ""
    text = str(cell)
    return f"'{text}" if isinstance(cell, str) and text.startswith(_FORMULA_STARTS) else text


def _tabulated(table: Table, file_format: str, digits: int, escape: Callable[[str], str]) -> str:
    import tabulate  # here: most commands write no such table

    # Escaped already: tabulate leaves line breaks, and in Markdown everything, as it is.
    style = "latex_raw" if file_format.startswith("latex") else file_format
    rows = [[_rounded(cell, digits, escape) for cell in row] for row in table.rows]
    is_text = [any(isinstance(cell, str) for cell in table.column(name)) for name in table.columns]
    text: str = tabulate.tabulate(
        rows,
        [escape(name) for name in table.columns],
        style,
        disable_numparse=True,
        colalign=["left" if each else "right" for each in is_text] if rows else None,
    )
    if style == "latex_raw":
        rules = iter((r"\toprule", r"\midrule", r"\bottomrule"))
        text = re.sub(r"^\\hline$", lambda _: next(rules), text, flags=re.MULTILINE)
    return text


def _rounded(cell: Cell, digits: int, escape: Callable[[str], str]) -> str:
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return ""
    return f"{cell:.{digits}g}" if isinstance(cell, float) else escape(str(cell))


def _plain(text: str) -> str:
    """On one line, without what is not shown but changes how the rest is: controls, marks of direction."""
    return "".join(char if char.isprintable() or "\udc80" <= char <= "\udcff" else " " for char in text)


def _markdown(text: str) -> str:
    return re.sub(r"([\\|`*_\[\]<>#])", r"\\\1", _plain(text))


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in _plain(text))


def _column(cells: Sequence[Cell]) -> tuple[list[Cell], object]:
    """Values of one type, and the type."""
    import pyarrow

    there = [cell for cell in cells if cell is not None]
    if any(isinstance(cell, str) for cell in there):
        return [None if cell is None else _utf8(str(cell)) for cell in cells], pyarrow.string()
    if any(isinstance(cell, float) for cell in there) or not there:
        finite = [None if cell is None or not math.isfinite(float(cell)) else float(cell) for cell in cells]
        return list(finite), pyarrow.float64()
    return list(cells), pyarrow.int64()


def _utf8(text: str) -> str:
    """Names of files need not be UTF-8, which Parquet must be: what is not is written as its escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
