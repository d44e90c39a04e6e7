"""The layout `csv`: which folders are read by it, which tables are, and a whole reading of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.layouts import LAYOUTS, Listing
from engine.data.layouts.tabular import CSV, find_tables, has_label_table
from engine.data.options import DataOptions
from engine.errors import DataError
from tests.engine.data.making import make_folder_dataset, save_images, write_lines, write_table

DEFAULTS = DataOptions()

NAMES = [f"scan_{n}" for n in range(8)]
ROWS = [(name, "ab"[n % 2]) for n, name in enumerate(NAMES)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight images in one folder, no table."""
    return save_images(tmp_path / "data", (f"images/{name}.png" for name in NAMES))


def recognised(root: Path) -> str:
    return next(name for name, layout in LAYOUTS.items() if layout.recognises(root))


def labels_of(listing: Listing) -> dict[str, object]:
    return {entry.path: entry.label for entry in listing.entries}


def refused(root: Path, options: DataOptions = DEFAULTS) -> DataError:
    with pytest.raises(DataError) as caught:
        CSV.read(root, options)
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("csv", ";"), ("csv", "\t"), ("tsv", "\t")])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_table_and_its_images(root: Path, suffix: str, delimiter: str, mark: bytes) -> None:
    path = write_table(root / f"labels.{suffix}", "name,label", ROWS, delimiter)
    path.write_bytes(mark + path.read_bytes())
    assert recognised(root) == "csv"
    listing = CSV.read(root, DataOptions())
    assert listing.classes == ("a", "b")
    assert labels_of(listing) == {f"images/{name}.png": label for name, label in ROWS}
    assert {(entry.split, entry.group) for entry in listing.entries} == {(None, None)}
    assert (listing.skipped, listing.warnings, listing.task, listing.group_name) == ((), (), "single", None)


def test_quoted_cells_may_hold_anything(root: Path) -> None:
    rows = [f'"{name}","first, second\nthird; ""fourth""",{label}' for name, label in ROWS]
    write_lines(root / "labels.csv", ["image,remark,label", *rows])
    assert labels_of(CSV.read(root, DataOptions())) == {f"images/{name}.png": label for name, label in ROWS}


def test_groups_and_splits_of_the_table(root: Path) -> None:
    splits = ["train", "train", "Training", "val", "valid", "dev", "test", "Testing"]
    rows = [(name, label, f"p{n // 2}", splits[n]) for n, (name, label) in enumerate(ROWS)]
    write_table(root / "labels.csv", "name,label,PatientID,set", rows)
    listing = CSV.read(root, DataOptions())
    assert [(entry.group, entry.split) for entry in listing.entries] == [
        ("p0", "train"), ("p0", "train"), ("p1", "train"), ("p1", "val"), ("p2", "val"), ("p2", "val"), ("p3", "test"),
        ("p3", "test"),
    ]  # fmt: skip
    assert listing.group_name == "PatientID"
    # ... and what the user says comes before what is found.
    listing = CSV.read(root, DataOptions(group="", split=""))
    assert {(entry.group, entry.split) for entry in listing.entries} == {(None, None)}


def test_task_and_columns_that_the_user_names(root: Path) -> None:
    write_table(root / "labels.csv", "id,label,stage", [(name, label, n % 3) for n, (name, label) in enumerate(ROWS)])
    listing = CSV.read(root, DataOptions(label="stage", task="ordinal"))
    assert (listing.classes, listing.task) == (("0", "1", "2"), "ordinal")


def test_findings_of_a_table(root: Path) -> None:
    write_table(root / "labels.csv", "id,Mass,Edema", [(name, n % 2, n // 4) for n, name in enumerate(NAMES)])
    listing = CSV.read(root, DataOptions(label=("Edema", "Mass")))
    assert (listing.classes, listing.task) == (("Edema", "Mass"), "multilabel")
    assert listing.entries[5].label == (1, 1)


def test_no_images(tmp_path: Path) -> None:
    write_table(tmp_path / "labels.csv", "name,label", ROWS)
    assert refused(tmp_path).problem.startswith("no images under it (looked for a table (.csv, .tsv) of images and")


# Tables


def test_no_table(root: Path) -> None:
    assert not CSV.recognises(root)
    assert refused(root).problem == "no table of labels in it (looked for *.csv *.tsv *.tab)"


def test_several_tables(root: Path) -> None:
    for name in ("one", "two"):
        write_table(root / f"{name}.csv", "name,label", ROWS)
    assert refused(root).problem == "2 tables (one.csv, two.csv)"
    assert refused(root).fix == "name the one with the labels in data.table"
    assert len(CSV.read(root, DataOptions(table="two.csv")).entries) == 8


def test_a_table_in_a_deeper_folder(root: Path) -> None:
    write_table(root / "tables" / "labels.csv", "name,label", ROWS)
    assert not CSV.recognises(root)
    assert len(CSV.read(root, DataOptions(table="tables/labels.csv")).entries) == 8


@pytest.mark.parametrize("table", ["../labels.csv", "/etc/labels.csv"])
def test_a_table_outside(root: Path, table: str) -> None:
    error = refused(root, DataOptions(table=table))
    assert (error.where, error.problem) == (f'data.table = "{table}"', "path leaves the dataset folder")


def test_a_table_that_is_not_there(root: Path) -> None:
    assert refused(root, DataOptions(table="labels.csv")).problem == "no such file"


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_a_table_a_split(root: Path, val: str) -> None:
    # The order of the names is not that of the splits: the columns are those of the training table.
    write_table(root / "test.csv", "name,label", ROWS[6:])
    write_table(root / "train.csv", "name,label,stage", [(*row, "x") for row in ROWS[:4]])
    write_table(root / f"{val}.csv", "name,label", ROWS[4:6])
    write_table(root / "sample_submission.csv", "name,label", ROWS)
    assert [source.split for source in find_tables(root, DataOptions())] == ["train", "val", "test"]
    listing = CSV.read(root, DataOptions())
    assert [entry.split for entry in listing.entries] == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    assert labels_of(listing) == {f"images/{name}.png": label for name, label in ROWS}


def test_two_tables_for_one_split(root: Path) -> None:
    for name in ("train", "val", "valid"):
        write_table(root / f"{name}.csv", "name,label", ROWS)
    assert refused(root).problem == 'ambiguous: "val.csv" and "valid.csv" are both for val'


def test_test_images_without_labels(root: Path) -> None:
    write_table(root / "train.csv", "name,label", ROWS[:4])
    write_table(root / "test.csv", "name", [[name] for name in NAMES[4:]])
    for options in (DataOptions(), DataOptions(table="train.csv")):
        listing = CSV.read(root, options)
        assert len(listing.entries) == 4
        assert listing.warnings[0] == "4 images are in no line of train.csv: ignored"
    left_out = 'test.csv: no column "label", so it is left out'
    assert CSV.read(root, DataOptions()).warnings[1:] == (left_out,)


def test_images_of_one_name_in_the_folders_of_two_splits(tmp_path: Path) -> None:
    names = [f"{n}" for n in range(4)]
    save_images(tmp_path, [f"{split}_images/{name}.png" for split in ("train", "test") for name in names])
    (tmp_path / "train_images" / "3.png").unlink()
    write_table(tmp_path / "train.csv", "id,label", [(name, "ab"[n % 2]) for n, name in enumerate(names)])
    write_table(tmp_path / "test.csv", "id,label", [(name, "ba"[n % 2]) for n, name in enumerate(names)])
    listing = CSV.read(tmp_path, DataOptions())
    assert labels_of(listing) == {
        **{f"train_images/{n}.png": "ab"[n % 2] for n in range(3)},
        **{f"test_images/{n}.png": "ba"[n % 2] for n in range(4)},
    }
    # The training image 3 is missing; the test image of that name is not taken for it.
    assert [(one.path, one.problem) for one in listing.skipped] == [("3", "train.csv line 5: no such image")]


# Recognition


def test_captions_beside_class_folders_are_no_labels(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"a": 6, "b": 6})
    rows = [(f"{n:04d}", f"a {'red' if n % 2 else 'blue'} scene") for n in range(12)]
    write_table(tmp_path / "captions.csv", "id,caption", rows)
    assert not has_label_table(tmp_path)
    assert recognised(tmp_path) == "folder"


def test_people_beside_class_folders_are_no_labels(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path / "train", {"a": 6, "b": 6})
    rows = [(f"{n:04d}", "mf"[n % 2], 40 + n % 3) for n in range(12)]
    write_table(tmp_path / "people.csv", "id,sex,age", rows)
    assert recognised(tmp_path) == "folder"


def test_a_table_that_may_hold_labels_beside_class_folders_is_asked_about(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"a": 6, "b": 6})
    write_table(tmp_path / "meta.csv", "id,ulcerated", [(f"{n:04d}", "yn"[n % 2]) for n in range(12)])
    assert recognised(tmp_path) == "csv"
    error = refused(tmp_path)
    assert error.problem.startswith('the labels could be the column "ulcerated", or the folders; found id, ulcerated')
    assert error.fix.endswith('or set data.layout = "folder"')


def test_folders_of_parts_do_not_become_classes_where_the_table_is_misspelt(tmp_path: Path) -> None:
    save_images(tmp_path, [f"part_{n % 2}/{n}.png" for n in range(8)])
    write_table(tmp_path / "table.csv", "id,lable", [(n, f"{n}") for n in range(8)])
    assert recognised(tmp_path) == "csv"
    assert refused(tmp_path).problem == 'no column "label"; found id, lable; did you mean "lable"?'


def test_captions_beside_one_folder_are_asked_about(root: Path) -> None:
    write_table(root / "captions.csv", "id,caption", [(name, f"{name} in words") for name in NAMES])
    assert recognised(root) == "csv"
    assert refused(root).problem == 'no column "label"; found id, caption'


def test_a_damaged_table_is_told_and_not_passed_over(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"a": 6, "b": 6})
    (tmp_path / "labels.csv").write_bytes(b"id,label\n0001,m\xe9\n")
    assert recognised(tmp_path) == "csv"
    assert refused(tmp_path).problem == "not UTF-8"
