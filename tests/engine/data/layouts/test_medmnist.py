"""The layout `medmnist`: published sets by name, any other file of the form, and each way in which one is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.data.layouts import LAYOUTS
from engine.data.layouts.medmnist import CLASSES, MEDMNIST, npz_path
from engine.data.options import DataOptions
from engine.errors import DataError, StudyError
from tests.engine.data.making import make_folder_dataset, save_arrays

DEFAULTS = DataOptions()

Arrays = dict[str, NDArray[np.generic]]


def arrays_of(**labels: object) -> Arrays:
    """Grey images of 3 x 4 pixels for the labels of each split."""
    found: Arrays = {}
    for split, values in labels.items():
        found[f"{split}_labels"] = np.array(values, dtype=np.int64)
        found[f"{split}_images"] = np.zeros((len(found[f"{split}_labels"]), 3, 4), np.uint8)
    return found


def recognised(root: Path) -> str | None:
    return next((name for name, layout in LAYOUTS.items() if layout.recognises(root)), None)


def refused(path: Path, options: DataOptions = DEFAULTS, **arrays: NDArray[np.generic]) -> str:
    with pytest.raises(DataError) as caught:
        MEDMNIST.read(save_arrays(path, **arrays), options)
    assert caught.value.fix
    return str(caught.value).partition("\n")[0].removeprefix(str(path)).lstrip(": ")


@pytest.mark.parametrize("is_column", [True, False])
def test_any_file_of_the_form(tmp_path: Path, is_column: bool) -> None:
    shape = (-1, 1) if is_column else (-1,)
    arrays = arrays_of(train=[2, 0, 1], val=[1], test=[0, 2])
    arrays = {name: values.reshape(shape) if "labels" in name else values for name, values in arrays.items()}
    path = save_arrays(tmp_path / "my.npz", **arrays)
    assert recognised(path) == recognised(tmp_path) == "medmnist"
    for root in (path, tmp_path):
        listing = MEDMNIST.read(root, DataOptions())
        assert (listing.classes, listing.task) == (("0", "1", "2"), "single")
        assert [(entry.id, entry.path, entry.label, entry.split) for entry in listing.entries] == [
            ("train_images/00000000", "train_images/00000000", "2", "train"),
            ("train_images/00000001", "train_images/00000001", "0", "train"),
            ("train_images/00000002", "train_images/00000002", "1", "train"),
            ("val_images/00000000", "val_images/00000000", "1", "val"),
            ("test_images/00000000", "test_images/00000000", "0", "test"),
            ("test_images/00000001", "test_images/00000001", "2", "test"),
        ]


@pytest.mark.parametrize("name", ["pathmnist.npz", "pathmnist_64.npz", "PathMNIST_224.npz"])
def test_published_names(tmp_path: Path, name: str) -> None:
    listing = MEDMNIST.read(save_arrays(tmp_path / name, **arrays_of(train=[[8], [0]])), DataOptions())
    assert listing.classes == CLASSES["pathmnist"]
    assert [entry.label for entry in listing.entries] == ["colorectal adenocarcinoma epithelium", "adipose"]


def test_published_sets_have_the_published_numbers_of_classes() -> None:
    assert {name: len(classes) for name, classes in CLASSES.items()} == {
        "pathmnist": 9, "chestmnist": 14, "dermamnist": 7, "octmnist": 4, "pneumoniamnist": 2, "retinamnist": 5,
        "breastmnist": 2, "bloodmnist": 8, "tissuemnist": 8, "organamnist": 11, "organcmnist": 11, "organsmnist": 11,
    }  # fmt: skip
    assert all(len(set(classes)) == len(classes) for classes in CLASSES.values())


def test_retinamnist_is_ordinal_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    path = save_arrays(tmp_path / "retinamnist_128.npz", **arrays_of(train=[[4], [0]]))
    assert MEDMNIST.read(path, DataOptions()).task == "ordinal"
    assert MEDMNIST.read(path, DataOptions(task="single")).task == "single"


def test_several_columns_are_findings(tmp_path: Path) -> None:
    path = save_arrays(tmp_path / "my.npz", **arrays_of(train=[[1, 0], [1, 1]], test=[[0, 0]]))
    listing = MEDMNIST.read(path, DataOptions())
    assert (listing.classes, listing.task) == (("0", "1"), "multilabel")
    assert [entry.label for entry in listing.entries] == [(1, 0), (1, 1), (0, 0)]
    chest = save_arrays(tmp_path / "chestmnist.npz", **arrays_of(train=[[1] * 14, [0] * 14]))
    assert MEDMNIST.read(chest, DataOptions()).classes == CLASSES["chestmnist"]


def test_colour_images(tmp_path: Path) -> None:
    arrays = arrays_of(train=[0, 1]) | {"train_images": np.zeros((2, 3, 4, 3), np.uint8)}
    assert len(MEDMNIST.read(save_arrays(tmp_path / "my.npz", **arrays), DataOptions()).entries) == 2


# Recognition


def test_another_archive_beside_class_folders_is_passed_over(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"a": 2, "b": 2})
    save_arrays(tmp_path / "features.npz", x=np.zeros(3))
    assert recognised(tmp_path) == "folder"
    (tmp_path / "features.npz").write_bytes(b"damaged")
    assert recognised(tmp_path) == "folder"


def test_a_damaged_archive_alone_is_told(tmp_path: Path) -> None:
    (tmp_path / "my.npz").write_bytes(b"damaged")
    assert recognised(tmp_path) == recognised(tmp_path / "my.npz") == "medmnist"
    with pytest.raises(DataError, match=r"my.npz: not an .npz file"):
        MEDMNIST.read(tmp_path, DataOptions())


def test_two_archives_are_none(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_arrays(tmp_path / f"{name}.npz", **arrays_of(train=[0, 1]))
    assert npz_path(tmp_path) is None
    assert recognised(tmp_path) is None
    assert npz_path(tmp_path / "one.npz") == tmp_path / "one.npz"
    assert npz_path(tmp_path / "nothing") is None
    with pytest.raises(DataError) as caught:
        MEDMNIST.read(tmp_path, DataOptions())
    assert (
        caught.value.problem == "no images under it (looked for an .npz file with {train,val,test}_images and _labels)"
    )
    assert caught.value.fix == "give the .npz file"


# What is wrong


def test_other_arrays(tmp_path: Path) -> None:
    assert refused(tmp_path / "a.npz", x=np.zeros(2), y=np.zeros(2)) == "no train_images in it; found x, y"
    assert refused(tmp_path / "b.npz") == "no train_images in it; found nothing"


def test_images_without_labels(tmp_path: Path) -> None:
    arrays = arrays_of(train=[0, 1], test=[0])
    del arrays["test_labels"]
    assert refused(tmp_path / "a.npz", **arrays) == "no test_labels in it"


@pytest.mark.parametrize(
    ("images", "seen"),
    [
        (np.zeros((2, 3, 4, 5), np.uint8), "3-D volumes"),
        (np.zeros((2, 3, 4, 5, 1), np.uint8), "3-D volumes"),
        (np.zeros((2, 3, 4, 3), np.float32), "float32 (2, 3, 4, 3)"),
        (np.zeros((2, 12), np.uint8), "uint8 (2, 12)"),
        (np.zeros((2, 3, 4), np.uint16), "uint16 (2, 3, 4)"),
    ],
)
def test_images_of_another_form(tmp_path: Path, images: NDArray[np.generic], seen: str) -> None:
    assert refused(tmp_path / "a.npz", **(arrays_of(train=[0, 1]) | {"train_images": images})) == (
        f"train_images are {seen}; need uint8 (n, height, width) or (n, height, width, 3)"
    )


@pytest.mark.parametrize(
    ("labels", "seen"),
    [
        (np.zeros(2, np.float32), "float32 (2, 1)"),
        (np.zeros((3, 1), np.int64), "int64 (3, 1)"),
        (np.zeros((2, 1, 1), np.int64), "int64 (2, 1, 1)"),
        (np.zeros((2, 0), np.int64), "int64 (2, 0)"),
        (np.array(["a", "b"]), "<U1 (2, 1)"),
    ],
)
def test_labels_of_another_form(tmp_path: Path, labels: NDArray[np.generic], seen: str) -> None:
    assert refused(tmp_path / "a.npz", **(arrays_of(train=[0, 1]) | {"train_labels": labels})) == (
        f"train_labels are {seen} for 2 images; need integers, one row each"
    )


def test_splits_of_different_forms(tmp_path: Path) -> None:
    assert refused(tmp_path / "a.npz", **arrays_of(train=[[1, 0], [0, 1]], test=[[1]])) == (
        "labels have different numbers of columns (train 2, test 1)"
    )


@pytest.mark.parametrize(
    ("name", "labels", "problem"),
    [
        ("breastmnist", [[0], [2]], "label 2 is out of range; need 0 to 1"),
        ("my", [[0], [-1]], "label -1 is out of range; need 0 to 0"),
        ("my", [[1, 0], [0, 2]], "label 2 is out of range; need 0 to 1"),
    ],
)
def test_label_out_of_range(tmp_path: Path, name: str, labels: object, problem: str) -> None:
    found = refused(tmp_path / f"{name}.npz", **arrays_of(train=labels))
    assert found == f"train_labels row 1: {problem}"


@pytest.mark.parametrize(("labels", "task", "n"), [([[0], [1]], "multilabel", 1), ([[0, 1], [1, 1]], "single", 2)])
def test_task_that_does_not_fit(tmp_path: Path, labels: object, task: str, n: int) -> None:
    options = DataOptions(task=task)  # type: ignore[arg-type]
    problem = f'labels have {n} columns, which does not fit data.task = "{task}"'
    assert refused(tmp_path / "a.npz", options, **arrays_of(train=labels)) == problem


@pytest.mark.parametrize("setting", ["table", "image", "label", "split", "group"])
def test_settings_that_have_no_place(tmp_path: Path, setting: str) -> None:
    path = save_arrays(tmp_path / "a.npz", **arrays_of(train=[0, 1]))
    with pytest.raises(StudyError, match=f"^data.{setting} = 'x': the layout \"medmnist\" has no place for it"):
        MEDMNIST.read(path, DataOptions(**{setting: "x"}))  # type: ignore[arg-type]
