"""The layout `ham10000`: as Dataverse and as Kaggle give it, grouped by lesion."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.layouts import LAYOUTS
from engine.data.layouts.ham10000 import HAM10000
from engine.data.options import DataOptions
from engine.errors import DataError, StudyError
from tests.engine.data.making import save_images, write_table

HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"
ROWS = [
    (f"HAM_{n // 2:07d}", f"ISIC_{n:07d}", ("nv", "mel", "bkl")[n % 3], "histo", 60.0, "male", "back", "vidir_modern")
    for n in range(6)
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return save_images(tmp_path, [f"HAM10000_images_part_{1 + n // 3}/ISIC_{n:07d}.jpg" for n in range(6)])


@pytest.mark.parametrize(
    ("name", "delimiter"),
    [("HAM10000_metadata", ","), ("HAM10000_metadata.csv", ","), ("HAM10000_metadata.tab", "\t")],
)
def test_diagnoses_and_lesions(root: Path, name: str, delimiter: str) -> None:
    write_table(root / name, HEADER, ROWS, delimiter)
    write_table(root / "hmnist_28_28_L.csv", "pixel0000,label", [(1, 2)] * 6)  # as Kaggle has it beside
    assert next(layout for layout in LAYOUTS.values() if layout.recognises(root)) is HAM10000
    listing = HAM10000.read(root, DataOptions())
    assert listing.classes == ("bkl", "mel", "nv")
    assert [(entry.id, entry.label, entry.group, entry.split) for entry in listing.entries] == [
        (f"HAM10000_images_part_{1 + n // 3}/ISIC_{n:07d}.jpg", ROWS[n][2], f"HAM_{n // 2:07d}", None) for n in range(6)
    ]
    assert (listing.group_name, listing.task, listing.skipped, listing.warnings) == ("lesion_id", "single", (), ())


def test_another_group_or_none(root: Path) -> None:
    write_table(root / "HAM10000_metadata.csv", HEADER, ROWS)
    assert {entry.group for entry in HAM10000.read(root, DataOptions(group="dataset")).entries} == {"vidir_modern"}
    listing = HAM10000.read(root, DataOptions(group=""))
    assert ({entry.group for entry in listing.entries}, listing.group_name) == ({None}, None)


def test_splits_of_a_column(root: Path) -> None:
    write_table(root / "HAM10000_metadata.csv", f"{HEADER},part", [(*row, "test") for row in ROWS])
    assert {entry.split for entry in HAM10000.read(root, DataOptions(split="part")).entries} == {"test"}


def test_images_that_are_there_twice_are_asked_about(root: Path) -> None:
    write_table(root / "HAM10000_metadata.csv", HEADER, ROWS)
    save_images(root, ["ham10000_images_part_1/ISIC_0000000.jpg"])
    with pytest.raises(DataError) as caught:
        HAM10000.read(root, DataOptions())
    assert caught.value.where == f"{root / 'HAM10000_metadata.csv'} line 2"
    assert caught.value.problem == (
        '"ISIC_0000000" can be 2 images (HAM10000_images_part_1/ISIC_0000000.jpg, '
        "ham10000_images_part_1/ISIC_0000000.jpg)"
    )


def test_no_table(root: Path) -> None:
    assert not HAM10000.recognises(root)
    assert not HAM10000.recognises(root / "HAM10000_images_part_1" / "ISIC_0000000.jpg")
    with pytest.raises(DataError) as caught:
        HAM10000.read(root, DataOptions())
    assert str(caught.value) == (
        f"{root}: no images under it (looked for HAM10000_metadata.csv and the images in any folders below)\n"
        "  fix: put HAM10000_metadata into it"
    )


def test_no_images(tmp_path: Path) -> None:
    write_table(tmp_path / "HAM10000_metadata.csv", HEADER, ROWS)
    with pytest.raises(DataError, match=r"no images under it \(looked for HAM10000_metadata"):
        HAM10000.read(tmp_path, DataOptions())


@pytest.mark.parametrize("name", ["table", "image", "label"])
def test_settings_that_have_no_place(root: Path, name: str) -> None:
    with pytest.raises(StudyError, match=f"^data.{name} = 'x': the layout \"ham10000\" has no place for it"):
        HAM10000.read(root, DataOptions(**{name: "x"}))  # type: ignore[arg-type]


def test_missing_column(root: Path) -> None:
    write_table(root / "HAM10000_metadata.csv", HEADER.replace("dx,", "diagnosis,"), ROWS)
    with pytest.raises(DataError, match=r'no column "dx"; found lesion_id, image_id, diagnosis'):
        HAM10000.read(root, DataOptions())
