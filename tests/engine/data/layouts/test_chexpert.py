"""The layout `chexpert`: findings with blanks and -1, patients from the path, paths that begin above the root."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.layouts import LAYOUTS
from engine.data.layouts.chexpert import CHEXPERT, FINDINGS
from engine.data.options import DataOptions
from engine.errors import DataError, StudyError
from tests.engine.data.making import save_images, write_lines, write_table

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(FINDINGS)
PREFIX = "CheXpert-v1.0-small"


def image(n: int, split: str = "train") -> str:
    return f"{split}/patient{n // 2:05d}/study1/view{1 + n % 2}_frontal.jpg"


def row(path: str, *findings: object) -> tuple[object, ...]:
    blank = [""] * (len(FINDINGS) - len(findings))
    return (f"{PREFIX}/{path}", "Female", 68, "Frontal", "AP", *findings, *blank)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_images(tmp_path, [*(image(n) for n in range(4)), *(image(n, "valid") for n in range(4, 6))])
    write_table(tmp_path / "train.csv", HEADER, [row(image(n), "1.0", "-1.0", n % 2) for n in range(4)])
    write_table(tmp_path / "valid.csv", HEADER, [row(image(n, "valid"), *"0" * 14) for n in (4, 5)])
    return tmp_path


def test_as_published(root: Path) -> None:
    assert next(layout for layout in LAYOUTS.values() if layout.recognises(root)) is CHEXPERT
    listing = CHEXPERT.read(root, DataOptions())
    assert (listing.classes, listing.task, listing.group_name) == (FINDINGS, "multilabel", "patient")
    assert [(entry.path, entry.split, entry.group) for entry in listing.entries] == [
        *((image(n), "train", f"patient{n // 2:05d}") for n in range(4)),
        *((image(n, "valid"), "val", f"patient{n // 2:05d}") for n in (4, 5)),
    ]
    assert listing.entries[1].label == (1, -1, 1, *[0] * 11)
    assert listing.entries[4].label == (0,) * 14
    assert listing.warnings == (
        '4 labels are uncertain (-1): ignored (data.uncertain = "ignore")',
        '44 labels are blank: taken as zeros (data.blank = "zeros")',
    )


@pytest.mark.parametrize(("policy", "value"), [("ones", 1), ("zeros", 0)])
def test_policies(root: Path, policy: str, value: int) -> None:
    listing = CHEXPERT.read(root, DataOptions(uncertain=policy, blank="ignore"))  # type: ignore[arg-type]
    assert listing.entries[1].label == (1, value, 1, *[-1] * 11)


def test_some_findings_only(root: Path) -> None:
    listing = CHEXPERT.read(root, DataOptions(label=("Cardiomegaly", "Edema")))
    assert listing.classes == ("Cardiomegaly", "Edema")
    assert [entry.label for entry in listing.entries[:2]] == [(0, 0), (1, 0)]


def test_sex_is_no_finding_and_order_is_the_tables(root: Path) -> None:
    write_table(root / "train.csv", "Path,Sex,Edema,Cardiomegaly,Fracture,Pneumonia,Pneumothorax", [
        (f"{PREFIX}/{image(n)}", n % 2, 1, 0, 0, 0, 0) for n in range(4)
    ])  # fmt: skip
    (root / "valid.csv").unlink()
    assert CHEXPERT.recognises(root)
    assert CHEXPERT.read(root, DataOptions()).classes == (
        "Edema", "Cardiomegaly", "Fracture", "Pneumonia", "Pneumothorax",
    )  # fmt: skip


def test_another_group_or_none(root: Path) -> None:
    listing = CHEXPERT.read(root, DataOptions(group=""))
    assert ({entry.group for entry in listing.entries}, listing.group_name) == ({None}, None)
    listing = CHEXPERT.read(root, DataOptions(group="Age"))
    assert ({entry.group for entry in listing.entries}, listing.group_name) == ({"68"}, "Age")


def test_paths_without_patients(root: Path) -> None:
    save_images(root, ["train/a.jpg", "train/b.jpg"])
    write_table(root / "train.csv", HEADER, [row(f"train/{name}.jpg", 1) for name in "ab"])
    (root / "valid.csv").unlink()
    listing = CHEXPERT.read(root, DataOptions())
    assert ({entry.group for entry in listing.entries}, listing.group_name) == ({None}, None)


def test_a_missing_image_is_not_that_of_another_patient(root: Path) -> None:
    (root / image(2)).unlink()
    listing = CHEXPERT.read(root, DataOptions())
    assert [one.problem for one in listing.skipped] == ["train.csv line 4: no such image"]
    assert image(2) not in {entry.path for entry in listing.entries}


def test_two_tables_for_one_split(root: Path) -> None:
    write_table(root / "val.csv", HEADER, [])
    assert not CHEXPERT.recognises(root)
    with pytest.raises(DataError) as caught:
        CHEXPERT.read(root, DataOptions())
    assert caught.value.problem == 'ambiguous: "val.csv" and "valid.csv" are both for val'


def test_other_tables_are_not_recognised(root: Path) -> None:
    write_table(root / "train.csv", "Path,Edema,Fracture,Mass,Nodule,Hernia", [(image(0), 1, 0, 0, 0, 0)])
    assert not CHEXPERT.recognises(root)
    write_lines(root / "train.csv", [HEADER, "1,2,3"])
    assert not CHEXPERT.recognises(root)
    (root / "train.csv").unlink()
    assert not CHEXPERT.recognises(root)
    assert not CHEXPERT.recognises(root / "valid.csv")


def test_no_findings(root: Path) -> None:
    write_table(root / "train.csv", "Path,Mass", [(image(0), 1)])
    with pytest.raises(DataError) as caught:
        CHEXPERT.read(root, DataOptions())
    assert caught.value.problem == (
        "no column of findings (looked for No Finding, Enlarged Cardiomediastinum, Cardiomegaly and so on)"
    )


def test_no_table_and_no_images(root: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "none" / "train.csv", HEADER, [row(image(0))])
    with pytest.raises(DataError, match=r"no images under it \(looked for train.csv with Path and the findings"):
        CHEXPERT.read(tmp_path / "none", DataOptions())
    (root / "train.csv").unlink()
    with pytest.raises(DataError) as caught:
        CHEXPERT.read(root, DataOptions())
    assert caught.value.fix == "put train.csv beside the folder train"


@pytest.mark.parametrize("setting", ["table", "image", "split"])
def test_settings_that_have_no_place(root: Path, setting: str) -> None:
    with pytest.raises(StudyError, match=f"^data.{setting} = 'x': the layout \"chexpert\" has no place for it"):
        CHEXPERT.read(root, DataOptions(**{setting: "x"}))  # type: ignore[arg-type]
