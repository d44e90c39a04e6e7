"""The layout `folder`: a folder a class, with or without train, val and test folders above; knows no other layout."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from engine.data.images import FORMAT_OF_SUFFIX
from engine.data.layouts.layout import Entry, Layout, Listing, list_folder, refuse_outside
from engine.errors import DataError

SPLIT_OF_NAME = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def _recognises(root: Path) -> bool:
    return any(_holds_images(root, folder) for folder in list_folder(root)[0])


def _read(root: Path, group: str | None) -> Listing:
    if group is not None:
        problem = f'a folder a class names no groups, so there is no "{group}"'
        raise DataError(str(root), problem, "leave data.group out, or give a dataset that has a table of groups")
    entries: list[Entry] = []
    ignored: Counter[str] = Counter()
    for split, top in _tops(root):
        n_before = len(entries)
        class_folders, files = list_folder(top)
        ignored.update(path.suffix.lower() for path in files if _is_image(path))
        for class_folder in class_folders:
            for path in _files(root, class_folder):
                if _is_image(path):
                    relative_path = path.relative_to(root).as_posix()
                    entries.append(Entry(id=relative_path, path=relative_path, label=class_folder.name, split=split))
                else:
                    ignored[path.suffix.lower()] += 1
        if split is not None and len(entries) == n_before:
            raise DataError(str(top), f"no images for {split}", "put a folder a class in it, or remove it")
    classes = tuple(sorted({entry.label for entry in entries}))
    return Listing(classes, tuple(entries), warnings=tuple(_ignored_warning(ignored)))


def _tops(root: Path) -> list[tuple[str | None, Path]]:
    """The folders that hold the class folders, each with its split: one for a split, or the root alone.

    Raises:
        DataError: the folder can be read in two ways.
    """
    tops: dict[str | None, Path] = {}
    others = []
    for folder in list_folder(root)[0]:
        split = SPLIT_OF_NAME.get(folder.name.lower())
        if split is None:
            others.append(folder)
        elif split in tops:
            names = f'"{tops[split].name}" and "{folder.name}"'
            raise DataError(str(root), f"ambiguous: {names} are both for {split}", "keep one of them")
        else:
            tops[split] = folder
    if not tops:
        return [(None, root)]
    for folder in others:
        if _holds_images(root, folder):
            names = " ".join(f'"{top.name}"' for top in tops.values())
            problem = f'ambiguous: split folders ({names}), and "{folder.name}" beside them holds images too'
            raise DataError(str(root), problem, "keep split folders alone, or class folders alone")
    return list(tops.items())


def _holds_images(root: Path, folder: Path) -> bool:
    return any(_is_image(path) for path in _files(root, folder))


def _files(root: Path, folder: Path) -> Iterator[Path]:
    """Every file under `folder`, hidden ones left out; each folder once, so that a loop of links ends."""
    pending, seen = [folder], set()
    while pending:
        current = pending.pop()
        refuse_outside(root, current)
        real_path = os.path.realpath(current)
        if real_path not in seen:
            seen.add(real_path)
            folders, files = list_folder(current)
            pending += folders
            yield from files


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in FORMAT_OF_SUFFIX


def _ignored_warning(ignored: Counter[str]) -> Iterator[str]:
    if ignored:
        kinds = ", ".join(f"{suffix or 'no suffix'} {n}" for suffix, n in sorted(ignored.items()))
        yield f"{ignored.total()} files are no images by their names, or lie in no class folder: ignored ({kinds})"


FOLDER = Layout(
    name="folder",
    looks_for=f"a folder a class with {' '.join(FORMAT_OF_SUFFIX)} files, under train, val and test folders or without",
    recognises=_recognises,
    read=_read,
)
