"""Finds the image that a cell of a table means: by path, file name, or name without suffix; opens no image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath

from engine.data.images import FORMAT_OF_SUFFIX
from engine.data.layouts.layout import SPLIT_OF_NAME, walk
from engine.errors import DataError


class FileIndex:
    """The image files below a folder."""

    def __init__(self, root: Path, *, follow_links: bool, is_image: Callable[[Path], bool] | None = None) -> None:
        """Lists them; `is_image` is by default whether the suffix is one of an image."""
        is_image = is_image or has_image_suffix
        found = (path for path in walk(root, root, follow_links=follow_links) if is_image(path))
        self.paths: dict[str, None] = dict.fromkeys(path.relative_to(root).as_posix() for path in found)

    def find(self, cell: str, split: str | None = None) -> list[str]:
        """The images that a cell can mean: none, one, or several of one name.

        Capital letters count, but for those of a suffix; `\\` is taken for `/` where no name has it.

        Args:
            cell: a path below the root, or below a folder above it, as CheXpert's begin with the name of the dataset;
                or a name without folders, with or without suffix, of an image anywhere.
            split: of the table. A name never means an image in a folder of another split; where several images have
                it, one in a folder of this split is meant.
        """
        slashed = cell.replace("\\", "/") if cell not in self.paths else cell
        return self._exact.find(slashed, split) or self._lower_suffix.find(_with_lower_suffix(slashed), split)

    def below_root(self, cell: str) -> tuple[str, str]:
        """The folders at the beginning of a path that are above the root, and the rest of it."""
        return self._exact.below_root(cell)

    def n_class_folders(self) -> int:
        """How many classes there would be if folders were classes: the highest ones that are called like no split."""
        return len(set(map(class_folder, self.paths)) - {None})

    @cached_property
    def _exact(self) -> _Names:
        return _Names({path: path for path in self.paths})

    @cached_property
    def _lower_suffix(self) -> _Names:
        return _Names({path: _with_lower_suffix(path) for path in self.paths})


class _Names:
    """Images by what a cell may call them."""

    def __init__(self, called: Mapping[str, str]) -> None:
        """`called`: path -> how it is spelt here."""
        self._of_path: defaultdict[str, list[str]] = defaultdict(list)
        self._of_path_stem: defaultdict[str, list[str]] = defaultdict(list)
        self._of_name: defaultdict[str, list[str]] = defaultdict(list)
        self._of_stem: defaultdict[str, list[str]] = defaultdict(list)
        self._tops: set[str] = set()
        for path, spelt in called.items():
            parts = PurePosixPath(spelt).parts
            self._tops.add(parts[0])
            self._of_path[spelt].append(path)
            self._of_path_stem[stem_of(spelt)].append(path)
            self._of_name[parts[-1]].append(path)
            self._of_stem[stem_of(parts[-1])].append(path)

    def find(self, cell: str, split: str | None) -> list[str]:
        parts = PurePosixPath(cell).parts
        if len(parts) > 1:
            # Never by the name alone: "p3/view1.png" that is missing must not become "p9/view1.png".
            path = self.below_root(cell)[1]
            return self._of_path.get(path) or self._of_path_stem.get(path) or []
        name = parts[0] if parts else ""
        found = self._of_name.get(name) or self._of_stem.get(name) or []
        if split is None:
            return found
        split_of = {path: split_in(str(PurePosixPath(path).parent)) for path in found}
        return [path for path in found if split_of[path] == split] or [p for p in found if split_of[p] is None]

    def below_root(self, cell: str) -> tuple[str, str]:
        parts = PurePosixPath(cell).parts
        n_above = next((n for n, part in enumerate(parts[:-1]) if part in self._tops), max(0, len(parts) - 1))
        return "/".join(parts[:n_above]), "/".join(parts[n_above:])


def class_folder(path: str) -> str | None:
    """The highest folder of a path that is called like no split: its class, if folders are classes."""
    return next((name for name in PurePosixPath(path).parts[:-1] if split_in(name) is None), None)


def has_image_suffix(path: Path) -> bool:
    """Whether a file is an image by its name."""
    return path.suffix.lower() in FORMAT_OF_SUFFIX


def stem_of(name: str) -> str:
    """A name or path without the suffix of an image: `1.2.840.113` keeps its last part, which is none."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in FORMAT_OF_SUFFIX else name


def _with_lower_suffix(path: str) -> str:
    stem = stem_of(path)
    return stem + path[len(stem) :].lower()


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


def split_in(name: str) -> str | None:
    """The split that a name speaks of: `train` of `images/train_images` and of `training_set`."""
    words = re.findall("[a-z]+", name.lower())
    splits = {SPLIT_OF_NAME[word] for word in words if word in SPLIT_OF_NAME}
    return splits.pop() if len(splits) == 1 else None
