"""Owns what a layout is and what it hands over; knows no layout in particular and opens no image."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.data.manifest import Skipped
from engine.errors import DataError


@dataclass(frozen=True)
class Entry:
    """One image as a layout lists it: `path` relative to the root in POSIX form; `split` None where none is given."""

    id: str
    path: str
    label: str
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Listing:
    """What a layout found. The order of `classes` is that of the labels; the order of `entries` has no meaning."""

    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """A way in which datasets lie on disk.

    Args:
        name: as in `layout = "..."` of a study file.
        looks_for: what has to be there, in words, for the error when nothing is recognised.
        recognises: whether a folder looks like this layout; must not read the whole dataset.
        read: lists the images of a folder; the second argument is the column that names a patient or lesion, or None.
    """

    name: str
    looks_for: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, str | None], Listing]


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


def refuse_outside(root: Path, path: str | Path) -> None:
    """Refuses a link that leads out of the dataset: what it points to is not part of what the manifest vouches for.

    Raises:
        DataError: `path` lies outside `root`, once links are followed.
    """
    real_root = os.path.realpath(root)
    if os.path.commonpath([real_root, os.path.realpath(path)]) != real_root:
        fix = "put a copy of what it points to in its place"
        raise DataError(str(path), "link leads out of the dataset folder", fix)
