"""The layout `dicom`: DICOM files and a table of labels by file name, path or SOP instance UID, grouped by patient."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from engine.data.layouts.column_guess import guess_columns
from engine.data.layouts.dicom_headers import Headers, grouped, is_dicom, may_be_dicom
from engine.data.layouts.file_index import FileIndex, has_image_suffix, refuse_unlisted
from engine.data.layouts.labelled_table import Source, read_tables
from engine.data.layouts.layout import Layout, Listing, walk
from engine.data.layouts.tabular import find_tables, has_label_table, with_labels
from engine.data.options import DataOptions
from engine.data.table import Row, Table

_PATHS = "path of the image"
_LIKE_UID = re.compile(r"[0-9]+(\.[0-9]+){3,}")
_N_LOOKED_AT = 20


def mostly_dicom(root: Path) -> bool:
    """Whether most of the first images of a folder are DICOM."""
    files = [path for path in walk(root, root, follow_links=True) if may_be_dicom(path) or has_image_suffix(path)]
    return 2 * sum(is_dicom(path) for path in files[:_N_LOOKED_AT]) > len(files[:_N_LOOKED_AT])


def _recognises(root: Path) -> bool:
    return has_label_table(root) and mostly_dicom(root)


def _read(root: Path, options: DataOptions) -> Listing:
    index = FileIndex(root, follow_links=options.follow_links, is_image=is_dicom)
    refuse_unlisted(root, index, DICOM.looks_for)
    sources = find_tables(root, options)
    headers = Headers(root)
    sources = _with_paths(sources, options, headers, index)
    if _PATHS in sources[0].table.columns:
        options = replace(options, image=_PATHS)
    sources, notes = with_labels(sources, index, options)
    keyword = options.group if options.group and options.group not in sources[0].table.columns else None
    columns = guess_columns(sources, index, replace(options, group="") if keyword else options)
    listing = read_tables(root, sources, columns, index, options)
    listing = replace(listing, warnings=(*listing.warnings, *notes))
    if keyword:
        found = grouped(listing, headers, keyword)
        if found.group_name is None:
            names = ", ".join(sources[0].table.columns)
            problem = f'neither a column nor an element of the headers is "{keyword}"; found {names}'
            raise sources[0].table.refusal(problem, "correct data.group, or leave it out")
        return found
    return grouped(listing, headers) if options.group is None and columns.group is None else listing


def _with_paths(sources: Sequence[Source], options: DataOptions, headers: Headers, index: FileIndex) -> list[Source]:
    """The tables with a column of paths more, where a column (the user's, or any) holds UIDs of the images.

    Raises:
        DataError: two files have a UID of the table.
    """
    table = sources[0].table
    columns = [name for name in ([options.image] if options.image else table.columns) if name in table.columns]
    columns = [name for name in columns if any(_LIKE_UID.fullmatch(cell) for cell in table.values(name))]
    paths_of = headers.by_uid(index.paths) if columns else {}
    for column in columns:
        if any(cell in paths_of for cell in table.values(column)):
            return [replace(source, table=_in_paths(source.table, column, paths_of)) for source in sources]
    return list(sources)


def _in_paths(table: Table, column: str, paths_of: Mapping[str, Sequence[str]]) -> Table:
    table.require(column)
    rows = []
    for row in table.rows:
        cell = row.cells[column]
        paths = paths_of.get(cell, (cell,))
        if len(paths) > 1:
            problem = f'"{cell}" can be {len(paths)} images ({", ".join(sorted(paths)[:3])})'
            raise table.error(row.line, problem, "remove one of them, or name the column of paths in data.image")
        rows.append(Row(row.line, {_PATHS: paths[0], **row.cells}))
    return Table(table.path, (_PATHS, *(name for name in table.columns if name != column)), tuple(rows))


DICOM = Layout(
    name="dicom",
    looks_for="DICOM files and a table (.csv) of their names, paths or SOP instance UIDs with labels",
    recognises=_recognises,
    read=_read,
)
