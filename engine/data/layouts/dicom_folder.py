"""The layout `dicom`: DICOM files and a table of labels by file name, path or SOP instance UID, grouped by patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from engine.data import dicom
from engine.data.images import open_regular
from engine.data.layouts.column_guess import guess_columns, image_column
from engine.data.layouts.file_index import FileIndex, has_image_suffix, refuse_unlisted
from engine.data.layouts.labelled_table import Source, read_tables
from engine.data.layouts.layout import Layout, Listing, walk
from engine.data.layouts.tabular import find_tables, has_label_table
from engine.data.options import DataOptions
from engine.data.table import Row, Table
from engine.errors import DataError, ImageError

_UID = "SOPInstanceUID"
PATIENT = "PatientID"
_PATHS = "path of the image"
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
    if options.image is None and not _names_files(sources[0].table, index):
        uids = headers.by_uid(root, index)
        sources = [Source(_with_paths(source.table, uids), source.split) for source in sources]
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


def _names_files(table: Table, index: FileIndex) -> bool:
    """Whether a column holds names of the images, or several may."""
    try:
        return bool(image_column(table, index))
    except DataError:
        return any(index.find(cell) for row in table.rows for cell in row.cells.values())


def _with_paths(table: Table, path_of_uid: dict[str, str]) -> Table:
    """The table with a column of paths, where one of its columns holds SOP instance UIDs.

    Raises:
        DataError: none does.
    """
    for column in table.columns:
        if any(row.cells[column] in path_of_uid for row in table.rows):
            rows = tuple(
                Row(row.line, {_PATHS: path_of_uid.get(row.cells[column], row.cells[column]), **row.cells})
                for row in table.rows
            )
            return Table(table.path, (_PATHS, *(name for name in table.columns if name != column)), rows)
    problem = f"no column holds file names, paths or {_UID}s of the images; found {', '.join(table.columns)}"
    raise DataError(str(table.path), problem, "name the column of paths or ids in data.image")


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

    def by_uid(self, root: Path, index: FileIndex) -> dict[str, str]:
        """SOP instance UID -> path; DataError where two files have the same."""
        found: dict[str, str] = {}
        for path in index.paths:
            uid = self.text(path, _UID)
            if uid and found.setdefault(uid, path) != path:
                problem = f'"{found[uid]}" and "{path}" have the same {_UID} ({uid})'
                raise DataError(str(root), problem, "remove one of them, or name the column of paths in data.image")
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
