"""The layout `dicom`: DICOM files and a table of labels by file name, path or SOP instance UID, grouped by patient."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from engine.data import dicom
from engine.data.images import open_regular
from engine.data.layouts.column_guess import guess_columns
from engine.data.layouts.file_index import FileIndex, has_image_suffix, refuse_unlisted
from engine.data.layouts.labelled_table import Source, read_tables
from engine.data.layouts.layout import Layout, Listing, walk
from engine.data.layouts.tabular import find_tables, has_label_table
from engine.data.options import DataOptions
from engine.data.table import Row, Table
from engine.errors import ImageError

_UID = "SOPInstanceUID"
PATIENT = "PatientID"
_PATHS = "path of the image"
_LIKE_UID = re.compile(r"[0-9]+(\.[0-9]+){3,}")
_N_LOOKED_AT = 20


def _recognises(root: Path) -> bool:
    if not has_label_table(root):
        return False
    files = [path for path in walk(root, root, follow_links=True) if _is_dicom_by_name(path) or has_image_suffix(path)]
    return 2 * sum(_is_dicom(path) for path in files[:_N_LOOKED_AT]) > len(files[:_N_LOOKED_AT])


def _is_dicom(path: Path) -> bool:
    """By suffix, or by content where there is none, as scanners name their files."""
    if path.suffix.lower() in dicom.SUFFIXES:
        return True
    if not _is_dicom_by_name(path):
        return False
    try:
        with open_regular(path) as file:
            return dicom.is_dicom(file, path)
    except (ImageError, OSError):
        return False


def _is_dicom_by_name(path: Path) -> bool:
    """Whether a file may be DICOM: "1.2.840.113619" is a name without suffix."""
    return path.suffix.lower() in ("", *dicom.SUFFIXES) or path.suffix[1:].isdecimal()


def _read(root: Path, options: DataOptions) -> Listing:
    index = FileIndex(root, follow_links=options.follow_links, is_image=_is_dicom)
    refuse_unlisted(root, index, DICOM.looks_for)
    sources = find_tables(root, options)
    headers = _Headers(root)
    sources = _with_paths(sources, options.image, headers, index)
    if _PATHS in sources[0].table.columns:
        options = replace(options, image=_PATHS)
    columns = guess_columns(sources, index, options)
    if options.group is None and columns.group is None:
        return _grouped_by_patient(read_tables(root, sources, columns, index, options, group_of=headers.patient))
    if options.group is not None and options.group not in sources[0].table.columns and options.group:
        keyword = options.group
        group_of: Callable[[str, Row], str] = lambda path, row: headers.text(path, keyword)  # noqa: E731
        columns = replace(columns, group=None)
        listing = read_tables(root, sources, columns, index, options, group_of=group_of, group_name=keyword)
        if listing.group_name is None:
            names = ", ".join(sources[0].table.columns)
            problem = f'neither a column nor an element of the headers is "{keyword}"; found {names}'
            raise sources[0].table.refusal(problem, "correct data.group, or leave it out")
        return listing
    return read_tables(root, sources, columns, index, options)


def _with_paths(sources: Sequence[Source], image: str | None, headers: _Headers, index: FileIndex) -> list[Source]:
    """The tables with a column of paths more, where a column (the user's, or any) holds UIDs of the images.

    Raises:
        DataError: two files have a UID of the table.
    """
    table = sources[0].table
    columns = [name for name in ([image] if image else table.columns) if name in table.columns]
    columns = [name for name in columns if any(_LIKE_UID.fullmatch(cell) for cell in table.values(name))]
    paths_of = headers.by_uid(index) if columns else {}
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


class _Headers:
    """The headers of the images, each read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._texts: dict[str, dict[str, str]] = {}

    def text(self, path: str, keyword: str) -> str:
        """The value of an element; empty where it is absent, or the file cannot be read."""
        texts = self._texts.setdefault(path, {})
        if keyword not in texts:
            try:
                with open_regular(self._root / path) as file:
                    header = dicom.read_header(file, self._root / path)
                for name in {keyword, _UID, PATIENT}:
                    texts[name] = dicom.header_text(header, name)
            except (ImageError, OSError):  # said, counted and skipped when the images are read
                texts[keyword] = ""
        return texts[keyword]

    def patient(self, path: str, row: Row) -> str:
        """The patient of an image."""
        return self.text(path, PATIENT)

    def by_uid(self, index: FileIndex) -> dict[str, list[str]]:
        """SOP instance UID -> the files that have it: one, but for copies."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for path in index.paths:
            found[self.text(path, _UID)].append(path)
        found.pop("", None)
        return found


def _grouped_by_patient(listing: Listing) -> Listing:
    """The listing; without groups where the headers name one patient for all, as anonymised ones may."""
    patients = {entry.group for entry in listing.entries}
    if len(patients - {None}) > 1:
        return replace(listing, group_name=PATIENT)
    warning = f"the headers name no patients ({PATIENT} is alike in all): images of one may be in two splits"
    entries = tuple(replace(entry, group=None) for entry in listing.entries)
    return replace(listing, entries=entries, group_name=None, warnings=(*listing.warnings, warning))


DICOM = Layout(
    name="dicom",
    looks_for="DICOM files and a table (.csv) of their names, paths or SOP instance UIDs with labels",
    recognises=_recognises,
    read=_read,
)
