"""The layout `ham10000`: the HAM10000 skin lesions as published, grouped by lesion; knows no other layout."""

from __future__ import annotations

from pathlib import Path

from engine.data.layouts.file_index import FileIndex, refuse_unlisted
from engine.data.layouts.labelled_table import Columns, Source, read_tables
from engine.data.layouts.layout import Layout, Listing, list_folder, refuse_options
from engine.data.options import DataOptions
from engine.data.table import SUFFIXES, read_table
from engine.errors import DataError

_NAME = "HAM10000_metadata"


def _table_paths(root: Path) -> list[Path]:
    """The Dataverse file has no suffix or `.tab`, Kaggle's is `.csv`."""
    return [path for path in list_folder(root)[1] if path.stem == _NAME and path.suffix in (*SUFFIXES, "")]


def _recognises(root: Path) -> bool:
    return root.is_dir() and bool(_table_paths(root))


def _read(root: Path, options: DataOptions) -> Listing:
    refuse_options(HAM10000.name, options, "table", "image", "label")
    paths = _table_paths(root)
    if not paths:
        raise DataError(str(root), f"no images under it (looked for {HAM10000.looks_for})", f"put {_NAME} into it")
    index = FileIndex(root, follow_links=options.follow_links)
    refuse_unlisted(root, index, HAM10000.looks_for)
    group = "lesion_id" if options.group is None else options.group or None
    columns = Columns("image_id", ("dx",), group, options.split)
    return read_tables(root, [Source(read_table(paths[0]))], columns, index, options)


HAM10000 = Layout(
    name="ham10000",
    looks_for=f"{_NAME}.csv and the images in any folders below",
    recognises=_recognises,
    read=_read,
)
