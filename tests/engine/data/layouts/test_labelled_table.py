"""From tables of known columns to a listing: every line is the right image's, or an error that names it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from engine.data.layouts import Listing
from engine.data.layouts.file_index import FileIndex
from engine.data.layouts.labelled_table import Columns, Source, read_tables
from engine.data.options import DataOptions
from engine.data.table import read_table
from engine.errors import DataError
from tests.engine.data.making import write_lines

DEFAULTS = DataOptions()

COLUMNS = Columns("image", ("label",))


def read(
    root: Path, *lines: str, columns: Columns = COLUMNS, options: DataOptions = DEFAULTS, split: str | None = None
) -> Listing:
    table = read_table(write_lines(root / "t.csv", lines))
    return read_tables(root, [Source(table, split)], columns, FileIndex(root, follow_links=False), options)


def refused(root: Path, *lines: str, columns: Columns = COLUMNS) -> str:
    with pytest.raises(DataError) as caught:
        read(root, *lines, columns=columns)
    assert caught.value.fix
    return f"{Path(caught.value.where).name}: {caught.value.problem}"


def with_images(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return with_images(tmp_path / "data", "p1/x.png", "p1/y.png", "p2/x.png", "z.png")


def test_entries_skipped_and_unlisted(root: Path) -> None:
    listing = read(root, "image,label", "p1/x.png,a", "p1/gone.png,b", "z,b")
    assert [(entry.id, entry.path, entry.label) for entry in listing.entries] == [
        ("p1/x.png", "p1/x.png", "a"), ("z.png", "z.png", "b"),
    ]  # fmt: skip
    assert [(one.path, one.problem) for one in listing.skipped] == [("p1/gone.png", "t.csv line 3: no such image")]
    assert listing.warnings == ("2 images are in no line of t.csv: ignored",)


@pytest.mark.parametrize("path", ["p2/y.png", "p3/x.png", "p2/z.png", "P1/x.png", "p1/x.jpg", "p1/x.png.png"])
def test_a_missing_image_never_becomes_one_that_is_called_alike(root: Path, path: str) -> None:
    listing = read(root, "image,label", f"{path},a", "p1/y,b")
    assert [entry.path for entry in listing.entries] == ["p1/y.png"]
    assert [one.path for one in listing.skipped] == [path]


def test_a_name_that_exists_in_two_folders(root: Path) -> None:
    assert refused(root, "image,label", "z,a", "x,b") == 't.csv line 3: "x" can be 2 images (p1/x.png, p2/x.png)'


def test_one_image_on_two_lines(root: Path) -> None:
    assert refused(root, "image,label", "z,a", "p1/x.png,b", "z.png,a") == 't.csv: id "z.png" on lines 2 and 4'
    assert refused(root, "image,label", "gone,a", "z,b", "gone,a") == 't.csv: id "gone" on lines 2 and 4'


def test_one_image_in_two_tables(root: Path) -> None:
    index = FileIndex(root, follow_links=False)
    sources = [
        Source(read_table(write_lines(root / f"{split}.csv", ["image,label", *lines])), split)
        for split, lines in (("train", ["z,a", "p1/x,b"]), ("test", ["p1/y,a", "z.png,b"]))
    ]
    with pytest.raises(DataError) as caught:
        read_tables(root, sources, COLUMNS, index, DataOptions())
    assert caught.value.problem == 'id "z.png" on line 2 of train.csv and line 3 of test.csv'


@pytest.mark.parametrize("cell", ["../z.png", "/etc/passwd", "p1/../../z.png"])
def test_path_out_of_the_folder(root: Path, cell: str) -> None:
    problem = f't.csv line 3: path leaves the dataset folder ("{cell}")'
    assert refused(root, "image,label", "z,a", f"{cell},b") == problem


@pytest.mark.parametrize("cell", ["", "NaN"])
def test_line_without_an_image(root: Path, cell: str) -> None:
    assert refused(root, "image,label", "z,a", f"{cell},b") == "t.csv line 3: image is empty"


def test_paths_that_begin_above_the_root(root: Path) -> None:
    listing = read(root, "image,label", "set/p1/x.png,a", "set/p2/x.png,b", "set/z.png,b")
    assert [entry.path for entry in listing.entries] == ["p1/x.png", "p2/x.png", "z.png"]


def test_images_of_another_folder_above_are_not_those_of_this_one(root: Path) -> None:
    # The user gave the folder of site A, and both sites have a p1/x.png.
    assert refused(root, "image,label", "A/p1/x.png,a", "B/p2/x.png,b") == (
        't.csv line 3: paths begin in different folders above the dataset\'s ("A" and "B")'
    )
    assert refused(root, "image,label", "p1/x.png,a", "B/p2/x.png,b") == (
        't.csv line 3: paths begin in different folders above the dataset\'s ("" and "B")'
    )


def test_table_without_lines(root: Path) -> None:
    assert refused(root, "image,label") == "t.csv: no images in it"


@pytest.mark.parametrize("name", ["image", "label", "group", "split"])
def test_missing_column(root: Path, name: str) -> None:
    columns = replace(COLUMNS, **{name: ("other",) if name == "label" else "other"})  # type: ignore[arg-type]
    assert refused(root, "image,label", "z,a", columns=columns) == 't.csv: no column "other"; found image, label'


def test_groups_and_splits(root: Path) -> None:
    lines = ["image,label,g,s", "z,a,1,train", "p1/x,b,,TEST", "p1/y,a,nan,Valid"]
    listing = read(root, *lines, columns=Columns("image", ("label",), "g", "s", ("a note",)))
    assert [(entry.group, entry.split) for entry in listing.entries] == [("1", "train"), (None, "test"), (None, "val")]
    assert listing.group_name == "g"
    assert listing.warnings[0] == "a note"


def test_groups_that_are_all_empty_are_none(root: Path) -> None:
    listing = read(root, "image,label,g", "z,a,", "p1/x,b,NA", columns=Columns("image", ("label",), "g"))
    assert listing.group_name is None


def test_split_that_is_none(root: Path) -> None:
    columns = Columns("image", ("label",), None, "s")
    problem = 't.csv line 3: s is "fold 1"; need train, val or test'
    assert refused(root, "image,label,s", "z,a,train", "p1/x,b,fold 1", columns=columns) == problem


def test_group_by_path_and_row(root: Path) -> None:
    table = read_table(write_lines(root / "t.csv", ["image,label", "p1/x,a", "p1/y,b"]))
    listing = read_tables(
        root, [Source(table, "train")], COLUMNS, FileIndex(root, follow_links=False), DataOptions(),
        group_of=lambda path, row: f"{path} {row.line}", group_name="person",
    )  # fmt: skip
    assert [entry.group for entry in listing.entries] == ["p1/x.png 2", "p1/y.png 3"]
    assert {entry.split for entry in listing.entries} == {"train"}
    assert listing.group_name == "person"


@pytest.mark.parametrize(("cells", "task"), [(["0", "1"], "ordinal"), (["a", "b"], "single")])
def test_the_users_task_comes_before_the_layouts(root: Path, cells: Sequence[str], task: str) -> None:
    table = read_table(write_lines(root / "t.csv", ["image,label", f"z,{cells[0]}", f"p1/x,{cells[1]}"]))
    index = FileIndex(root, follow_links=False)
    options = DataOptions(task=task)  # type: ignore[arg-type]
    assert read_tables(root, [Source(table)], COLUMNS, index, options, task="multilabel").task == task
    assert read_tables(root, [Source(table)], COLUMNS, index, DataOptions(), task="multilabel").task == "multilabel"
