"""The layout `isic2018`: images, one-hot tables, official splits, lesions, and each line that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.layouts.isic2018 import ISIC2018
from engine.data.options import DataOptions
from engine.errors import DataError, StudyError
from tests.engine.data.making import ISIC_CLASSES, make_isic_dataset, save_image, write_ground_truth, write_lines

HEADER = "image,MEL,NV,BCC"


def with_lines(root: Path, lines: list[str]) -> Path:
    """Two training images, and a table of the test's own."""
    make_isic_dataset(root, {"Training": ["MEL", "NV"]})
    write_ground_truth(root, "Training", lines)
    return root


def refused(root: Path, group: str | None = None) -> DataError:
    with pytest.raises(DataError) as caught:
        ISIC2018.read(root, DataOptions(group=group))
    return caught.value


def test_official_splits(tmp_path: Path) -> None:
    make_isic_dataset(tmp_path, {"Training": ["NV", "MEL"], "Validation": ["NV"], "Test": ["BCC"]})
    assert ISIC2018.recognises(tmp_path)
    listing = ISIC2018.read(tmp_path, DataOptions())
    assert listing.classes == ISIC_CLASSES
    assert [(entry.id, entry.label, entry.split, entry.group) for entry in listing.entries] == [
        ("ISIC_0000000", "NV", "train", None),
        ("ISIC_0000001", "MEL", "train", None),
        ("ISIC_0000002", "NV", "val", None),
        ("ISIC_0000003", "BCC", "test", None),
    ]
    assert listing.entries[3].path == "ISIC2018_Task3_Test_Input/ISIC_0000003.jpg"
    assert listing.skipped == listing.warnings == ()


def test_table_beside_the_image_folder(tmp_path: Path) -> None:
    make_isic_dataset(tmp_path, {"Training": ["NV"]})
    nested_path = tmp_path / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv"
    nested_path.rename(tmp_path / nested_path.name)
    nested_path.parent.rmdir()
    assert len(ISIC2018.read(tmp_path, DataOptions()).entries) == 1


def test_no_image_folder(tmp_path: Path) -> None:
    assert not ISIC2018.recognises(tmp_path)
    assert refused(tmp_path).problem.startswith("no images under it (looked for ISIC2018_Task3_Training_Input with")


def test_no_table(tmp_path: Path) -> None:
    save_image(tmp_path / "ISIC2018_Task3_Training_Input" / "ISIC_1.jpg", 1)
    error = refused(tmp_path)
    assert error.where == str(tmp_path / "ISIC2018_Task3_Training_GroundTruth.csv")
    assert error.problem == "no such file"


def test_table_without_lines(tmp_path: Path) -> None:
    assert refused(with_lines(tmp_path, [HEADER])).problem == "no images in it"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("ISIC_0000001,0,1", "3 fields, expected 4"),
        (",0,1,0", "image is empty"),
        ("../../etc/x,0,1,0", 'path leaves the dataset folder ("../../etc/x")'),
        ("/etc/x,0,1,0", 'path leaves the dataset folder ("/etc/x")'),
        ("ISIC_0000001,,,", "label is empty"),
        ("ISIC_0000001,0,NaN,1", "label is empty"),
        ("ISIC_0000001,0,2,0", 'NV is "2"; one-hot values are 0 and 1'),
        ("ISIC_0000001,0,0.5,0.5", 'NV is "0.5"; one-hot values are 0 and 1'),
        ("ISIC_0000001,1,1,0", "2 ones (MEL NV); a one-hot row has exactly one"),
        ("ISIC_0000001,0,0,0", "no one; a one-hot row has exactly one"),
    ],
)
def test_wrong_line(tmp_path: Path, line: str, problem: str) -> None:
    error = refused(with_lines(tmp_path, [HEADER, "ISIC_0000000,1,0,0", line]))
    assert error.where.endswith("ISIC2018_Task3_Training_GroundTruth.csv line 3")
    assert error.problem == problem


def test_missing_image_column(tmp_path: Path) -> None:
    error = refused(with_lines(tmp_path, ["images,MEL,NV", "ISIC_0000000,1,0"]))
    assert error.problem == 'no column "image"; found images, MEL, NV; did you mean "images"?'


def test_tables_of_other_classes(tmp_path: Path) -> None:
    make_isic_dataset(tmp_path, {"Training": ["NV"], "Test": ["NV"]})
    write_ground_truth(tmp_path, "Test", ["image,MEL,NV", "ISIC_0000001,0,1"])
    assert refused(tmp_path).problem == (
        "columns image, MEL, NV; ISIC2018_Task3_Training_GroundTruth.csv has image, MEL, NV, BCC"
    )


def test_image_on_two_lines(tmp_path: Path) -> None:
    lines = [HEADER, "ISIC_0000000,1,0,0", "ISIC_0000001,1,0,0", "ISIC_0000000,1,0,0"]
    assert refused(with_lines(tmp_path, lines)).problem == 'id "ISIC_0000000" on lines 2 and 4'


def test_image_in_two_tables(tmp_path: Path) -> None:
    make_isic_dataset(tmp_path, {"Training": ["NV"], "Test": ["NV"]})
    write_ground_truth(tmp_path, "Test", [HEADER, "ISIC_0000000,0,1,0"])
    assert refused(tmp_path).problem == (
        'id "ISIC_0000000" on line 2 of ISIC2018_Task3_Training_GroundTruth.csv'
        " and line 2 of ISIC2018_Task3_Test_GroundTruth.csv"
    )


def test_missing_image_is_skipped_and_an_unlisted_one_ignored(tmp_path: Path) -> None:
    with_lines(tmp_path, [HEADER, "ISIC_0000000,1,0,0", "ISIC_7777777,1,0,0"])
    listing = ISIC2018.read(tmp_path, DataOptions())
    assert [(one.path, one.problem) for one in listing.skipped] == [
        (
            "ISIC2018_Task3_Training_Input/ISIC_7777777.jpg",
            "ISIC2018_Task3_Training_GroundTruth.csv line 3: no such image",
        )
    ]
    assert listing.warnings == (
        "images in ISIC2018_Task3_Training_Input without a line in ISIC2018_Task3_Training_GroundTruth.csv: 1, ignored",
    )


def with_lesions(root: Path, lines: list[str]) -> Path:
    make_isic_dataset(root, {"Training": ["MEL", "NV"], "Test": ["NV"]})
    write_lines(
        root / "ISIC2018_Task3_Training_LesionGroupings.csv", ["image,lesion_id,diagnosis_confirm_type", *lines]
    )
    return root


def test_lesions_of_the_training_images(tmp_path: Path) -> None:
    with_lesions(tmp_path, ["ISIC_0000000,HAM_1,histopathology", "ISIC_0000001,HAM_2,follow_up"])
    for options in (DataOptions(group="lesion_id"), DataOptions()):  # the published table is taken without a word
        listing = ISIC2018.read(tmp_path, options)
        assert [entry.group for entry in listing.entries] == ["HAM_1", "HAM_2", None]
        assert listing.group_name == "lesion_id"
    listing = ISIC2018.read(tmp_path, DataOptions(group=""))
    assert [entry.group for entry in listing.entries] == [None, None, None]
    assert listing.group_name is None


@pytest.mark.parametrize("name", ["table", "image", "label", "split", "task"])
def test_settings_that_have_no_place(tmp_path: Path, name: str) -> None:
    make_isic_dataset(tmp_path, {"Training": ["MEL", "NV"]})
    with pytest.raises(StudyError, match=f"^data.{name} = '.*': the layout \"isic2018\" has no place for it"):
        ISIC2018.read(tmp_path, DataOptions(**{name: "single"}))  # type: ignore[arg-type]


def test_no_table_of_lesions(tmp_path: Path) -> None:
    make_isic_dataset(tmp_path, {"Training": ["MEL", "NV"]})
    assert refused(tmp_path, "lesion_id").problem == (
        'no ISIC2018_Task3_Training_LesionGroupings.csv to take "lesion_id" from'
    )


def test_group_that_is_no_column(tmp_path: Path) -> None:
    with_lesions(tmp_path, [])
    assert refused(tmp_path, "lesion").problem == (
        'no column "lesion"; found image, lesion_id, diagnosis_confirm_type; did you mean "lesion_id"?'
    )


@pytest.mark.parametrize("line", ["ISIC_0000001,,follow_up", "ISIC_9,HAM_2,follow_up"])
def test_training_image_without_lesion(tmp_path: Path, line: str) -> None:
    with_lesions(tmp_path, ["ISIC_0000000,HAM_1,histopathology", line])
    assert refused(tmp_path, "lesion_id").problem == 'no lesion_id for 1 of the training images (first: "ISIC_0000001")'
