"""Owns the reading of CSV tables that come with datasets, line by line; knows nothing of what the columns mean."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from engine.data.images import open_regular
from engine.errors import DataError, ImageError

SUFFIXES = (".csv", ".tsv", ".tab")
_DELIMITERS = ",;\t"
_HEADER_LIMIT = 100_000  # a longer field is an error of the csv module, which is told when the rows are read


@dataclass(frozen=True)
class Row:
    """One row and the line of the file on which it ends, counted from 1."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A CSV file: column names in order and rows; every row has every column, cells are stripped."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def require(self, column: str) -> None:
        """Raises DataError where there is no such column."""
        if column not in self.columns:
            near = did_you_mean(column, self.columns)
            problem = f'no column "{column}"; found {", ".join(self.columns)}{near}'
            raise DataError(str(self.path), problem, "name one of the columns that are there, in this table")

    def values(self, column: str) -> list[str]:
        """The cells of a column, row by row."""
        return [row.cells[column] for row in self.rows]

    def refusal(self, problem: str, fix: str) -> DataError:
        """An error of the table as a whole."""
        return DataError(str(self.path), problem, fix)

    def error(self, line: int, problem: str, fix: str) -> DataError:
        """An error at a line of this table."""
        return DataError(f"{self.path} line {line}", problem, fix)


def read_table(path: Path) -> Table:
    """Reads a table with a header, UTF-8, with or without byte order mark; blank lines are left out.

    Fields are divided by what gives the header most of them: commas, semicolons or tabs.

    Raises:
        DataError: not readable, not UTF-8, no header, a column twice, or a row with other than the header's fields.
    """
    text = _text(path)
    named = re.match(r"sep=(.)\r?\n", text)  # Excel's own first line
    delimiter = named[1] if named else _delimiter(path, text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    columns: tuple[str, ...] = ()
    try:
        for fields in reader:
            where = f"{path} line {reader.line_num}"
            cells = [field.strip() for field in fields]
            if not any(cells) or (named and reader.line_num == 1):
                continue
            if not columns:
                while not cells[-1]:  # a spreadsheet's empty columns at the end
                    cells.pop()
                columns = tuple(cells)
                if len(set(columns)) < len(columns):
                    raise DataError(where, "the same column twice", "give every column a name of its own")
            elif len(cells) < len(columns) or any(cells[len(columns) :]):
                raise DataError(where, f"{len(cells)} fields, expected {len(columns)}", "mend or remove the line")
            else:
                rows.append(Row(reader.line_num, dict(zip(columns, cells, strict=False))))
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}", f"not CSV ({error})", "mend or remove the line") from error
    if not columns:
        raise DataError(str(path), "no header line", "put the column names into the first line")
    return Table(path, columns, tuple(rows))


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, UTF-8.

    Raises:
        DataError: not readable, or not UTF-8.
    """
    return _text(path).splitlines()


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`; did you mean "label"?` where one of the known names is near, else nothing."""
    near = get_close_matches(name, known, n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def _delimiter(path: Path, text: str) -> str:
    """Found by reading the header with each: a quoted name may hold the others."""
    header = next((line for line in text.splitlines() if line.strip()), "")[:_HEADER_LIMIT]
    # Where two give as many, the suffix counts.
    known = _DELIMITERS if path.suffix.lower() == ".csv" else _DELIMITERS[::-1]
    return max(known, key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter), [])))


def _text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            content = file.read()
    except ImageError as error:
        raise DataError(error.where, error.problem, "give a CSV file that can be read") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path} line {line}", "not UTF-8", "save the table as UTF-8") from error
