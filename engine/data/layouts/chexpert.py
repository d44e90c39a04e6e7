"""The layout `chexpert`: 14 findings with blanks and -1, grouped by the patient in the path; knows no other layout."""

from __future__ import annotations

import re
from pathlib import Path

from engine.data.layouts.file_index import FileIndex, refuse_unlisted
from engine.data.layouts.labelled_table import Columns, Source, read_tables
from engine.data.layouts.layout import Layout, Listing, list_folder, of_splits, refuse_options
from engine.data.options import DataOptions
from engine.data.table import Row, Table, read_table
from engine.errors import DataError

FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
)  # fmt: skip
_PATH = "Path"
_PATIENT = re.compile(r"patient\d+")
_MIN_FINDINGS = 5


def _tables(root: Path) -> dict[str, Table]:
    paths = [path for path in list_folder(root)[1] if path.suffix == ".csv"]
    return {split: read_table(path) for split, path in of_splits(root, paths, lambda path: path.stem).items()}


def _recognises(root: Path) -> bool:
    try:
        columns = _tables(root)["train"].columns if root.is_dir() else ()
    except (DataError, KeyError):
        return False
    return _PATH in columns and len(set(FINDINGS) & set(columns)) >= _MIN_FINDINGS


def _read(root: Path, options: DataOptions) -> Listing:
    refuse_options(CHEXPERT.name, options, "table", "image", "split")
    tables = _tables(root)
    if "train" not in tables:
        fix = "put train.csv beside the folder train"
        raise DataError(str(root), f"no images under it (looked for {CHEXPERT.looks_for})", fix)
    index = FileIndex(root, follow_links=options.follow_links)
    refuse_unlisted(root, index, CHEXPERT.looks_for)
    label = options.label or tuple(name for name in tables["train"].columns if name in FINDINGS)
    if not label:
        problem = f"no column of findings (looked for {', '.join(FINDINGS[:3])} and so on)"
        raise tables["train"].refusal(problem, "name the columns of findings in data.label")
    columns = Columns(_PATH, (label,) if isinstance(label, str) else tuple(label), options.group or None)
    sources = [Source(table, split) for split, table in tables.items()]
    by_patient = _patient if options.group is None else None
    return read_tables(
        root, sources, columns, index, options, task="multilabel", group_of=by_patient,
        group_name="patient" if by_patient else None,
    )  # fmt: skip


def _patient(path: str, row: Row) -> str:
    found = _PATIENT.search(row.cells[_PATH])
    return found.group() if found else ""


CHEXPERT = Layout(
    name="chexpert",
    looks_for=f"train.csv with {_PATH} and the findings, and the images below",
    recognises=_recognises,
    read=_read,
)
