"""Finds the image that a cell of a table means: by path, file name, or name without suffix; opens no image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from engine.data.images import FORMAT_OF_SUFFIX
from engine.data.layouts.layout import SPLIT_OF_NAME, walk
from engine.errors import DataError


class FileIndex:
    """The image files below a folder."""

    def __init__(self, root: Path, *, follow_links: bool, is_image: Callable[[Path], bool] | None = None) -> None:
        """Lists them; `is_image` is by default whether the suffix is one of an image."""
        is_image = is_image or has_image_suffix
        self.paths: dict[str, None] = {}
        self._of_name: defaultdict[str, list[str]] = defaultdict(list)
        self._of_stem: defaultdict[str, list[str]] = defaultdict(list)
        self._of_path_stem: defaultdict[str, list[str]] = defaultdict(list)
        self._tops: set[str] = set()
        for path in walk(root, root, follow_links=follow_links):
            if is_image(path):
                self._add(path.relative_to(root).as_posix())

    def _add(self, path: str) -> None:
        self.paths[path] = None
        parts = PurePosixPath(path).parts
        self._tops.add(parts[0])
        self._of_name[parts[-1]].append(path)
        self._of_stem[stem_of(parts[-1])].append(path)
        self._of_path_stem[stem_of(path)].append(path)

    def find(self, cell: str, split: str | None = None) -> list[str]:
        """The images that a cell can mean: none, one, or several of one name.

        Args:
            cell: a path below the root, or below a folder above it, as CheXpert's begin with the name of the dataset;
                or a name without folders, with or without suffix, of an image anywhere.
            split: of the table. A name never means an image in a folder of another split; where several images have
                it, one in a folder of this split is meant.
        """
        parts = PurePosixPath(cell).parts
        if len(parts) > 1:
            # Never by the name alone: "p3/view1.png" that is missing must not become "p9/view1.png".
            path = self.below_root(cell)[1]
            return [path] if path in self.paths else self._of_path_stem.get(path, [])
        name = parts[0] if parts else ""
        found = self._of_name.get(name) or self._of_stem.get(name) or []
        if split is None:
            return found
        split_of = {path: _split_of_folders(str(PurePosixPath(path).parent)) for path in found}
        return [path for path in found if split_of[path] == split] or [p for p in found if split_of[p] is None]

    def below_root(self, cell: str) -> tuple[str, str]:
        """The folders at the beginning of a path that are above the root, and the rest of it."""
        parts = PurePosixPath(cell).parts
        n_above = next((n for n, part in enumerate(parts[:-1]) if part in self._tops), max(0, len(parts) - 1))
        return "/".join(parts[:n_above]), "/".join(parts[n_above:])

    def n_class_folders(self) -> int:
        """How many classes there would be if folders were classes: the highest ones that are called like no split."""
        folders = {PurePosixPath(path).parts[:-1] for path in self.paths}
        tops = {next((name for name in names if _split_of_folders(name) is None), None) for names in folders}
        return len(tops - {None})


def has_image_suffix(path: Path) -> bool:
    """Whether a file is an image by its name."""
    return path.suffix.lower() in FORMAT_OF_SUFFIX


def stem_of(name: str) -> str:
    """A name or path without the suffix of an image: `1.2.840.113` keeps its last part, which is none."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in FORMAT_OF_SUFFIX else name


def leaves_folder(cell: str) -> bool:
    """Whether a path of a table is absolute, or climbs out of the folder."""
    depth = 0
    for part in PurePosixPath(cell).parts:
        if part == "/":
            return True
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


def refuse_unlisted(root: Path, index: FileIndex, looks_for: str) -> None:
    """Raises DataError where there are no images at all."""
    if not index.paths:
        fix = "give the folder that holds the images and their table"
        raise DataError(str(root), f"no images under it (looked for {looks_for})", fix)


def _split_of_folders(folders: str) -> str | None:
    """The split by which folders are called: `train` for `images/train_images`."""
    words = re.findall("[a-z]+", folders.lower())
    splits = {SPLIT_OF_NAME[word] for word in words if word in SPLIT_OF_NAME}
    return splits.pop() if len(splits) == 1 else None
