"""The layout `folder`: a folder a class, with or without train, val and test folders above; knows no other layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from engine.data.images import FORMAT_OF_SUFFIX
from engine.data.layouts.layout import (
    Entry,
    Layout,
    Listing,
    list_folder,
    of_splits,
    order_classes,
    refuse_options,
    walk,
)
from engine.data.options import DataOptions
from engine.errors import DataError, StudyError


def _recognises(root: Path) -> bool:
    return root.is_dir() and any(_holds_images(root, folder, follow_links=True) for folder in list_folder(root)[0])


def _read(root: Path, options: DataOptions) -> Listing:
    refuse_options(FOLDER.name, options, "table", "image", "label", "split")
    if options.task == "multilabel":
        fix = "give a table of findings, or leave data.task out"
        raise StudyError('data.task = "multilabel"', "a folder a class gives one class an image", fix)
    if options.group:
        problem = f'a folder a class names no groups, so there is no "{options.group}"'
        raise DataError(str(root), problem, "leave data.group out, or give a dataset that has a table of groups")
    follow_links = options.follow_links
    entries: list[Entry] = []
    ignored: Counter[str] = Counter()
    for split, top in _tops(root, follow_links):
        n_before = len(entries)
        class_folders, files = list_folder(top)
        ignored.update(path.suffix.lower() for path in files if _is_image(path))
        for class_folder in class_folders:
            for path in walk(root, class_folder, follow_links=follow_links):
                if _is_image(path):
                    relative_path = path.relative_to(root).as_posix()
                    entries.append(Entry(id=relative_path, path=relative_path, label=class_folder.name, split=split))
                else:
                    ignored[path.suffix.lower()] += 1
        if split is not None and len(entries) == n_before:
            raise DataError(str(top), f"no images for {split}", "put a folder a class in it, or remove it")
    task = options.task or "single"
    try:
        classes = order_classes((str(entry.label) for entry in entries), task)
    except ValueError as error:
        problem = f"grades are numbers, each once: {error}"
        raise DataError(str(root), problem, "name the folders 0, 1, 2 and so on, or leave data.task out") from error
    return Listing(classes, tuple(entries), warnings=tuple(_ignored_warning(ignored)), task=task)


def _tops(root: Path, follow_links: bool) -> list[tuple[str | None, Path]]:
    """The folders that hold the class folders, each with its split: one for a split, or the root alone.

    Raises:
        DataError: the folder can be read in two ways.
    """
    folders = list_folder(root)[0]
    tops = of_splits(root, folders, lambda path: path.name)
    if not tops:
        return [(None, root)]
    for folder in folders:
        if folder not in tops.values() and _holds_images(root, folder, follow_links):
            names = " ".join(f'"{top.name}"' for top in tops.values())
            problem = f'ambiguous: split folders ({names}), and "{folder.name}" beside them holds images too'
            raise DataError(str(root), problem, "keep split folders alone, or class folders alone")
    return list(tops.items())


def _holds_images(root: Path, folder: Path, follow_links: bool) -> bool:
    return any(_is_image(path) for path in walk(root, folder, follow_links=follow_links))


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
