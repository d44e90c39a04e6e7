"""Finds out which column of a table holds images, labels, groups and splits; reads no labels and opens no image.

The image column is found by content: its cells are images that exist. Labels are found by their name, by being one-hot,
or by being the only column that can be them. What is not certain is asked, because a study of labels, groups or splits
from the wrong column looks like any other.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from engine.data.layouts.file_index import FileIndex, has_image_suffix, leaves_folder
from engine.data.layouts.label_reader import BINARY, DIVIDER, EMPTY, is_one_hot
from engine.data.layouts.labelled_table import Columns, Source
from engine.data.layouts.layout import SPLIT_OF_NAME
from engine.data.options import DataOptions
from engine.data.table import Table, did_you_mean
from engine.errors import DataError, StudyError

# Column names as people write them, in lower case without spaces and underscores; the first that is there is taken.
_LABELS = (
    "label", "labels", "class", "classname", "category", "diagnosis", "diagnostic", "dx", "target", "level", "grade",
    "findinglabels", "findings", "finding", "groundtruth", "gt", "pathology",
)  # fmt: skip
_GROUPS = (
    "patientid", "patient", "participantid", "participant", "mrn", "patientno", "patientnumber", "anonpatientid", "pid",
    "subjectid", "subject", "lesionid", "lesion", "caseid", "case", "studyid", "eyeid",
)  # fmt: skip
_SPLITS = ("split", "set", "subset", "partition", "fold", "usage", "dataset")
_IMAGES = (
    "image", "imageid", "imagename", "imagepath", "imagefile", "imagefilename", "imageindex", "img", "imgid",
    "imgname", "imgpath", "path", "filepath", "file", "filename", "fname", "picture", "photo",
)  # fmt: skip
# Words in the names of columns that describe an image or a person, and are never taken for labels unasked.
_DESCRIBING = frozenset((
    "sex", "gender", "male", "female", "men", "women", "age", "race", "ethnicity", "smoker", "smoking", "smokes",
    "left", "right", "od", "os", "laterality", "side", "eye", "view", "position", "site", "localization", "location",
    "hospital", "center", "centre", "scanner", "manufacturer", "device", "camera", "modality", "quality", "year",
    "date", "width", "height", "fold", "batch", "source", "dataset", "split", "caption", "text", "description",
    "report", "comment", "note", "notes", "prompt", "index", "id", "ids", "uid", "number", "accession", "patient",
    "participant", "subject", "study", "series",
))  # fmt: skip
_N_LOOKED_AT = 1000
_MAX_CLASSES = 1000


def guess_columns(sources: Sequence[Source], index: FileIndex, options: DataOptions) -> Columns:
    """Which column holds what; what the user names is taken as it is.

    Raises:
        DataError: no column holds images or labels, or several could.
        StudyError: the user names a column of splits, and each table is of one split.
    """
    table = sources[0].table
    given = (options.label,) if isinstance(options.label, str) else tuple(options.label or ())
    image = options.image or image_column(table, index, {*given, options.group, options.split})
    group = options.group or None
    if options.group is None:
        group = _named_column(table, _GROUPS, {image, *given})
    split = options.split or None
    if options.split is None and all(source.split is None for source in sources):
        split = _split_column(table, {image, group, *given})
    if split is not None and any(source.split is not None for source in sources):
        names = " ".join(source.table.path.name for source in sources)
        fix = "leave it out, or name one table in data.table"
        raise StudyError(f'data.split = "{split}"', f"{names} are the tables of one split each", fix)
    if given:
        return Columns(image, given, group, split)
    labels, notes = _label_columns([source.table for source in sources], {image, group, split}, index, options)
    folds = [name for name in table.columns if _plain(name) in _SPLITS and name not in (split, *labels)]
    if folds and split is None and options.split is None:
        notes += (f'the column "{folds[0]}" names no train, val and test: splits are drawn',)
    return Columns(image, labels, group, split, notes)


def image_column(table: Table, index: FileIndex, taken: Collection[str | None] = ()) -> str:
    """The column that names images: most of its cells are some that exist.

    Raises:
        DataError: there is none, or two name different images.
    """
    rows = table.rows[:: max(1, len(table.rows) // _N_LOOKED_AT)]
    free = [column for column in table.columns if column not in taken]
    found = {column: [_images(row.cells[column], index) for row in rows] for column in free}
    n_different = {column: len(set(filter(None, cells))) for column, cells in found.items()}
    # Numbers of a class or a patient may be names of images too, but of fewer different ones.
    good = [
        column
        for column, cells in found.items()
        if 2 * sum(map(bool, cells)) >= len(rows) and 2 * n_different[column] >= max(n_different.values())
    ]
    named = [column for column in free if _plain(column) in _IMAGES]
    others = [column for column in free if column not in named and _are_files([row.cells[column] for row in rows])]
    likely = [column for column in good if column in named] or good
    if not likely and any(n_different.values()):
        likely = named
    rivals = [] if set(likely) & set(named) else [column for column in (*named, *others) if column not in likely]
    if rivals and likely:
        raise _ask_image(table, [*likely, *rivals])
    if likely and rows:
        first = likely[0]
        for other in likely[1:]:
            if any(one and another and one != another for one, another in zip(found[first], found[other], strict=True)):
                raise _ask_image(table, likely)
        return first
    if named and not rows:
        return named[0]
    shown = ", ".join(f'"{row.cells[table.columns[0]]}"' for row in rows[:3])
    problem = f"no column names images of the folder; found {', '.join(table.columns)} (first cells: {shown})"
    fix = 'name the column of paths or ids in data.image, and check data.path; or set data.layout = "folder"'
    raise table.refusal(problem, fix)


def may_hold_labels(table: Table) -> bool:
    """Whether a table can be one of labels at all, and not merely one of captions or ages beside class folders."""
    binary, possible, divided = _candidates([table], table.columns)
    if any(_plain(column) in _LABELS for column in table.columns) or did_you_mean("label", table.columns):
        return True
    return any(not _describes(column) for column in (*binary, *possible, *divided))


def _images(cell: str, index: FileIndex) -> tuple[str, ...]:
    return (cell,) if leaves_folder(cell) else tuple(index.find(cell))


def _are_files(cells: Sequence[str]) -> bool:
    return bool(cells) and 2 * sum(" " not in cell and has_image_suffix(Path(cell)) for cell in cells) >= len(cells)


def _ask_image(table: Table, columns: Sequence[str]) -> DataError:
    names = ", ".join(f'"{column}"' for column in columns)
    fix = f'name the one that does in data.image, as in data.image = "{columns[0]}"'
    return table.refusal(f"several columns could name the images: {names}", fix)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _describes(name: str) -> bool:
    words = re.findall("[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return not _DESCRIBING.isdisjoint(words) or not words


def _named_column(table: Table, names: Sequence[str], taken: Collection[str | None]) -> str | None:
    by_name = {_plain(column): column for column in reversed(table.columns) if column not in taken}
    return next((by_name[name] for name in names if name in by_name), None)


def _split_column(table: Table, taken: Collection[str | None]) -> str | None:
    """The column that holds nothing but names of splits."""
    found: list[str] = []
    for column in table.columns:
        values = {value.lower() for value in table.values(column)} if column not in taken else set()
        known = values & set(SPLIT_OF_NAME)
        is_named = _plain(column) in _SPLITS
        if known and known == values and (is_named or len({SPLIT_OF_NAME[value] for value in values}) > 1):
            found.append(column)
        elif values and is_named and (known or _plain(column) == "split"):
            odd = sorted(values - known)[0]
            problem = f'column "{column}" has the value "{odd}", which is no split'
            raise table.refusal(problem, 'write train, val or test; or set data.split = "" to have splits drawn')
    if len(found) > 1:
        names = ", ".join(f'"{column}"' for column in found)
        fix = f'name one in data.split, as in data.split = "{found[0]}"'
        raise table.refusal(f"several columns could be the splits: {names}", fix)
    return found[0] if found else None


def _label_columns(
    tables: Sequence[Table], taken: Collection[str | None], index: FileIndex, options: DataOptions
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns, and what the user should know of the choice."""
    own = [column for column in tables[0].columns if column not in taken]
    free = [column for column in own if all(column in table.columns for table in tables)]
    named = sorted((c for c in own if _plain(c) in _LABELS), key=lambda column: _LABELS.index(_plain(column)))
    if named:
        if not all(_say_the_same(tables[0], named[0], other) for other in named[1:]):
            raise _ask_labels(tables[0], own, "several columns could be the labels", named)
        n_folders = index.n_class_folders()
        is_other = n_folders > 1 and n_folders != len({*tables[0].values(named[0])})
        note = f'labels are taken from the column "{named[0]}" (data.label), not from the {n_folders} folders'
        return (named[0],), (note,) if is_other else ()
    binary, possible, divided = _candidates(tables, free)
    others = [column for column in (*possible, *divided) if column not in binary and not _describes(column)]
    if len(binary) > 1:
        findings = tuple(column for column in binary if not _describes(column))
        if options.task == "multilabel" and len(findings) > 1:
            left_out = [column for column in binary if column not in findings]
            note = f"findings are taken from {' '.join(findings)} (data.label)"
            return findings, (f"{note}, not from {' '.join(left_out)}" if left_out else note,)
        rows = [row for table in tables for row in table.rows]
        if not others and findings == binary and options.task in (None, "single") and is_one_hot(rows, binary):
            return binary, ()
        raise _ask_labels(tables[0], free, "several columns could be the labels", [*others, *binary])
    certain = possible if len(possible) == 1 else divided if not possible and len(divided) == 1 else ()
    if not certain:
        seen = "several columns could be the labels" if possible or divided else 'no column "label"'
        raise _ask_labels(tables[0], free, seen, [*possible, *divided])
    if _describes(certain[0]):
        raise _ask_labels(tables[0], free, f'no column "label", and "{certain[0]}" is not taken for it unasked', ())
    if index.n_class_folders() > 1:
        seen = f'the labels could be the column "{certain[0]}", or the folders'
        raise _ask_labels(tables[0], free, seen, certain)
    return certain, (f'labels are taken from the column "{certain[0]}" (data.label)',)


def _candidates(
    tables: Sequence[Table], columns: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The columns of 0 and 1, those with few enough different values for classes, and those of divided findings."""
    values = {column: {cell.lower() for table in tables for cell in table.values(column)} for column in columns}
    n_rows = sum(len(table.rows) for table in tables)
    binary = tuple(c for c in columns if values[c] <= BINARY | EMPTY and values[c] & {"1", "1.0", "true"})
    possible = tuple(c for c in columns if 2 <= len(values[c] - EMPTY) <= min(_MAX_CLASSES, n_rows / 2))
    divided = tuple(c for c in columns if c not in possible and any(DIVIDER in value for value in values[c]))
    return binary, possible, divided


def _say_the_same(table: Table, one: str, other: str) -> bool:
    """Whether two columns differ in words only, as a number and a name of each class do."""
    pairs = {(row.cells[one], row.cells[other]) for row in table.rows}
    return len(pairs) == len({first for first, _ in pairs}) == len({second for _, second in pairs})


def _ask_labels(table: Table, free: Sequence[str], seen: str, candidates: Sequence[str]) -> DataError:
    problem = f"{seen}; found {', '.join(table.columns)}{did_you_mean('label', free)}"
    likely = [column for column in candidates if not _describes(column)]
    example = f', as in data.label = "{likely[0]}"' if len(likely) == 1 else ""
    if len(likely) > 2:
        example = ', one or a list of them; data.task = "multilabel" takes all columns of 0 and 1'
    return table.refusal(problem, f'name the column of labels in data.label{example}; or set data.layout = "folder"')
