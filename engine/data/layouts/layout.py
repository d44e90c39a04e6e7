"""Owns what a layout is and what it hands over; knows no layout in particular and opens no image."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.data.manifest import SPLITS, Skipped
from engine.data.options import DataOptions, Task
from engine.errors import DataError, StudyError

SPLIT_OF_NAME = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validate": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Entry:
    """One image as a layout lists it.

    Attributes:
        path: relative to the root, in POSIX form.
        label: the name of its class; in a multi-label dataset 1, 0 or -1 (not known) for every class.
        split: None where the dataset gives none.
        group: the patient or lesion that must stay in one split; None where none is known.
    """

    id: str
    path: str
    label: str | tuple[int, ...]
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Listing:
    """What a layout found. The order of `classes` is that of the labels; the order of `entries` has no meaning.

    `group_name` is the column or the element that the groups come from; None where there are no groups. `read_from`
    says in words which column or folder holds what.
    """

    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()
    task: Task = "single"
    group_name: str | None = None
    read_from: str = ""


@dataclass(frozen=True)
class Layout:
    """A way in which datasets lie on disk.

    Args:
        name: as in `layout = "..."` of a study file.
        looks_for: what has to be there, in words, for the error when nothing is recognised.
        recognises: whether a folder (or a file) looks like this layout; must not read the whole dataset.
        read: lists the images; raises DataError where that cannot be done.
    """

    name: str
    looks_for: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, DataOptions], Listing]


def refuse_options(layout: str, options: DataOptions, *names: str) -> None:
    """Raises StudyError for the first of these settings that is given: the layout has no place for it."""
    for name in names:
        if getattr(options, name):  # "" asks for nothing to be taken from a column
            problem = f'the layout "{layout}" has no place for it'
            fix = 'leave it out, or give layout = "csv" and a table that has it'
            raise StudyError(f"data.{name} = {getattr(options, name)!r}", problem, fix)


def of_splits(where: Path, paths: Iterable[Path], name_of: Callable[[Path], str]) -> dict[str, Path]:
    """Split -> the file or folder that is called so, train first; others are left out.

    Raises:
        DataError: two are for one split.
    """
    found: dict[str, Path] = {}
    for path in paths:
        split = SPLIT_OF_NAME.get(name_of(path).lower())
        if split in found:
            names = f'"{found[split].name}" and "{path.name}"'
            raise DataError(str(where), f"ambiguous: {names} are both for {split}", "keep one of them")
        if split is not None:
            found[split] = path
    return {split: found[split] for split in SPLITS if split in found}


def order_classes(names: Iterable[str], task: Task) -> tuple[str, ...]:
    """The classes in the order of their labels: by name; grades by value.

    Raises:
        ValueError: a grade is no number, or two are the same one.
    """
    if task != "ordinal":
        return tuple(sorted(set(names)))
    name_of_grade: dict[float, str] = {}
    for name in sorted(set(names)):
        if not re.fullmatch(r"[0-9]+(\.[0-9]*)?", name):
            raise ValueError(f'"{name}" is no number')
        if name_of_grade.setdefault(float(name), name) != name:
            raise ValueError(f'"{name_of_grade[float(name)]}" and "{name}" are the same number')
    return tuple(name_of_grade[grade] for grade in sorted(name_of_grade))


def list_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files in `folder`, each by name; links count as what they lead to, hidden ones are left out.

    Raises:
        DataError: the folder cannot be listed.
    """
    folders: list[Path] = []
    files: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if not entry.name.startswith("."):
                    path = Path(entry.path)
                    # DirEntry.is_dir is free, but raises on a link that leads to itself.
                    is_folder = path.is_dir() if entry.is_symlink() else entry.is_dir()
                    (folders if is_folder else files).append(path)
    except OSError as error:
        raise DataError(str(folder), f"cannot be listed ({error.strerror})", "make the folder readable") from error
    return folders, files


def refuse_outside(root: Path, path: str | Path, *, follow_links: bool = False) -> None:
    """Refuses a link that leads out of the dataset, unless the user follows links.

    Raises:
        DataError: `path` lies outside `root`, once links are followed.
    """
    if follow_links:
        return
    real_root = os.path.realpath(root)
    if os.path.commonpath([real_root, os.path.realpath(path)]) != real_root:
        fix = "put a copy of what it points to in its place, or set data.follow_links = true"
        raise DataError(str(path), "link leads out of the dataset folder", fix)


def walk(root: Path, folder: Path, *, follow_links: bool) -> Iterator[Path]:
    """Every file under `folder`, hidden ones left out; each folder once, so that a loop of links ends.

    Raises:
        DataError: a folder cannot be listed, or is a link that leads out of `root`.
    """
    pending, seen = [folder], set()
    while pending:
        current = pending.pop()
        refuse_outside(root, current, follow_links=follow_links)
        real_path = os.path.realpath(current)
        if real_path not in seen:
            seen.add(real_path)
            folders, files = list_folder(current)
            pending += folders
            yield from files
