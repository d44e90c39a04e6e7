"""Datasets as they lie on people's disks: what must never be taken silently, and what should simply work."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from engine.data.manifest import Manifest
from engine.data.options import DataOptions
from engine.data.read import read_dataset
from engine.errors import DataError
from tests.engine.data.making import make_folder_dataset, save_image, write_lines


def refusal(root: Path, **options: object) -> DataError:
    with pytest.raises(DataError) as caught:
        read_dataset(root, DataOptions(**options))  # type: ignore[arg-type]
    return caught.value


def read(root: Path, **options: object) -> Manifest:
    return read_dataset(root, DataOptions(**options))  # type: ignore[arg-type]


def table(root: Path, lines: list[str], n: int = 24, name: str = "labels.csv", suffix: str = ".png") -> Path:
    for number in range(n):
        save_image(root / "img" / f"{number:03d}{suffix}", number)
    write_lines(root / name, lines)
    return root


def test_folders_that_speak_of_splits_are_splits(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path / "training_set", {"polyp": 12, "normal": 12})
    make_folder_dataset(tmp_path / "test_set", {"polyp": 4, "normal": 4}, first_seed=500)
    manifest = read(tmp_path)
    assert manifest.classes == ("normal", "polyp") and len(manifest.of_split("test")) == 8


def test_folders_that_speak_of_splits_without_class_folders_are_no_classes(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"train_images": 12, "test_images": 12})
    assert refusal(tmp_path).problem.endswith("are called like splits, and hold images without class folders")


def test_hospitals_with_a_folder_a_class_are_no_classes(tmp_path: Path) -> None:
    for number, site in enumerate(("siteA", "siteB", "siteC")):
        make_folder_dataset(tmp_path / site, {"polyp": 5, "normal": 5}, first_seed=100 * number)
    problem = refusal(tmp_path).problem
    assert problem == (
        '"siteA" and "siteB" and "siteC" hold the same folders ("normal" "polyp"): which are the classes?'
    )
    assert read(tmp_path, layout="folder").classes == ("siteA", "siteB", "siteC")


def test_images_and_their_masks_are_no_classes(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"images": 12, "masks": 12})
    assert refusal(tmp_path).problem.endswith("are called like images and their masks, not like classes")


def test_masks_beside_their_images_are_left_out_and_said(tmp_path: Path) -> None:
    for number in range(24):
        name = ("benign", "malignant")[number % 2]
        save_image(tmp_path / name / f"{name} ({number}).png", number)
        save_image(tmp_path / name / f"{name} ({number})_mask.png", 100 + number)
    save_image(tmp_path / "benign" / "benign (0)_mask_1.png", 900)
    save_image(tmp_path / "benign" / "a_mask.png", 901)  # of no image: it is one
    manifest = read(tmp_path)
    assert len(manifest.items) == 25
    assert '25 files are masks of other images by their names (first: "benign/benign (0)_mask.png"): ignored' in (
        manifest.warnings
    )


def test_dicom_in_class_folders_is_grouped_by_patient(tmp_path: Path) -> None:
    source = Path(get_testdata_file("MR_small.dcm", download=False))  # type: ignore[arg-type]
    for number in range(40):
        dataset = pydicom.dcmread(source)
        dataset.PatientID, dataset.StationName = f"P{number // 4}", f"S{number % 3}"
        dataset.SOPInstanceUID = f"1.2.{number}"
        path = tmp_path / ("a", "b")[number // 4 % 2] / f"IM{number:03d}"
        path.parent.mkdir(exist_ok=True)
        dataset.save_as(path)
    manifest = read(tmp_path)
    assert manifest.group_name == "PatientID" and len(manifest.items) == 40
    for patient in range(10):
        assert len({item.split for item in manifest.items if item.group == f"P{patient}"}) == 1
    assert read(tmp_path, group="").group_name is None
    assert refusal(tmp_path, group="PatientName").problem == 'the headers do not differ in "PatientName"'


def test_numbers_of_people_and_studies_are_no_labels(tmp_path: Path) -> None:
    lines = [f"img/{n:03d}.png,{9000 + n % 4},AP" for n in range(24)]
    assert refusal(table(tmp_path, ["dicom_id,study_id,ViewPosition", *lines])).problem.startswith('no column "label"')


def test_labels_of_a_table_beside_class_folders_are_said(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"g0": 8, "g1": 8, "g2": 8})
    paths = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    write_lines(tmp_path / "t.csv", ["path,grade", *(f"{path},{'xy'[n % 2]}" for n, path in enumerate(paths))])
    said = 'labels are taken from the column "grade" (data.label), not from the 3 folders'
    assert said in read(tmp_path).warnings


def test_which_column_holds_what_is_always_said(tmp_path: Path) -> None:
    lines = [f"img/{n:03d}.png,{'ab'[n % 2]},p{n // 2}" for n in range(24)]
    # Each patient has both labels.
    manifest = read(table(tmp_path, ["file,label,patient_id", *lines]))
    assert manifest.read_from == 'labels.csv: images "file", labels "label", groups "patient_id"'


def test_classes_that_differ_in_capital_letters_are_a_mistake(tmp_path: Path) -> None:
    lines = [f"img/{n:03d}.png,{('benign', 'Benign', 'cancer')[n % 3]}" for n in range(24)]
    problem = refusal(table(tmp_path, ["file,label", *lines])).problem
    assert problem == 'classes "Benign" and "benign" differ only in capital letters or spaces'


def test_numbers_of_a_spreadsheet_are_one_class_and_one_patient(tmp_path: Path) -> None:
    lines = [f"img/{n:03d}.png,{('0', '1.0', '0.0', '1')[n % 4]},{n // 4}{('', '.0')[n % 2]}" for n in range(24)]
    manifest = read(table(tmp_path, ["file,label,patient_id", *lines]))
    assert manifest.classes == ("0", "1") and {item.group for item in manifest.items} == {str(n) for n in range(6)}


def test_numbered_classes_may_be_grades(tmp_path: Path) -> None:
    lines = [f"img/{n:03d}.png,{n % 4}" for n in range(24)]
    root = table(tmp_path, ["image,level", *lines])
    assert 'classes are numbers (0 1 2 3): if they are grades, set data.task = "ordinal"' in read(root).warnings
    assert read(root, task="ordinal").task == "ordinal"


def test_a_finding_without_known_negatives_cannot_be_learnt(tmp_path: Path) -> None:
    lines = [f"img/{n:03d}.png,{(1, '')[n % 2]},{n % 3 == 0:d}" for n in range(24)]
    root = table(tmp_path, ["file,edema,mass", *lines])
    problem = refusal(root, label=("edema", "mass"), blank="ignore").problem
    assert problem == 'no training image is known to be without "edema"'
    assert read(root, label=("edema", "mass")).classes == ("edema", "mass")


def test_official_splits_can_be_put_aside(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path / "train", {"a": 12, "b": 12})
    make_folder_dataset(tmp_path / "test", {"a": 4, "b": 4}, first_seed=500)
    shutil.copy(tmp_path / "train" / "a" / "0000.png", tmp_path / "test" / "a" / "copy.png")
    assert 'set data.split = "" to have splits drawn' in refusal(tmp_path).fix
    manifest = read(tmp_path, split="")
    assert len({item.split for item in manifest.items if item.path.endswith(("0000.png", "copy.png"))}) == 1


def test_a_named_table_is_read_wherever_it_lies(tmp_path: Path) -> None:
    lines = [f"{n:03d}.png,{'ab'[n % 2]}" for n in range(24)]
    root = table(tmp_path, ["file,label", *lines], name="annotations/labels.csv")
    assert read(root, table="annotations/labels.csv").layout == "csv"


def test_excel_and_windows(tmp_path: Path) -> None:
    lines = [f"img\\{n:03d}.jpg;{'ab'[n % 2]};;" for n in range(24)]
    root = table(tmp_path, ["sep=;", "file;label;;", *lines], suffix=".JPG")
    manifest = read(root)
    assert len(manifest.items) == 24 and manifest.classes == ("a", "b")


def test_a_wrapper_folder_is_named(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path / "Dataset", {"a": 6, "b": 6})
    found = refusal(tmp_path)
    assert found.problem == 'one class only ("Dataset")'
    assert found.fix == f"give {tmp_path / 'Dataset'}, whose folders could be the classes"


def test_what_lies_there_is_named_where_nothing_is_recognised(tmp_path: Path) -> None:
    for number in range(3):
        write_lines(tmp_path / f"{number}.nii.gz", ["x"])
    assert refusal(tmp_path).problem.endswith("found 3 .nii.gz)")
    scans = tmp_path / "scans"
    scans.mkdir()
    shutil.copy(get_testdata_file("MR_small.dcm", download=False), scans / "IM0001")  # type: ignore[arg-type]
    assert refusal(scans).problem.endswith(
        "found 1 without suffix: DICOM, which needs a folder a class or a table of labels)"
    )


def test_all_lines_that_name_an_image_again_are_counted(tmp_path: Path) -> None:
    lines = [f"img/{n % 20:03d}.png,{'ab'[n % 2]}" for n in range(24)]
    problem = refusal(table(tmp_path, ["file,label", *lines])).problem
    assert problem == 'id "img/000.png" on lines 2 and 22; 4 lines name an image again'


def test_lists_of_splits_that_are_not_read_are_said(tmp_path: Path) -> None:
    lines = [f"{n:03d}.png,{'ab'[n % 2]},{n % 3}" for n in range(24)]
    root = table(tmp_path, ["file,label,fold", *lines])
    write_lines(root / "test_list.txt", ["001.png"])
    warnings = read(root).warnings
    assert "test_list.txt are not read: put their splits into a column of the table" in warnings
    assert 'the column "fold" names no train, val and test: splits are drawn' in warnings


@pytest.mark.parametrize("image", [None, "SOPInstanceUID"])
def test_uids_beside_labels_that_could_be_file_names(tmp_path: Path, image: str | None) -> None:
    source = Path(get_testdata_file("MR_small.dcm", download=False))  # type: ignore[arg-type]
    lines = ["SOPInstanceUID,Target"]
    for number in range(24):
        dataset = pydicom.dcmread(source)
        dataset.PatientID, dataset.SOPInstanceUID = f"P{number}", f"1.2.840.{number}"
        dataset.save_as(tmp_path / f"{number}.dcm")
        lines.append(f"1.2.840.{number},{number % 2}")
    write_lines(tmp_path / "labels.csv", lines)
    manifest = read(tmp_path, image=image, label="Target")
    assert manifest.layout == "dicom" and len(manifest.items) == 24 and manifest.classes == ("0", "1")
    assert all(item.label == int(item.path.removesuffix(".dcm")) % 2 for item in manifest.items)
