"""Which image a cell means: never another one that is merely called alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.layouts.file_index import FileIndex, leaves_folder, refuse_unlisted, stem_of
from engine.errors import DataError


def index_of(root: Path, *paths: str) -> FileIndex:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()  # listed by name, never opened
    return FileIndex(root, follow_links=False)


@pytest.mark.parametrize("cell", ["x", "x.png", "./x.png"])
def test_a_name_means_the_image_anywhere(tmp_path: Path, cell: str) -> None:
    assert index_of(tmp_path, "deep/er/x.png", "deep/y.png").find(cell) == ["deep/er/x.png"]


@pytest.mark.parametrize("cell", ["x.jpg", "X", "x.pn", "x1", "", ".png", "x.png.png", "deep"])
def test_a_name_that_is_merely_alike(tmp_path: Path, cell: str) -> None:
    assert index_of(tmp_path, "deep/x.png", "x10.png").find(cell) == []


@pytest.mark.parametrize("cell", ["a/x.png", "a/x", "./a/x.png", "data/a/x.png", "/data/set/a/x"])
def test_a_path_below_the_root_or_above_it(tmp_path: Path, cell: str) -> None:
    assert index_of(tmp_path, "a/x.png", "b/x.png").find(cell) == ["a/x.png"]


@pytest.mark.parametrize("cell", ["c/x.png", "a/b/x.png", "b/a/x.png", "a/../b/x.png", "A/x.png", "a/x.jpg"])
def test_a_path_never_means_an_image_of_that_name_elsewhere(tmp_path: Path, cell: str) -> None:
    assert index_of(tmp_path, "a/x.png", "b/x.png").find(cell) == []


def test_an_image_of_two_formats_is_two(tmp_path: Path) -> None:
    index = index_of(tmp_path, "x.png", "x.jpg")
    assert sorted(index.find("x")) == ["x.jpg", "x.png"]
    assert index.find("x.png") == ["x.png"]
    assert sorted(index_of(tmp_path / "deeper", "a/x.png", "a/x.jpg").find("a/x")) == ["a/x.jpg", "a/x.png"]


def test_images_of_one_name_are_all_given(tmp_path: Path) -> None:
    assert sorted(index_of(tmp_path, "a/x.png", "b/x.png").find("x")) == ["a/x.png", "b/x.png"]


def test_a_table_of_a_split_means_the_images_of_that_split(tmp_path: Path) -> None:
    index = index_of(tmp_path, "train_images/x.png", "test_images/x.png", "test_images/y.png", "more/z.png")
    assert index.find("x", "train") == ["train_images/x.png"]
    assert index.find("x", "test") == ["test_images/x.png"]
    assert index.find("z", "train") == ["more/z.png"]
    # y is missing among the training images: the one of that name is a test image.
    assert index.find("y", "train") == []
    assert index.find("x", "val") == []


@pytest.mark.parametrize("folder", ["strain", "contest", "evaluation", "interval/x", "train_val"])
def test_folders_that_are_called_like_no_split(tmp_path: Path, folder: str) -> None:
    index = index_of(tmp_path, f"{folder}/x.png", "other/x.png")
    for split in ("train", "val", "test"):
        assert len(index.find("x", split)) == 2


def test_own_split_comes_before_a_folder_of_none(tmp_path: Path) -> None:
    index = index_of(tmp_path, "images/train/x.png", "thumbnails/x.png")
    assert index.find("x", "train") == ["images/train/x.png"]
    assert index.find("x", "test") == ["thumbnails/x.png"]
    assert len(index.find("x")) == 2


def test_what_is_above_the_root(tmp_path: Path) -> None:
    index = index_of(tmp_path, "train/p1/x.png", "top.png")
    assert index.below_root("CheXpert-v1.0/train/p1/x.png") == ("CheXpert-v1.0", "train/p1/x.png")
    assert index.below_root("train/p1/x.png") == ("", "train/p1/x.png")
    assert index.below_root("a/b/top.png") == ("a/b", "top.png")
    assert index.below_root("a/b/none.png") == ("a/b", "none.png")


@pytest.mark.parametrize(
    ("paths", "n"),
    [
        (["a/x.png", "b/y.png"], 2),
        (["images/x.png", "images/y.png"], 1),
        (["x.png", "y.png"], 0),
        (["train/x.png", "test/y.png"], 0),
        (["train_images/x.png", "test_images/y.png", "y.png"], 0),
        (["train/a/x.png", "test/a/x.png", "test/b/x.png"], 2),
        (["images/train/x.png", "images/test/x.png"], 1),
    ],
)
def test_folders_that_could_be_classes(tmp_path: Path, paths: list[str], n: int) -> None:
    assert index_of(tmp_path, *paths).n_class_folders() == n


@pytest.mark.parametrize("name", ["1.2.840.113", "a", "a.b", "a.txt", "."])
def test_a_dot_alone_makes_no_suffix(name: str) -> None:
    assert stem_of(name) == name
    assert stem_of(f"{name}.DCM") == name


@pytest.mark.parametrize(
    ("cell", "leaves"),
    [("a/b", False), ("a/../b", False), ("..", True), ("a/../../b", True), ("/a", True), ("", False), ("a..b", False)],
)
def test_paths_that_leave_the_folder(cell: str, leaves: bool) -> None:
    assert leaves_folder(cell) is leaves


def test_no_images_at_all(tmp_path: Path) -> None:
    refuse_unlisted(tmp_path, index_of(tmp_path / "some", "x.png"), "images")
    with pytest.raises(DataError) as caught:
        refuse_unlisted(tmp_path, index_of(tmp_path / "none", "x.txt"), "images")
    assert str(caught.value) == (
        f"{tmp_path}: no images under it (looked for images)\n"
        "  fix: give the folder that holds the images and their table"
    )
