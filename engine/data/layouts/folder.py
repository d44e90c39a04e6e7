"""The layout `folder`: a folder a class, with or without train, val and test folders above; knows no other layout."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.data.images import FORMAT_OF_SUFFIX
from engine.data.layouts.dicom_headers import PATIENT, Headers, grouped, is_dicom
from engine.data.layouts.file_index import split_in
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

_N_LOOKED_AT = 20
_MASKS = frozenset({"mask", "masks", "segmentation", "segmentations", "annotation", "annotations", "labels", "gt"})
_IMAGES = frozenset({"image", "images", "img", "imgs", "photos", "scans"})
_MASK_END = re.compile(r"(.+?)[ _-]+(?:mask|seg|segmentation|gt)(?:[ _-]?\d+)?$", re.IGNORECASE)


def _recognises(root: Path) -> bool:
    return root.is_dir() and any(_holds_images(root, folder, follow_links=True) for folder in list_folder(root)[0])


def _read(root: Path, options: DataOptions) -> Listing:
    refuse_options(FOLDER.name, options, "table", "image", "label", "split")
    if options.task == "multilabel":
        fix = "give a table of findings, or leave data.task out"
        raise StudyError('data.task = "multilabel"', "a folder a class gives one class an image", fix)
    follow_links = options.follow_links
    entries: list[Entry] = []
    masks: list[str] = []
    ignored: Counter[str] = Counter()
    for split, top in _tops(root, follow_links):
        n_before = len(entries)
        class_folders, files = list_folder(top)
        ignored.update(path.suffix.lower() for path in files if _is_image(path))
        if options.layout is None:  # who names the layout says that these are the classes
            _refuse_other_trees(top, class_folders)
        for class_folder in class_folders:
            paths = list(walk(root, class_folder, follow_links=follow_links))
            of_masks = _masks(paths)
            for path in paths:
                relative_path = path.relative_to(root).as_posix()
                if path in of_masks:
                    masks.append(relative_path)
                elif _is_image(path):
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
    warnings = [*_ignored_warning(ignored)]
    if masks:
        warnings.append(f'{len(masks)} files are masks of other images by their names (first: "{masks[0]}"): ignored')
    listing = Listing(classes, tuple(entries), (), tuple(warnings), task, read_from="labels are the names of folders")
    return _with_groups(root, listing, options)


def _with_groups(root: Path, listing: Listing, options: DataOptions) -> Listing:
    """Groups from the headers of DICOM files: the patients, or what the user names; other images have none."""
    headers = Headers(root)
    if options.group == "" or not all(is_dicom(root / entry.path) for entry in listing.entries[:_N_LOOKED_AT]):
        if options.group:
            problem = f'a folder a class names no groups, so there is no "{options.group}"'
            raise DataError(str(root), problem, "leave data.group out, or give a dataset that has a table of groups")
        return listing
    found = grouped(listing, headers, options.group or PATIENT)
    if options.group and found.group_name is None:
        problem = f'the headers do not differ in "{options.group}"'
        raise DataError(str(root), problem, "correct data.group, or leave it out")
    return found


def _refuse_other_trees(top: Path, class_folders: Sequence[Path]) -> None:
    """Refuses folders that are no classes, though they hold images, unless the user names the layout.

    Raises:
        DataError: folders of images and of their masks; folders of one tree each, such as hospitals with a folder a
            class; or folders called like splits that hold images and no class folders.
    """
    names = " and ".join(f'"{folder.name}"' for folder in class_folders[:3])
    asks = 'put a folder a class on top, or set data.layout = "folder" if these are the classes'
    kinds = [set(re.findall("[a-z]+", folder.name.lower())) for folder in class_folders]
    if any(kind & _MASKS for kind in kinds) and any(kind & _IMAGES for kind in kinds):
        raise DataError(str(top), f"{names} are called like images and their masks, not like classes", asks)
    of_splits_ = [folder.name for folder in class_folders if split_in(folder.name)]
    if len(of_splits_) > 1:
        raise DataError(str(top), f"{names} are called like splits, and hold images without class folders", asks)
    inner = [frozenset(each.name for each in list_folder(folder)[0]) for folder in class_folders]
    if len(inner) > 1 and len(set(inner)) == 1 and len(inner[0]) > 1:
        same = " ".join(f'"{name}"' for name in sorted(inner[0])[:4])
        raise DataError(str(top), f"{names} hold the same folders ({same}): which are the classes?", asks)


def _masks(paths: Sequence[Path]) -> set[Path]:
    """The files that are called like another one of the folder and a word for its mask."""
    known = {path.with_suffix("") for path in paths}
    found = {path: _MASK_END.match(path.stem) for path in paths if _is_image(path)}
    return {path for path, match in found.items() if match and path.with_name(match[1]) in known}


def _tops(root: Path, follow_links: bool) -> list[tuple[str | None, Path]]:
    """The folders that hold the class folders, each with its split: one for a split, or the root alone.

    Raises:
        DataError: the folder can be read in two ways.
    """
    folders = list_folder(root)[0]
    tops = of_splits(root, folders, lambda path: path.name)
    if not tops:
        # `training_set` is one if there are class folders in it.
        speaking = [each for each in folders if split_in(each.name) and list_folder(each)[0]]
        tops = of_splits(root, speaking, lambda path: split_in(path.name) or "") if len(speaking) > 1 else {}
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
    return path.suffix.lower() in FORMAT_OF_SUFFIX or is_dicom(path)


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
