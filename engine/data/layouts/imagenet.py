"""The layout `imagenet`: ImageNet-1K validation images in one folder with a file of labels; knows no other layout.

Class folders are read by the layout `folder`. Four label files are known: the ground truth of the development kit (a
number from 1 to 1000 a line), `synset_labels.txt` (a WordNet id a line), `val.txt` (image and number from 0 to 999),
and Kaggle's `LOC_val_solution.csv`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from engine.data.layouts.file_index import FileIndex, leaves_folder, refuse_unlisted
from engine.data.layouts.layout import Entry, Layout, Listing, list_folder, refuse_options
from engine.data.manifest import Skipped
from engine.data.options import DataOptions
from engine.data.table import read_lines, read_table
from engine.errors import DataError

N_CLASSES = 1000
LABEL_FILES = (
    "ILSVRC2012_validation_ground_truth.txt", "synset_labels.txt", "imagenet_2012_validation_synset_labels.txt",
    "val.txt", "LOC_val_solution.csv",
)  # fmt: skip
_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.(JPEG|jpeg|jpg|png)")
_WORDNET_ID = re.compile(r"n\d{8}")


def _recognises(root: Path) -> bool:
    return root.is_dir() and _label_path(root) is not None and _holds_validation_images(root)


def _holds_validation_images(root: Path) -> bool:
    folders, files = list_folder(root)
    return any(_IMAGE.fullmatch(path.name) for path in (*files, *(p for f in folders for p in list_folder(f)[1])))


def _label_path(root: Path) -> Path | None:
    """In the folder, in one of its folders, or beside it, as the development kit unpacks."""
    folders = [root, *list_folder(root)[0], root.parent]
    return next((f / name for f in folders for name in LABEL_FILES if (f / name).is_file()), None)


def _read(root: Path, options: DataOptions) -> Listing:
    refuse_options(IMAGENET.name, options, "table", "image", "label", "split", "task", "group")
    path = _label_path(root)
    if path is None:
        fix = f"put one of {' '.join(LABEL_FILES)} into the folder, or give class folders"
        raise DataError(str(root), f"no labels in it (looked for {IMAGENET.looks_for})", fix)
    index = FileIndex(root, follow_links=options.follow_links)
    refuse_unlisted(root, index, IMAGENET.looks_for)
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    line_of: dict[str, int] = {}
    for line, name, label in _labels(path):
        if name in line_of:
            problem = f'id "{name}" on lines {line_of[name]} and {line}'
            raise DataError(str(path), problem, "remove one of the two lines")
        line_of[name] = line
        if leaves_folder(name):
            fix = "give the name of the image alone"
            raise DataError(f"{path} line {line}", f'path leaves the dataset folder ("{name}")', fix)
        found = index.find(name)
        if len(found) > 1:
            problem = f'"{name}" can be {len(found)} images ({", ".join(sorted(found)[:3])})'
            raise DataError(f"{path} line {line}", problem, "remove all of these images but one")
        if found:
            entries.append(Entry(found[0], found[0], label))
        else:
            skipped.append(Skipped(name, f"{path.name} line {line}: no such image"))
    if not entries:
        problem = f"none of the {len(skipped)} images of {path.name} is under it"
        raise DataError(str(root), problem, "give the folder with the validation images")
    if len(skipped) > len(entries):  # a part of the validation set: what is missing is no damage
        warning = (
            f"{len(entries)} of the {len(entries) + len(skipped)} images of {path.name} are here; the rest is left out"
        )
        return Listing(_classes(entries), tuple(entries), (), (warning,))
    return Listing(_classes(entries), tuple(entries), tuple(skipped))


def _classes(entries: list[Entry]) -> tuple[str, ...]:
    return tuple(sorted({str(entry.label) for entry in entries}))


def _labels(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, image and class name of every line of a label file."""
    if path.suffix == ".csv":
        table = read_table(path)
        for column in ("ImageId", "PredictionString"):
            table.require(column)
        for row in table.rows:
            yield row.line, row.cells["ImageId"], _wordnet_id(path, row.line, row.cells["PredictionString"][:9])
        return
    for line, text in enumerate(read_lines(path), start=1):
        words = text.split()
        if not words:  # the line is the number of the image: one that is left out would shift all that follow
            raise DataError(f"{path} line {line}", "label is empty", "put the label of the image there")
        if path.name == "val.txt":
            if len(words) != 2:
                raise DataError(f"{path} line {line}", f"{len(words)} fields, expected 2", "mend or remove the line")
            yield line, words[0], _number(path, line, words[1], first=0)
        elif path.name == LABEL_FILES[0]:
            yield line, f"ILSVRC2012_val_{line:08d}", _number(path, line, words[0], first=1)
        else:
            yield line, f"ILSVRC2012_val_{line:08d}", _wordnet_id(path, line, words[0])


def _number(path: Path, line: int, word: str, *, first: int) -> str:
    """A class number as a name that sorts like a number."""
    last = first + N_CLASSES - 1
    if not (word.isascii() and word.isdecimal() and len(word) < 10 and first <= int(word) <= last):
        raise DataError(f"{path} line {line}", f'label "{word}" is out of range; need {first} to {last}', "correct it")
    return f"{int(word):04d}"


def _wordnet_id(path: Path, line: int, word: str) -> str:
    if not _WORDNET_ID.fullmatch(word):
        raise DataError(f"{path} line {line}", f'label "{word}" is no WordNet id (n and 8 digits)', "correct it")
    return word


IMAGENET = Layout(
    name="imagenet",
    looks_for=f"ILSVRC2012_val_*.JPEG and one of {' '.join(LABEL_FILES)}",
    recognises=_recognises,
    read=_read,
)
