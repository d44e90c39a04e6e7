"""The layout `folder`: which folders are classes, which are splits, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.data.layouts.folder import FOLDER
from engine.data.options import DataOptions
from engine.errors import DataError, StudyError
from tests.engine.data.making import make_folder_dataset, save_image, write_lines


def problem_of(root: Path, group: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        FOLDER.read(root, DataOptions(group=group))
    return caught.value.problem


def test_a_folder_a_class(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"zebra": 2, "ant": 1})
    assert FOLDER.recognises(tmp_path)
    listing = FOLDER.read(tmp_path, DataOptions())
    assert listing.classes == ("ant", "zebra")
    assert {(entry.id, entry.path, entry.label, entry.split) for entry in listing.entries} == {
        ("zebra/0000.png", "zebra/0000.png", "zebra", None),
        ("zebra/0001.png", "zebra/0001.png", "zebra", None),
        ("ant/0002.png", "ant/0002.png", "ant", None),
    }
    assert listing.warnings == ()


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_folders(tmp_path: Path, val: str) -> None:
    for n, folder in enumerate(["train", val, "Test"]):
        make_folder_dataset(tmp_path / folder, {"a": 1, "b": 1}, first_seed=10 * n)
    assert FOLDER.recognises(tmp_path)
    listing = FOLDER.read(tmp_path, DataOptions())
    assert listing.classes == ("a", "b")
    assert sorted((entry.split, entry.label) for entry in listing.entries) == [
        (split, label) for split in ("test", "train", "val") for label in ("a", "b")
    ]
    assert f"{val}/a/0010.png" in {entry.path for entry in listing.entries}


@pytest.mark.parametrize("name", ["x.jpg", "x.JPEG", "x.png", "x.tif", "x.TIFF", "x.bmp", "x.webp", "x.dcm", "x.IMA"])
def test_suffixes_that_are_images(tmp_path: Path, name: str) -> None:
    if name.lower().endswith((".dcm", ".ima")):
        write_lines(tmp_path / "a" / name, ["listed by its name, opened by nobody"])
    else:
        save_image(tmp_path / "a" / name, 1)
    assert [entry.path for entry in FOLDER.read(tmp_path, DataOptions()).entries] == [f"a/{name}"]


def test_images_in_deeper_folders_belong_to_the_class(tmp_path: Path) -> None:
    save_image(tmp_path / "a" / "patient 1" / "x.png", 1)
    entry = FOLDER.read(tmp_path, DataOptions()).entries[0]
    assert (entry.path, entry.label) == ("a/patient 1/x.png", "a")


def test_hidden_files_are_left_out_and_others_counted(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"a": 1, "b": 1})
    for name in (".hidden.png", ".git/x.png", "a/.DS_Store", "a/.thumbs/x.png"):
        save_image(tmp_path / "x.png", 1)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / "x.png").replace(tmp_path / name)
    write_lines(tmp_path / "README.txt", ["about the dataset, not an image that was overlooked"])
    assert FOLDER.read(tmp_path, DataOptions()).warnings == ()
    write_lines(tmp_path / "a" / "notes.txt", ["text"])
    (tmp_path / "b" / "scan.nii").touch()
    save_image(tmp_path / "stray.png", 1)
    listing = FOLDER.read(tmp_path, DataOptions())
    assert len(listing.entries) == 2
    assert listing.warnings == (
        "3 files are no images by their names, or lie in no class folder: ignored (.nii 1, .png 1, .txt 1)",
    )


def test_folder_without_images_is_not_recognised(tmp_path: Path) -> None:
    save_image(tmp_path / "x.png", 1)
    write_lines(tmp_path / "a" / "notes.txt", ["text"])
    assert not FOLDER.recognises(tmp_path)
    assert FOLDER.read(tmp_path, DataOptions()).entries == ()


def test_split_folders_beside_class_folders_are_ambiguous(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path / "train", {"a": 1, "b": 1})
    make_folder_dataset(tmp_path, {"a": 1}, first_seed=10)
    assert problem_of(tmp_path) == 'ambiguous: split folders ("train"), and "a" beside them holds images too'


def test_two_folders_for_one_split_are_ambiguous(tmp_path: Path) -> None:
    for folder in ("train", "val", "valid"):
        make_folder_dataset(tmp_path / folder, {"a": 1, "b": 1})
    assert problem_of(tmp_path) == 'ambiguous: "val" and "valid" are both for val'


def test_split_folder_without_images(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path / "train", {"a": 1, "b": 1})
    (tmp_path / "val").mkdir()
    assert problem_of(tmp_path) == "no images for val"


def test_there_are_no_groups(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"a": 1, "b": 1})
    assert problem_of(tmp_path, "patient") == 'a folder a class names no groups, so there is no "patient"'


@pytest.mark.parametrize("name", ["table", "image", "label", "split"])
def test_settings_that_have_no_place(tmp_path: Path, name: str) -> None:
    make_folder_dataset(tmp_path, {"a": 1, "b": 1})
    with pytest.raises(StudyError) as caught:
        FOLDER.read(tmp_path, DataOptions(**{name: "x"}))  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"data.{name} = 'x': the layout \"folder\" has no place for it\n")


def test_findings_need_a_table(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"a": 1, "b": 1})
    with pytest.raises(StudyError) as caught:
        FOLDER.read(tmp_path, DataOptions(task="multilabel"))
    assert str(caught.value).startswith(
        'data.task = "multilabel": a folder a class gives one class an image\n  fix: give a table'
    )


def test_grades_are_ordered_by_their_value(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"0": 1, "2": 1, "10": 1})
    listing = FOLDER.read(tmp_path, DataOptions(task="ordinal"))
    assert (listing.classes, listing.task) == (("0", "2", "10"), "ordinal")
    # By name without a word of the user: studies that were begun so keep their labels.
    assert FOLDER.read(tmp_path, DataOptions()).classes == ("0", "10", "2")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("mild", 'grades are numbers, each once: "mild" is no number'),
        ("nan", 'grades are numbers, each once: "nan" is no number'),
        ("01", 'grades are numbers, each once: "01" and "1" are the same number'),
    ],
)
def test_folders_that_are_no_grades(tmp_path: Path, name: str, problem: str) -> None:
    make_folder_dataset(tmp_path, {"0": 1, "1": 1, name: 1})
    with pytest.raises(DataError) as caught:
        FOLDER.read(tmp_path, DataOptions(task="ordinal"))
    assert caught.value.problem == problem


def test_links_out_of_the_dataset_are_followed_if_asked_for(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path / "elsewhere", {"c": 1})
    root = make_folder_dataset(tmp_path / "data", {"a": 1, "b": 1}, first_seed=10)
    (root / "c").symlink_to(tmp_path / "elsewhere" / "c")
    listing = FOLDER.read(root, DataOptions(follow_links=True))
    assert listing.classes == ("a", "b", "c")


def test_a_loop_of_links_ends_and_each_folder_counts_once(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"a": 2, "b": 1})
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "all").symlink_to(tmp_path)
    (tmp_path / "b" / "self").symlink_to(tmp_path / "b" / "self")
    labels = [entry.label for entry in FOLDER.read(tmp_path, DataOptions()).entries]
    # "a/all" leads to the root, and so to b: its images are there under both labels, each once.
    assert sorted(labels) == ["a", "a", "a", "b"]


@pytest.mark.parametrize("place", ["outside", "a/outside", "train/outside"])
def test_folder_link_out_of_the_dataset(tmp_path: Path, place: str) -> None:
    outside = make_folder_dataset(tmp_path / "elsewhere", {"c": 1})
    root = tmp_path / "data"
    make_folder_dataset(root / "train" if place.startswith("train") else root, {"a": 1, "b": 1}, first_seed=10)
    (root / place).symlink_to(outside)
    assert problem_of(root) == "link leads out of the dataset folder"


def test_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder_dataset(tmp_path, {"a": 1, "b": 1})
    scandir = os.scandir

    def refuse(path: Path) -> object:  # chmod would not hold back a test that runs as root
        if path == tmp_path / "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert problem_of(tmp_path) == "cannot be listed (Permission denied)"
