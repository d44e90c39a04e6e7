"""The layout `csv`: images in any folders and a table of any column names; which is the table, not what it means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.data.layouts.column_guess import guess_columns, may_hold_labels
from engine.data.layouts.file_index import FileIndex, leaves_folder, refuse_unlisted, split_in
from engine.data.layouts.labelled_table import Source, read_tables
from engine.data.layouts.layout import SPLIT_OF_NAME, Layout, Listing, list_folder, of_splits
from engine.data.options import DataOptions
from engine.data.table import SUFFIXES, read_table
from engine.errors import DataError


def has_label_table(root: Path) -> bool:
    """Whether a folder has a table for its images; one that can hold no labels does not count beside class folders."""
    paths = _table_paths(root) if root.is_dir() else []
    if not paths or any(_may_hold_labels(path) for path in paths):
        return bool(paths)
    return FileIndex(root, follow_links=True).n_class_folders() < 2


def find_tables(root: Path, options: DataOptions) -> list[Source]:
    """The table that the user names, the only one, or those of the splits (`train.csv`, `test.csv`), train first.

    Raises:
        DataError: there is none, or it is not clear which.
    """
    if options.table:
        if leaves_folder(options.table):
            raise DataError(f'data.table = "{options.table}"', "path leaves the dataset folder", "give a path below it")
        return [Source(read_table(root / options.table))]
    paths = _table_paths(root)
    if any(SPLIT_OF_NAME.get(path.stem.lower()) == "train" for path in paths):
        of_split = of_splits(root, paths, lambda path: path.stem)
        return [Source(read_table(path), split) for split, path in of_split.items()]
    if len(paths) == 1:
        return [Source(read_table(paths[0]))]
    if not paths:
        problem = f"no table of labels in it (looked for {' '.join('*' + suffix for suffix in SUFFIXES)})"
        raise DataError(str(root), problem, "put the table into the folder, or name it in data.table")
    names = ", ".join(path.name for path in paths[:6])
    raise DataError(str(root), f"{len(paths)} tables ({names})", "name the one with the labels in data.table")


def _read(root: Path, options: DataOptions) -> Listing:
    index = FileIndex(root, follow_links=options.follow_links)
    refuse_unlisted(root, index, CSV.looks_for)
    sources, notes = with_labels(find_tables(root, options), index, options)
    listing = read_tables(root, sources, guess_columns(sources, index, options), index, options)
    lists = [path.name for path in list_folder(root)[1] if path.suffix == ".txt" and split_in(path.stem)]
    if lists and all(entry.split is None for entry in listing.entries):
        notes = (*notes, f"{' '.join(lists)} are not read: put their splits into a column of the table")
    return replace(listing, warnings=(*listing.warnings, *notes))


def with_labels(
    sources: Sequence[Source], index: FileIndex, options: DataOptions
) -> tuple[list[Source], tuple[str, ...]]:
    """The tables that have labels, and a note on the others, as Kaggle's `test.csv` is one."""
    if len(sources) < 2:
        return list(sources), ()
    label = guess_columns(sources[:1], index, replace(options, split="")).label
    kept = [source for source in sources if set(label) <= set(source.table.columns)]
    names = " ".join(source.table.path.name for source in sources if source not in kept)
    return kept, (f'{names}: no column "{label[0]}", so it is left out',) if names else ()


def _table_paths(root: Path) -> list[Path]:
    return [path for path in list_folder(root)[1] if path.suffix.lower() in SUFFIXES]


def _may_hold_labels(path: Path) -> bool:
    try:
        return may_hold_labels(read_table(path))
    except DataError:  # said when it is read
        return True


CSV = Layout(
    name="csv",
    looks_for="a table (.csv, .tsv) of images and labels, and the images in any folders below",
    recognises=has_label_table,
    read=_read,
)
