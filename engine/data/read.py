"""Owns the way from a path to a manifest: layout, content hashes, splits, checks; knows no layout in particular."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from engine.data.checks import Finding, check_classes, check_groups, check_origin, check_repeats, check_splits
from engine.data.images import FORMAT_OF_SUFFIX
from engine.data.intensity import Decoding
from engine.data.layouts import LAYOUTS, Entry, Layout
from engine.data.layouts.dicom_folder import mostly_dicom
from engine.data.layouts.dicom_headers import is_dicom, may_be_dicom
from engine.data.layouts.layout import list_folder, refuse_outside, walk
from engine.data.layouts.medmnist import npz_path
from engine.data.manifest import SPLITS, Item, Label, Manifest, Skipped, refuse_many_skipped
from engine.data.options import DataOptions
from engine.data.sources import source_of
from engine.data.splits import SHARES, draw_splits
from engine.data.table import SUFFIXES, did_you_mean
from engine.errors import DataError, StudyError

SYNTHETIC_MARK = "synthetic.json"
_GIVE_FOLDER = "give the folder that holds the images"
_DEFAULTS = DataOptions()
_MANY, _FEW = 10_000, 20


def read_dataset(path: Path, options: DataOptions = _DEFAULTS) -> Manifest:
    """Reads a dataset: what images there are, their labels, splits and content hashes. Decodes nothing, writes nothing.

    Splits that the dataset gives are taken as they are. A missing one is drawn from the training images (15 % each),
    stratified by class, by content alone; groups and identical images stay together.

    Args:
        path: the dataset's folder, or its `.npz` file.
        options: what the user says about it; the rest is recognised.
    Returns:
        Items in the order of their ids.
    Raises:
        DataError: the dataset cannot be used as it is; the message says which file or line, and what mends it.
        StudyError: an option names what is not there.
    """
    return _sound(*look_at_dataset(path, options))


def read_origin(path: Path, options: DataOptions = _DEFAULTS) -> Manifest:
    """Reads a dataset of the pre-training domain: as `read_dataset`, with all images in the one split "test".

    Raises:
        DataError: as `read_dataset`; also where there are too few images for k-NN, or the labels are not single.
        StudyError: an option names what is not there.
    """
    return _sound(*look_at_origin(path, options))


def look_at_dataset(path: Path, options: DataOptions = _DEFAULTS) -> tuple[Manifest, tuple[DataError, ...]]:
    """As `read_dataset`, with all that would stop a study on it in place of the first as an error.

    Raises:
        DataError: it cannot be read at all.
        StudyError: an option names what is not there.
    """
    found = _read(path, options)
    missing = [split for split in SPLITS if all((item.split or "train") != split for item in found.items)]
    is_official = any(entry.split is not None for entry in found.entries)
    manifest = replace(found.manifest, items=_with_splits(found.root, found.items, missing))
    findings = [
        *check_splits(manifest, missing, is_official),
        *check_classes(manifest, missing),
        *check_groups(manifest, missing),
        *check_repeats(manifest),
    ]
    return _with_findings(manifest, findings)


def look_at_origin(path: Path, options: DataOptions = _DEFAULTS) -> tuple[Manifest, tuple[DataError, ...]]:
    """As `read_origin`, with all that would stop a study on it in place of the first as an error.

    Raises:
        DataError: it cannot be read at all.
        StudyError: an option names what is not there.
    """
    found = _read(path, options)
    manifest = replace(found.manifest, items=tuple(replace(item, split="test") for item in found.items))
    return _with_findings(manifest, list(check_origin(manifest)))


def _with_findings(manifest: Manifest, findings: Sequence[Finding]) -> tuple[Manifest, tuple[DataError, ...]]:
    said = tuple(each for each in findings if isinstance(each, str))
    errors = tuple(each for each in findings if isinstance(each, DataError))
    return replace(manifest, warnings=(*manifest.warnings, *said)), errors


def _sound(manifest: Manifest, errors: Sequence[DataError]) -> Manifest:
    if errors:
        raise errors[0]
    return manifest


def read_held_out(path: Path, options: DataOptions = _DEFAULTS) -> Manifest:
    """Reads labelled images on which a model is to be judged that was trained elsewhere, all in the one split "test".

    They are the test images where the dataset names some, else the validation images, else all: a warning says which.

    Raises:
        DataError, StudyError: as `read_dataset`.
    """
    found = _read(path, options)
    is_named = any(entry.split is not None for entry in found.entries)
    split = next((each for each in ("test", "val") if is_named and any(i.split == each for i in found.items)), None)
    chosen = [item for item in found.items if split is None or item.split == split]
    said = (
        f"judged on all {len(chosen)} images, as none are named as test images: where the training has seen some, "
        "accuracy says too much"
        if split is None
        else f"judged on the {len(chosen)} {'test' if split == 'test' else 'validation'} images that the dataset names"
    )
    items = tuple(replace(item, split="test") for item in chosen)
    return replace(found.manifest, items=items, warnings=(*found.manifest.warnings, said))


def read_images(path: Path, options: DataOptions = _DEFAULTS) -> Manifest:
    """Reads the images of a dataset where labels are of no matter, all in the one split "test".

    They are read as `read_origin` reads them where that can be done, so that those of each class have their share when
    some are chosen; else every image file under the folder is taken, as of one class, and a warning says why.

    Raises:
        DataError: there is no such folder, or no image under it.
        StudyError: an option names what is not there.
    """
    root = Path(os.path.realpath(path))
    try:
        found = _read(path, options)
        return replace(found.manifest, items=tuple(replace(item, split="test") for item in found.items))
    except DataError as error:
        paths = sorted(walk(root, root, follow_links=options.follow_links)) if root.is_dir() else []
        paths = [each for each in paths if each.suffix.lower() in FORMAT_OF_SUFFIX or is_dicom(each)]
        if not paths:
            raise
        why = error.problem
    names = [each.relative_to(root).as_posix() for each in paths]
    entries = [Entry(id=name, path=name, label="image", split="test") for name in names]
    hashes, skipped = _hash(root, entries, options.follow_links)
    refuse_many_skipped(str(root), skipped, len(entries), options.max_skipped)
    items = tuple(Item(each.id, each.path, 0, "test", hashes[each]) for each in entries if each in hashes)
    return Manifest(
        root, "images", ("image",), items, tuple(skipped), (root / SYNTHETIC_MARK).is_file(),
        (f"taken as they lie, without labels: {why}",), decoding=Decoding(options.window, options.frame),
    )  # fmt: skip


class _Found:
    """A listing whose images have been hashed; splits are not drawn yet."""

    def __init__(self, root: Path, layout: Layout, options: DataOptions) -> None:
        if root.is_dir():
            for path in list_folder(root)[1]:
                if path.suffix in (*SUFFIXES, ".txt", ".npz") and path.is_symlink():
                    refuse_outside(root, path, follow_links=options.follow_links)
        listing = layout.read(root, options)
        if options.split == "":
            listing = replace(listing, entries=tuple(replace(entry, split=None) for entry in listing.entries))
        self.root = root = (npz_path(root) or root) if layout.name == "medmnist" else root
        _refuse_lookalikes(root, listing.classes)
        self.entries = sorted(listing.entries, key=lambda entry: entry.id)
        hashes, unreadable_ones = _hash(root, self.entries, options.follow_links)
        skipped = (*listing.skipped, *unreadable_ones)
        n_images = len(self.entries) + len(listing.skipped)
        refuse_many_skipped(str(root), skipped, n_images, options.max_skipped)
        if not hashes:
            raise DataError(str(root), f"no images under it (looked for {layout.looks_for})", _GIVE_FOLDER)
        label_of_class = {name: label for label, name in enumerate(listing.classes)}

        def label_of(entry: Entry) -> Label:
            return label_of_class[entry.label] if isinstance(entry.label, str) else entry.label

        self.items = tuple(
            Item(entry.id, entry.path, label_of(entry), entry.split or "train", hashes[entry], entry.group)
            for entry in self.entries
            if entry in hashes
        )
        self.manifest = Manifest(
            root, layout.name, listing.classes, self.items, skipped, (root / SYNTHETIC_MARK).is_file(),
            listing.warnings, listing.task, listing.group_name, Decoding(options.window, options.frame),
            listing.read_from,
        )  # fmt: skip


def _read(path: Path, options: DataOptions) -> _Found:
    root = Path(os.path.realpath(path))
    if not root.is_dir() and not (root.is_file() and root.suffix == ".npz"):
        problem = "not a folder" if root.exists() else "no such folder"
        raise DataError(str(path), problem, _GIVE_FOLDER)
    return _Found(root, _layout_of(root, options), options)


def _layout_of(root: Path, options: DataOptions) -> Layout:
    name = options.layout
    if name is None and options.table:
        name = "dicom" if mostly_dicom(root) else "csv"
    if name is not None:
        if name not in LAYOUTS:
            problem = f"unknown layout{did_you_mean(name, list(LAYOUTS))}"
            raise StudyError(f'layout = "{name}"', problem, f"give one of {', '.join(LAYOUTS)}")
        return LAYOUTS[name]
    for layout in LAYOUTS.values():
        if layout.recognises(root):
            return layout
    looked_for = f"a folder a class, a table, an .npz file; {' '.join(FORMAT_OF_SUFFIX)}"
    problem = f"no images under it (looked for {looked_for}; found {_found_under(root)})"
    raise DataError(str(root), problem, _GIVE_FOLDER)


def _found_under(root: Path) -> str:
    """What there is in a folder where nothing is recognised, in a few words."""
    files = [root] if root.is_file() else list(islice(walk(root, root, follow_links=True), _MANY))
    dicom = [path for path in files[:_FEW] if may_be_dicom(path) and is_dicom(path)]
    kinds = Counter("".join(path.suffixes[-2:]).lower() or "without suffix" for path in files)
    words = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(3)) or "no files"
    return f"{words}: DICOM, which needs a folder a class or a table of labels" if dicom else words


def _refuse_lookalikes(root: Path, classes: Sequence[str]) -> None:
    if len(classes) == 1:
        inner = list_folder(root / classes[0])[0] if root.is_dir() and (root / classes[0]).is_dir() else []
        fix = f"give {root / classes[0]}, whose folders could be the classes" if len(inner) > 1 else None
        raise DataError(str(root), f'one class only ("{classes[0]}")', fix or "add the images of another class")
    alike: dict[str, str] = {}
    for name in classes:
        seen = alike.setdefault(" ".join(unicodedata.normalize("NFC", name).casefold().split()), name)
        is_letter = len(name) < 3  # "a" and "A" may be two classes of letters
        if seen != name and unicodedata.normalize("NFC", seen) != unicodedata.normalize("NFC", name) and not is_letter:
            problem = f'classes "{seen}" and "{name}" differ only in capital letters or spaces'
            raise DataError(str(root), problem, "write them alike")
    first: dict[str, str] = {}
    for name in classes:
        seen = first.setdefault(unicodedata.normalize("NFC", name), name)
        if seen != name:
            problem = f'two classes "{name}" differ only in Unicode form ({seen!a}, {name!a})'
            raise DataError(str(root), problem, "put the images of both under one name")


def _hash(root: Path, entries: Sequence[Entry], follow_links: bool) -> tuple[dict[Entry, str], list[Skipped]]:
    """SHA-256 of every image that can be read, and the others."""
    if root.is_dir() and not follow_links:
        links = {path for path in (root / entry.path for entry in entries) if path.is_symlink()}
        for path in sorted({(root / entry.path).parent for entry in entries} | links):
            refuse_outside(root, path)
    hashes: dict[Entry, str] = {}
    skipped: list[Skipped] = []
    found = source_of(root).hashes([entry.path for entry in entries])
    for entry, one in zip(entries, found, strict=True):
        if isinstance(one, Skipped):
            skipped.append(one)
        else:
            hashes[entry] = one
    return hashes, skipped


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
