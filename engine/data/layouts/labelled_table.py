"""Turns tables of known columns into a listing: classes, images, groups, splits; guesses nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from engine.data.layouts.file_index import FileIndex, leaves_folder
from engine.data.layouts.label_reader import EMPTY, label_reader
from engine.data.layouts.layout import SPLIT_OF_NAME, Entry, Listing
from engine.data.manifest import Skipped
from engine.data.options import DataOptions, Task
from engine.data.table import Row, Table
from engine.errors import DataError


@dataclass(frozen=True)
class Columns:
    """Which column of a table holds what.

    Attributes:
        image: path or id of the image.
        label: one column of classes, or several of a one-hot or multi-label table.
        group: what must stay in one split.
        split: the split of the image, where the table itself says so.
        notes: what the user should know of the choice.
    """

    image: str
    label: tuple[str, ...]
    group: str | None = None
    split: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A table, and the split of all of its rows where it is the table of one split."""

    table: Table
    split: str | None = None


@dataclass
class _Found:
    entries: list[Entry] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    line_of: dict[str, tuple[Table, int]] = field(default_factory=dict)
    above: set[str] = field(default_factory=set)
    twice: list[tuple[str, Table, int, Table, int]] = field(default_factory=list)


def read_tables(
    root: Path,
    sources: Sequence[Source],
    columns: Columns,
    index: FileIndex,
    options: DataOptions,
    *,
    task: Task | None = None,
    group_of: Callable[[str, Row], str] | None = None,
    group_name: str | None = None,
) -> Listing:
    """All images of the tables.

    Args:
        task: what the layout knows; the user's `task` comes before it, and otherwise it is seen from the labels.
        group_of: the group of an image by its path and its row, where that is not just a column.
        group_name: where `group_of` takes it from.
    Raises:
        DataError: names the table, the line and what mends it.
    """
    for source in sources:
        for column in (columns.image, *columns.label, columns.group, columns.split):
            if column is not None:
                source.table.require(column)
    task = options.task or task
    reader = label_reader([source.table for source in sources], columns.label, options, task)
    found = _Found()
    for source in sources:
        for row in source.table.rows:
            label = reader.label(source.table, row)
            path = _image_path(source, row, columns.image, index, found)
            if path is not None:
                group = group_of(path, row) if group_of else row.cells[columns.group] if columns.group else ""
                split = source.split or (_split(source.table, row, columns.split) if columns.split else None)
                found.entries.append(Entry(path, path, label, split, _group(group)))
    _refuse_twice(found.twice)
    if not found.entries and not found.skipped:
        raise DataError(str(sources[0].table.path), "no images in it", "add a line for each image")
    unlisted = len(index.paths) - len({entry.path for entry in found.entries})
    warnings = [*columns.notes, *reader.warnings()]
    if unlisted > 0:
        warnings.append(f"{unlisted} images are in no line of {_names(sources)}: ignored")
    used_group = group_name or columns.group if any(entry.group for entry in found.entries) else None
    parts = {"images": (columns.image,), "labels": columns.label, "groups": (used_group,), "splits": (columns.split,)}
    read_from = [f"{what} {_listed(names)}" for what, names in parts.items() if names[0]]
    return Listing(
        reader.classes, tuple(found.entries), tuple(found.skipped), tuple(warnings), reader.task, used_group,
        f"{_names(sources)}: {', '.join(read_from)}",
    )  # fmt: skip


def _group(cell: str) -> str | None:
    """A group's name; numbers that a spreadsheet wrote as 12 and as 12.0 are one."""
    return None if cell.lower() in EMPTY else re.sub(r"^([0-9]+)\.0+$", r"\1", cell)


def _listed(names: Sequence[str | None]) -> str:
    shown = " ".join(f'"{name}"' for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more columns"


def _names(sources: Sequence[Source]) -> str:
    return " ".join(source.table.path.name for source in sources)


def _image_path(source: Source, row: Row, column: str, index: FileIndex, found: _Found) -> str | None:
    """The image of a row; None, and listed as skipped, where there is none."""
    table, cell = source.table, row.cells[column]
    if cell.lower() in EMPTY:
        raise table.error(row.line, f"{column} is empty", "name the image, or remove the line")
    if leaves_folder(cell):
        fix = "give a path below the dataset folder, or the name of the image alone"
        raise table.error(row.line, f'path leaves the dataset folder ("{cell}")', fix)
    paths = index.find(cell, source.split)
    if len(paths) > 1:
        problem = f'"{cell}" can be {len(paths)} images ({", ".join(sorted(paths)[:3])})'
        fix = "give the path of the image in place of its name, or remove the others"
        raise table.error(row.line, problem, fix)
    if paths and len(PurePosixPath(cell).parts) > 1:
        found.above.add(index.below_root(cell)[0])
        if len(found.above) > 1:
            # "site B/p1.png" must not become "p1.png" of site A because the user gave the folder of site A.
            names = " and ".join(f'"{name}"' for name in sorted(found.above))
            problem = f"paths begin in different folders above the dataset's ({names})"
            raise table.error(row.line, problem, "give the folder in which all paths begin")
    key = paths[0] if paths else cell
    if key in found.line_of:
        found.twice.append((cell, *found.line_of[key], table, row.line))
        return None
    found.line_of[key] = table, row.line
    if not paths:
        found.skipped.append(Skipped(cell, f"{table.path.name} line {row.line}: no such image"))
        return None
    return paths[0]


def _refuse_twice(twice: Sequence[tuple[str, Table, int, Table, int]]) -> None:
    if twice:
        cell, first_table, first_line, table, line = twice[0]
        places = f"on lines {first_line} and {line}"
        if first_table is not table:
            places = f"on line {first_line} of {first_table.path.name} and line {line} of {table.path.name}"
        more = f"; {len(twice)} lines name an image again" if len(twice) > 1 else ""
        raise DataError(str(table.path), f'id "{cell}" {places}{more}', "keep one line an image")


def _split(table: Table, row: Row, column: str) -> str:
    cell = row.cells[column]
    split = SPLIT_OF_NAME.get(cell.lower())
    if split is None:
        problem = f'{column} is "{cell}"; need train, val or test'
        raise table.error(row.line, problem, 'correct it, or set data.split = "" to have splits drawn')
    return split
