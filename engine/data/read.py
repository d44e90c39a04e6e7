"""Owns the way from a folder to a manifest: layout, content hashes, splits, checks; knows no layout in particular."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from engine.data.images import open_regular, unreadable
from engine.data.layouts import LAYOUTS, Entry, Layout
from engine.data.layouts.layout import refuse_outside
from engine.data.manifest import SPLITS, Item, Manifest, Skipped, refuse_many_skipped
from engine.data.splits import SHARES, draw_splits
from engine.data.table import did_you_mean
from engine.errors import DataError, ImageError, StudyError

SYNTHETIC_MARK = "synthetic.json"
_GIVE_FOLDER = "give the folder that holds the images"


def read_dataset(path: Path, *, layout: str | None = None, group: str | None = None) -> Manifest:
    """Reads a dataset: what images there are, their labels, splits and content hashes. Decodes nothing, writes nothing.

    Splits that the dataset gives are taken as they are. A missing one is drawn from the training images (15 % each),
    stratified by class, by content alone; groups and identical images stay together.

    Args:
        path: the dataset's folder.
        layout: a name from `LAYOUTS`; without it the layout is recognised.
        group: the column that names what must not be in two splits, a patient or a lesion.
    Returns:
        Items in the order of their ids.
    Raises:
        DataError: the dataset cannot be used as it is; the message says which file or line, and what mends it.
        StudyError: there is no layout of that name.
    """
    root = Path(os.path.realpath(path))
    if not root.is_dir():
        problem = "not a folder" if root.exists() else "no such folder"
        raise DataError(str(path), problem, _GIVE_FOLDER)
    chosen = _layout_of(root, layout)
    listing = chosen.read(root, group)
    _refuse_lookalikes(root, listing.classes)
    entries = sorted(listing.entries, key=lambda entry: entry.id)
    hashes, unreadable_ones = _hash(root, entries)
    skipped = (*listing.skipped, *unreadable_ones)
    refuse_many_skipped(str(root), skipped, len(entries) + len(listing.skipped))
    if not hashes:
        raise DataError(str(root), f"no images under it (looked for {chosen.looks_for})", _GIVE_FOLDER)
    label_of_class = {name: label for label, name in enumerate(listing.classes)}
    official = [
        Item(entry.id, entry.path, label_of_class[entry.label], entry.split or "train", hashes[entry], entry.group)
        for entry in entries
        if entry in hashes
    ]
    is_official = any(entry.split is not None for entry in entries)
    missing = [split for split in SPLITS if all((entry.split or "train") != split for entry in entries)]
    items = _with_splits(root, official, missing)
    warnings = [
        *listing.warnings,
        *_drawn(missing, is_official),
        *_check_classes(root, listing.classes, items, missing),
        *_check_repeats(root, items),
    ]
    is_synthetic = (root / SYNTHETIC_MARK).is_file()
    return Manifest(root, chosen.name, listing.classes, items, skipped, is_synthetic, tuple(warnings))


def _layout_of(root: Path, name: str | None) -> Layout:
    if name is not None:
        if name not in LAYOUTS:
            problem = f"unknown layout{did_you_mean(name, list(LAYOUTS))}"
            raise StudyError(f'layout = "{name}"', problem, f"give one of {', '.join(LAYOUTS)}")
        return LAYOUTS[name]
    for layout in LAYOUTS.values():
        if layout.recognises(root):
            return layout
    looked_for = "; or ".join(f"{layout.name}: {layout.looks_for}" for layout in LAYOUTS.values())
    raise DataError(str(root), f"no images under it (looked for {looked_for})", _GIVE_FOLDER)


def _refuse_lookalikes(root: Path, classes: Sequence[str]) -> None:
    if len(classes) == 1:
        raise DataError(str(root), f'one class only ("{classes[0]}")', "add the images of another class")
    first: dict[str, str] = {}
    for name in classes:
        seen = first.setdefault(unicodedata.normalize("NFC", name), name)
        if seen != name:
            problem = f'two classes "{name}" differ only in Unicode form ({seen!a}, {name!a})'
            raise DataError(str(root), problem, "put the images of both under one name")


def _hash(root: Path, entries: Sequence[Entry]) -> tuple[dict[Entry, str], list[Skipped]]:
    """SHA-256 of every image that can be read, and the others."""
    links = {path for path in (root / entry.path for entry in entries) if path.is_symlink()}
    for path in sorted({(root / entry.path).parent for entry in entries} | links):
        refuse_outside(root, path)
    hashes: dict[Entry, str] = {}
    skipped: list[Skipped] = []
    with ThreadPoolExecutor() as pool:
        for entry, found in zip(entries, pool.map(lambda entry: _hash_one(root, entry), entries), strict=True):
            if isinstance(found, Skipped):
                skipped.append(found)
            else:
                hashes[entry] = found
    return hashes, skipped


def _hash_one(root: Path, entry: Entry) -> str | Skipped:
    path = root / entry.path
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except ImageError as error:
        return Skipped(entry.path, error.problem)
    except OSError as error:
        return Skipped(entry.path, unreadable(error, path).problem)


def _with_splits(root: Path, items: Sequence[Item], missing: Sequence[str]) -> tuple[Item, ...]:
    """The items with the missing splits drawn from the training images."""
    if "train" in missing:
        fix = "add them, or take the split folders away to have splits drawn"
        raise DataError(str(root), "no training images", fix)
    training = [item for item in items if item.split == "train"]
    drawn = {split: share for split, share in SHARES.items() if split in missing}
    shares = {"train": 100 - sum(drawn.values())} | drawn
    splits = draw_splits(
        [item.label for item in training],
        [item.sha256 for item in training],
        [item.group for item in training],
        shares,
    )
    split_of_id = {item.id: split for item, split in zip(training, splits, strict=True)}
    return tuple(replace(item, split=split_of_id.get(item.id, item.split)) for item in items)


def _drawn(missing: Sequence[str], is_official: bool) -> Iterator[str]:
    if missing:
        names = " and ".join(f"{split} ({SHARES[split]} %)" for split in missing)
        source = "the training images" if is_official else "all images"
        yield f"no official {names}: drawn from {source}, stratified by class"


def _check_classes(root: Path, classes: Sequence[str], items: Sequence[Item], missing: Sequence[str]) -> Iterator[str]:
    """Refuses classes and splits that nothing can be learnt or measured on; warns of what is merely thin."""
    n_of = Counter((item.split, item.label) for item in items)
    for label, name in enumerate(classes):
        n_images = sum(n_of[split, label] for split in SPLITS)
        absent = [split for split in SPLITS if not n_of[split, label]]
        fix = f'add images of "{name}", or remove the class'
        if n_images < 2:
            raise DataError(str(root), f'"{name}" has {n_images} image{"s" * (n_images != 1)}; a split needs 2', fix)
        if "train" in absent:
            raise DataError(str(root), f'"{name}" has {n_images} images, none of them in train', fix)
        if "test" in absent and "test" in missing:
            problem = f'the {n_images} images of "{name}" are of one group, or identical; a split needs 2 groups'
            raise DataError(str(root), problem, fix)
        yield from (f'no image of "{name}" in {split}' for split in absent)
    for split in SPLITS:
        if not any(item.split == split for item in items):
            raise DataError(str(root), f"{split} has no images", "add images: splits of 70, 15 and 15 % need 4 a class")


def _check_repeats(root: Path, items: Sequence[Item]) -> Iterator[str]:
    """Refuses what is in two splits, because a test on images seen in training measures memory; warns of the rest."""
    by_group: defaultdict[str, list[Item]] = defaultdict(list)
    by_content: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_content[item.sha256].append(item)
        if item.group is not None:
            by_group[item.group].append(item)
    _refuse_divided(root, "group", by_group)
    _refuse_divided(root, "image", by_content)
    repeated = [same for same in by_content.values() if len(same) > 1]
    if repeated:
        yield f'{sum(map(len, repeated)) - len(repeated)} images repeat another one (first: "{repeated[0][1].id}")'
    contrary = [same[0].id for same in repeated if len({item.label for item in same}) > 1]
    if contrary:
        yield f'{len(contrary)} images are there under two labels (first: "{contrary[0]}")'


def _refuse_divided(root: Path, what: str, together: Mapping[str, Sequence[Item]]) -> None:
    divided = [items for items in together.values() if len({item.split for item in items}) > 1]
    if divided:
        one = divided[0][0]
        other = next(item for item in divided[0] if item.split != one.split)
        subject = f"1 {what} is" if len(divided) == 1 else f"{len(divided)} {what}s are"
        named = "" if one.group is None or what == "image" else f'"{one.group}": '
        problem = f'{subject} in two splits (first: {named}"{one.id}" in {one.split}, "{other.id}" in {other.split})'
        raise DataError(str(root), problem, "remove it from one of the splits")
