"""The layout `aptos2019`: diabetic retinopathy grades as Kaggle gives them, ordinal; knows no other layout."""

from __future__ import annotations

from pathlib import Path

from engine.data.layouts.file_index import FileIndex, refuse_unlisted
from engine.data.layouts.labelled_table import Columns, Source, read_tables
from engine.data.layouts.layout import Layout, Listing, list_folder, of_splits, refuse_options
from engine.data.options import DataOptions
from engine.data.table import Table, read_table
from engine.errors import DataError

_IMAGE, _GRADE = "id_code", "diagnosis"


def _tables(root: Path) -> dict[str, Table]:
    """Split -> its table: `train.csv` or, in a later edition, `train_1.csv`, `valid.csv` and `test.csv`."""
    paths = [path for path in list_folder(root)[1] if path.suffix == ".csv"]
    of_split = of_splits(root, paths, lambda path: path.stem.removesuffix("_1"))
    return {split: read_table(path) for split, path in of_split.items()}


def _recognises(root: Path) -> bool:
    try:
        return root.is_dir() and {_IMAGE, _GRADE} <= set(_tables(root)["train"].columns)
    except (DataError, KeyError):
        return False


def _read(root: Path, options: DataOptions) -> Listing:
    refuse_options(APTOS2019.name, options, "table", "image", "label", "split")
    tables = _tables(root)
    if "train" not in tables:
        fix = "put train.csv beside the folder of its images"
        raise DataError(str(root), f"no images under it (looked for {APTOS2019.looks_for})", fix)
    index = FileIndex(root, follow_links=options.follow_links)
    refuse_unlisted(root, index, APTOS2019.looks_for)
    graded = {split: table for split, table in tables.items() if split == "train" or _GRADE in table.columns}
    sources = [Source(table, split) for split, table in graded.items()]
    columns = Columns(_IMAGE, (_GRADE,), options.group or None)
    return read_tables(root, sources, columns, index, options, task="ordinal")


APTOS2019 = Layout(
    name="aptos2019",
    looks_for=f"train.csv with {_IMAGE} and {_GRADE}, and the images in any folders below",
    recognises=_recognises,
    read=_read,
)
