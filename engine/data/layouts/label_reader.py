"""Turns the label cells of a row into a class or into findings; knows no images, groups and splits.

One label column holds a class a row, or several findings divided by `|`. Several label columns are one-hot, or a
multi-label table with 1, 0, -1 (uncertain) and blank.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from engine.data.layouts.layout import order_classes
from engine.data.options import DataOptions, Task
from engine.data.table import Row, Table

EMPTY = frozenset({"", "nan", "na", "n/a", "null"})
DIVIDER = "|"
NO_FINDING = frozenset({"no finding", "none", "normal"})
MIN_ONE_HOT_SHARE = 0.8
_ONES, _ZEROS = frozenset({"1", "1.0", "true"}), frozenset({"0", "0.0", "false"})
_UNCERTAIN = frozenset({"-1", "-1.0"})
BINARY = _ONES | _ZEROS | _UNCERTAIN
_IGNORED = -1
_MAX_DIGITS = 100  # int() and float() refuse longer numbers, each in its own way
_VALUE_OF_POLICY = {"ignore": _IGNORED, "zeros": 0, "ones": 1}


@dataclass
class LabelReader:
    """How a row becomes a label, decided from all tables before the first row is read.

    Attributes:
        label: of a row; DataError, with the line, where its cells are none.
    """

    task: Task
    classes: tuple[str, ...]
    label: Callable[[Table, Row], str | tuple[int, ...]]
    counts: Counter[str] = field(default_factory=Counter)
    options: DataOptions = field(default_factory=DataOptions)

    def warnings(self) -> Iterator[str]:
        """How many labels were uncertain or blank, once all rows are read, and what they were taken as."""
        for what, policy in (("uncertain (-1)", self.options.uncertain), ("blank", self.options.blank)):
            name = what.partition(" ")[0]
            if self.counts[name]:
                taken = "ignored" if policy == "ignore" else f"taken as {policy}"
                yield f'{self.counts[name]} labels are {what}: {taken} (data.{name} = "{policy}")'


def label_reader(
    tables: Sequence[Table], columns: Sequence[str], options: DataOptions, task: Task | None
) -> LabelReader:
    """The reader of these label columns.

    Args:
        task: where it is known; it is seen from the cells otherwise.
    Raises:
        DataError: a grade is no number, or grades are in several columns.
    """
    rows = [row for table in tables for row in table.rows]
    if len(columns) == 1:
        cells = [row.cells[columns[0]] for row in rows]
        if task == "multilabel" or (task is None and any(DIVIDER in cell for cell in cells)):
            return _divided(tables, columns[0])
        return _grades(tables, columns[0]) if task == "ordinal" else _named(columns[0], cells)
    if task is None:
        task = "single" if is_one_hot(rows, columns) else "multilabel"
    if task == "multilabel":
        return _findings(tuple(columns), options)
    if task == "ordinal":
        problem = f"grades come in one column, not in {len(columns)}"
        raise tables[0].refusal(problem, "name the column of grades in data.label")
    return _one_hot(tuple(columns))


def is_one_hot(rows: Sequence[Row], columns: Sequence[str]) -> bool:
    """Whether nearly all rows have exactly one 1, and nothing but 0 and 1: the others are then mistakes."""
    n_ones = [
        sum(row.cells[name].lower() in _ONES for name in columns)
        for row in rows
        if all(row.cells[name].lower() in _ONES | _ZEROS for name in columns)
    ]
    return sum(n == 1 for n in n_ones) >= MIN_ONE_HOT_SHARE * max(1, len(rows))


def _named(column: str, cells: Sequence[str]) -> LabelReader:
    names = {cell for cell in cells if cell.lower() not in EMPTY}
    if names and all(re.fullmatch(r"[0-9]+(\.0+)?", name) for name in names):
        # A spreadsheet's "2.0" is the "2" of another row.
        plain = {name: re.sub(r"\.0+$", "", name) for name in names}
        classes = tuple(sorted(set(plain.values()), key=lambda name: (len(name.lstrip("0")), name.lstrip("0"), name)))
        return LabelReader("single", classes, lambda table, row: plain[_filled(table, row, column, classes)])
    classes = order_classes(names, "single")
    return LabelReader("single", classes, lambda table, row: _filled(table, row, column, classes))


def _grades(tables: Sequence[Table], column: str) -> LabelReader:
    """Grades by their value: "2" of one table and "2.0" of another are one."""

    def grade(table: Table, row: Row) -> str:
        cell = _filled(table, row, column, ())
        if not re.fullmatch(r"[0-9]+(\.0*)?", cell) or len(cell) > _MAX_DIGITS:
            raise table.error(row.line, f'grade "{cell}" is out of range; need a number from 0', "correct it")
        return str(int(float(cell)))

    names = {grade(table, row) for table in tables for row in table.rows}
    return LabelReader("ordinal", order_classes(names, "ordinal"), grade)


def _filled(table: Table, row: Row, column: str, classes: Sequence[str]) -> str:
    if row.cells[column].lower() in EMPTY:
        is_plain = all(" " not in name and "," not in name for name in classes)
        shown = " ".join(name if is_plain else f'"{name}"' for name in classes[:12])
        shown += " …" if len(classes) > 12 else ""
        fix = f"give the image one of {shown}, or remove the line" if shown else "give the image a grade"
        raise table.error(row.line, "label is empty", fix)
    return row.cells[column]


def _divided(tables: Sequence[Table], column: str) -> LabelReader:
    """One column of findings such as `Effusion|Mass`; `No Finding` is the absence of all."""
    names = {part.strip() for table in tables for cell in table.values(column) for part in cell.split(DIVIDER)}
    classes = tuple(sorted(name for name in names if name.lower() not in EMPTY | NO_FINDING))
    if not classes:
        raise tables[0].refusal(f'no findings in column "{column}"', "name the column of findings in data.label")

    def label(table: Table, row: Row) -> tuple[int, ...]:
        found = {part.strip() for part in row.cells[column].split(DIVIDER)}
        if all(part.lower() in EMPTY for part in found):
            raise table.error(row.line, "label is empty", 'write "No Finding" where there is none, or remove the line')
        return tuple(int(name in found) for name in classes)

    return LabelReader("multilabel", classes, label)


def _one_hot(names: tuple[str, ...]) -> LabelReader:
    def label(table: Table, row: Row) -> str:
        fix = f'give the image one of {" ".join(names)}, remove the line, or set data.task = "multilabel"'
        for name in names:
            cell = row.cells[name].lower()
            if cell in EMPTY:
                raise table.error(row.line, "label is empty", fix)
            if cell not in _ONES | _ZEROS:
                raise table.error(row.line, f'{name} is "{row.cells[name]}"; one-hot values are 0 and 1', fix)
        ones = [name for name in names if row.cells[name].lower() in _ONES]
        if len(ones) != 1:
            seen = f"{len(ones)} ones ({' '.join(ones)})" if ones else "no one"
            raise table.error(row.line, f"{seen}; a one-hot row has exactly one", fix)
        return ones[0]

    return LabelReader("single", names, label)


def _findings(names: tuple[str, ...], options: DataOptions) -> LabelReader:
    counts: Counter[str] = Counter()
    special: Mapping[str, int] = {
        "blank": _VALUE_OF_POLICY[options.blank],
        "uncertain": _VALUE_OF_POLICY[options.uncertain],
    }

    def value(table: Table, row: Row, name: str) -> int:
        cell = row.cells[name].lower()
        if cell in _ONES | _ZEROS:
            return int(cell in _ONES)
        kind = "blank" if cell in EMPTY else "uncertain" if cell in _UNCERTAIN else None
        if kind is None:
            fix = "correct it, or name the columns of labels in data.label"
            raise table.error(row.line, f'{name} is "{row.cells[name]}"; need 1, 0, -1 or blank', fix)
        counts[kind] += 1
        return special[kind]

    def label(table: Table, row: Row) -> tuple[int, ...]:
        return tuple(value(table, row, name) for name in names)

    return LabelReader("multilabel", names, label, counts, options)
