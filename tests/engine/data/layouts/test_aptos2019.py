"""The layout `aptos2019`: grades are ordered, the tables of the splits are taken where they have grades."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.layouts import LAYOUTS
from engine.data.layouts.aptos2019 import APTOS2019
from engine.data.options import DataOptions
from engine.errors import DataError, StudyError
from tests.engine.data.making import save_images, write_lines, write_table

HEADER = "id_code,diagnosis"


def name(n: int) -> str:
    return f"{n:012x}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Training images 0 to 9, test images 10 to 13, the training table."""
    save_images(tmp_path, [f"{'train' if n < 10 else 'test'}_images/{name(n)}.png" for n in range(14)])
    write_table(tmp_path / "train.csv", HEADER, [(name(n), n % 5) for n in range(10)])
    return tmp_path


def test_as_kaggle_gives_it(root: Path) -> None:
    write_table(root / "test.csv", "id_code", [[name(n)] for n in range(10, 14)])
    write_table(root / "sample_submission.csv", HEADER, [(name(n), 0) for n in range(10, 14)])
    assert next(layout for layout in LAYOUTS.values() if layout.recognises(root)) is APTOS2019
    listing = APTOS2019.read(root, DataOptions())
    assert (listing.classes, listing.task) == (("0", "1", "2", "3", "4"), "ordinal")
    assert [(entry.path, entry.label, entry.split, entry.group) for entry in listing.entries] == [
        (f"train_images/{name(n)}.png", str(n % 5), "train", None) for n in range(10)
    ]
    # The grades of a sample submission are no labels, and the test images have none.
    assert listing.warnings == ("4 images are in no line of train.csv: ignored",)


@pytest.mark.parametrize("names", [("train.csv", "valid.csv", "test.csv"), ("train_1.csv", "val.csv", "test.csv")])
def test_with_grades_for_every_split(root: Path, names: tuple[str, str, str]) -> None:
    write_table(root / names[0], HEADER, [(name(n), n % 5) for n in range(8)])
    if names[0] != "train.csv":
        (root / "train.csv").unlink()
    (root / "valid_images").mkdir()
    for n in (8, 9):
        (root / "train_images" / f"{name(n)}.png").rename(root / "valid_images" / f"{name(n)}.png")
    write_table(root / names[1], HEADER, [(name(n), 1) for n in (8, 9)])
    write_table(root / names[2], HEADER, [(name(n), 2) for n in range(10, 14)])
    assert APTOS2019.recognises(root)
    listing = APTOS2019.read(root, DataOptions())
    assert [entry.split for entry in listing.entries] == ["train"] * 8 + ["val"] * 2 + ["test"] * 4
    assert {entry.label for entry in listing.entries if entry.split == "test"} == {"2"}


def test_a_missing_training_image_is_not_the_test_image_of_that_name(root: Path) -> None:
    (root / "train_images" / f"{name(3)}.png").rename(root / "test_images" / f"{name(3)}.png")
    listing = APTOS2019.read(root, DataOptions())
    assert [(one.path, one.problem) for one in listing.skipped] == [(name(3), "train.csv line 5: no such image")]


def test_two_training_tables(root: Path) -> None:
    write_table(root / "train_1.csv", HEADER, [(name(0), 0)])
    assert not APTOS2019.recognises(root)
    with pytest.raises(DataError) as caught:
        APTOS2019.read(root, DataOptions())
    assert caught.value.problem == 'ambiguous: "train.csv" and "train_1.csv" are both for train'


def test_other_tables_are_not_recognised(root: Path) -> None:
    for header in ("id_code,grade", "id,diagnosis"):
        write_table(root / "train.csv", header, [(name(0), 0)])
        assert not APTOS2019.recognises(root)
    write_lines(root / "train.csv", ["id_code,diagnosis", "1,2,3"])
    assert not APTOS2019.recognises(root)
    (root / "train.csv").unlink()
    assert not APTOS2019.recognises(root)


def test_no_table_and_no_images(root: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "none" / "train.csv", HEADER, [(name(0), 0)])
    with pytest.raises(DataError, match=r"no images under it \(looked for train.csv with id_code and diagnosis"):
        APTOS2019.read(tmp_path / "none", DataOptions())
    (root / "train.csv").unlink()
    with pytest.raises(DataError) as caught:
        APTOS2019.read(root, DataOptions())
    assert caught.value.problem.startswith("no images under it (looked for train.csv with id_code and diagnosis")
    assert caught.value.fix == "put train.csv beside the folder of its images"


def test_grade_that_is_none(root: Path) -> None:
    write_table(root / "train.csv", HEADER, [(name(0), 0), (name(1), "severe")])
    with pytest.raises(DataError, match=r'train.csv line 3: grade "severe" is out of range; need a number from 0'):
        APTOS2019.read(root, DataOptions())


@pytest.mark.parametrize("setting", ["table", "image", "label", "split"])
def test_settings_that_have_no_place(root: Path, setting: str) -> None:
    with pytest.raises(StudyError, match=f"^data.{setting} = 'x': the layout \"aptos2019\" has no place for it"):
        APTOS2019.read(root, DataOptions(**{setting: "x"}))  # type: ignore[arg-type]


def test_task_and_group_of_the_user(root: Path) -> None:
    write_table(root / "train.csv", f"{HEADER},eye", [(name(n), n % 5, n // 2) for n in range(10)])
    listing = APTOS2019.read(root, DataOptions(task="single", group="eye"))
    assert (listing.task, listing.group_name, listing.entries[3].group) == ("single", "eye", "1")
