"""The layout `isic2018`: ISIC 2018 task 3 as published, image folders and one-hot tables; knows no other layout."""

from __future__ import annotations

from pathlib import Path

from engine.data.layouts.layout import Entry, Layout, Listing, list_folder, refuse_options
from engine.data.manifest import Skipped
from engine.data.options import DataOptions
from engine.data.table import Row, Table, read_table
from engine.errors import DataError

PREFIX = "ISIC2018_Task3"
SPLIT_OF_PART = {"Training": "train", "Validation": "val", "Test": "test"}
IMAGE_COLUMN = "image"
GROUPS_TABLE = "Training_LesionGroupings"
LESION_COLUMN = "lesion_id"


def _recognises(root: Path) -> bool:
    return any(_image_folder(root, part).is_dir() for part in SPLIT_OF_PART)


def _read(root: Path, options: DataOptions) -> Listing:
    refuse_options(ISIC2018.name, options, "table", "image", "label", "split", "task")
    group = _group_column(root, options)
    tables = {
        part: read_table(_table_path(root, f"{part}_GroundTruth"))
        for part in SPLIT_OF_PART
        if _image_folder(root, part).is_dir()
    }
    if not tables:
        problem = f"no images under it (looked for {ISIC2018.looks_for})"
        raise DataError(str(root), problem, "unpack the downloaded archives side by side in this folder")
    classes = _classes(list(tables.values()))
    _refuse_twice(list(tables.values()))
    group_of_image = _groups(root, group) if group is not None else {}
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    warnings: list[str] = []
    for part, table in tables.items():
        if not table.rows:
            raise DataError(str(table.path), "no images in it", "add its lines, or remove the image folder beside it")
        folder = _image_folder(root, part)
        unlisted = {path.name for path in list_folder(folder)[1] if path.suffix == ".jpg"}
        for row in table.rows:
            name, label = _image_name(table, row), _label(table, row, classes)
            path = f"{folder.name}/{name}.jpg"
            if f"{name}.jpg" in unlisted:
                unlisted.remove(f"{name}.jpg")
                entries.append(Entry(name, path, label, SPLIT_OF_PART[part], group_of_image.get(name)))
            else:
                skipped.append(Skipped(path, f"{table.path.name} line {row.line}: no such image"))
        if unlisted:
            warnings.append(f"images in {folder.name} without a line in {table.path.name}: {len(unlisted)}, ignored")
    if group is not None:
        _refuse_without_group(root, entries, group)
    return Listing(classes, tuple(entries), tuple(skipped), tuple(warnings), group_name=group)


def _image_folder(root: Path, part: str) -> Path:
    return root / f"{PREFIX}_{part}_Input"


def _table_path(root: Path, name: str) -> Path:
    """A table beside the image folders, or in a folder of its own name, as the archives unpack."""
    file_name = f"{PREFIX}_{name}.csv"
    nested_path = root / f"{PREFIX}_{name}" / file_name
    return nested_path if nested_path.exists() else root / file_name


def _classes(tables: list[Table]) -> tuple[str, ...]:
    """The columns beside the image's, in the order of the first table; all tables have the same ones."""
    for table in tables:
        table.require(IMAGE_COLUMN)
        if set(table.columns) != set(tables[0].columns):
            seen = f"columns {', '.join(table.columns)}; {tables[0].path.name} has {', '.join(tables[0].columns)}"
            raise DataError(str(table.path), seen, "give all ground-truth tables the same columns")
    return tuple(column for column in tables[0].columns if column != IMAGE_COLUMN)


def _refuse_twice(tables: list[Table]) -> None:
    first_place: dict[str, tuple[Table, int]] = {}
    for table in tables:
        for row in table.rows:
            name = row.cells[IMAGE_COLUMN]
            if name in first_place:
                first_table, line = first_place[name]
                if first_table is table:
                    places = f"on lines {line} and {row.line}"
                else:
                    places = f"on line {line} of {first_table.path.name} and line {row.line} of {table.path.name}"
                raise DataError(str(table.path), f'id "{name}" {places}', "remove one of the two lines")
            first_place[name] = table, row.line


def _image_name(table: Table, row: Row) -> str:
    name = row.cells[IMAGE_COLUMN]
    if not name:
        raise table.error(row.line, "image is empty", "name the image, or remove the line")
    if "/" in name:
        raise table.error(row.line, f'path leaves the dataset folder ("{name}")', "give the name of the image alone")
    return name


def _label(table: Table, row: Row, classes: tuple[str, ...]) -> str:
    """The one class of a one-hot row."""
    fix = f'give "{row.cells[IMAGE_COLUMN]}" one of {" ".join(classes)}, or remove the line'
    ones = []
    for name in classes:
        cell = row.cells[name].lower()
        if cell in ("", "nan"):
            raise table.error(row.line, "label is empty", fix)
        if cell not in ("0", "1", "0.0", "1.0"):
            raise table.error(row.line, f'{name} is "{cell}"; one-hot values are 0 and 1', fix)
        if cell in ("1", "1.0"):
            ones.append(name)
    if len(ones) != 1:
        seen = f"{len(ones)} ones ({' '.join(ones)})" if ones else "no one"
        raise table.error(row.line, f"{seen}; a one-hot row has exactly one", fix)
    return ones[0]


def _group_column(root: Path, options: DataOptions) -> str | None:
    """The user's; without a word of theirs the lesion, where the published table of lesions is there."""
    if options.group is None:
        return LESION_COLUMN if _table_path(root, GROUPS_TABLE).exists() else None
    return options.group or None


def _groups(root: Path, group: str) -> dict[str, str]:
    """Image name -> group, from the published table of lesions."""
    path = _table_path(root, GROUPS_TABLE)
    if not path.exists():
        fix = f"put {path.name} into the folder, or leave data.group out"
        raise DataError(str(root), f'no {path.name} to take "{group}" from', fix)
    table = read_table(path)
    table.require(IMAGE_COLUMN)
    table.require(group)
    return {row.cells[IMAGE_COLUMN]: row.cells[group] for row in table.rows}


def _refuse_without_group(root: Path, entries: list[Entry], group: str) -> None:
    """The published table covers the training images only: those need a group, official splits are taken as given."""
    without = [entry.id for entry in entries if entry.split == "train" and not entry.group]
    if without:
        problem = f'no {group} for {len(without)} of the training images (first: "{without[0]}")'
        raise DataError(str(_table_path(root, GROUPS_TABLE)), problem, "add a line for each, or leave data.group out")


ISIC2018 = Layout(
    name="isic2018",
    looks_for=f"{PREFIX}_Training_Input with <image>.jpg files and {PREFIX}_Training_GroundTruth.csv",
    recognises=_recognises,
    read=_read,
)
