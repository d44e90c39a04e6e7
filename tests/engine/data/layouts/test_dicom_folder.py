"""The layout `dicom`: images by name, path or UID, groups from the headers, and what has to be asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.data.layouts import LAYOUTS
from engine.data.layouts.dicom_folder import DICOM
from engine.data.options import DataOptions
from engine.data.read import read_dataset
from engine.errors import DataError
from tests.engine.data.making import make_folder_dataset, save_dicom, save_image, write_lines, write_table

DEFAULTS = DataOptions()

N = 6
LABELS = ["ab"[n % 2] for n in range(N)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six images of three patients: `series/0/IM0.dcm`, …, UIDs `1.2.3.0`, …"""
    for n in range(N):
        save_dicom(tmp_path / f"series/{n}/IM{n}.dcm", n, PatientID=f"P{n // 2}", AccessionNumber=f"A{n}")
    return tmp_path


def with_table(root: Path, header: str, names: list[str]) -> Path:
    write_table(root / "labels.csv", header, list(zip(names, LABELS, strict=True)))
    return root


def refused(root: Path, options: DataOptions = DEFAULTS) -> str:
    with pytest.raises(DataError) as caught:
        DICOM.read(root, options)
    assert caught.value.fix
    return caught.value.problem


@pytest.mark.parametrize("pattern", ["IM{}.dcm", "IM{}", "series/{0}/IM{0}.dcm", "above/series/{0}/IM{0}", "1.2.3.{}"])
def test_images_by_name_path_or_uid(root: Path, pattern: str) -> None:
    with_table(root, "id,label", [pattern.format(n) for n in range(N)])
    assert next(layout for layout in LAYOUTS.values() if layout.recognises(root)) is DICOM
    listing = DICOM.read(root, DataOptions())
    assert [(entry.path, entry.label, entry.group) for entry in listing.entries] == [
        (f"series/{n}/IM{n}.dcm", LABELS[n], f"P{n // 2}") for n in range(N)
    ]
    assert (listing.group_name, listing.skipped, listing.warnings) == ("PatientID", (), ())


def test_a_whole_reading(root: Path) -> None:
    for n in range(N, 40):
        save_dicom(root / f"series/{n}/IM{n}.dcm", n, PatientID=f"P{n // 2}")
    write_table(root / "labels.csv", "id,label", [(f"IM{n}", "ab"[n // 2 % 2]) for n in range(40)])
    manifest = read_dataset(root)
    assert (manifest.layout, manifest.group_name, len(manifest.items)) == ("dicom", "PatientID", 40)
    splits = {group: {item.split for item in manifest.items if item.group == group} for group in ("P0", "P7", "P19")}
    assert all(len(found) == 1 for found in splits.values())


def test_files_without_a_suffix_are_known_by_their_content(tmp_path: Path) -> None:
    for n in range(N):
        save_dicom(tmp_path / f"1.2.840.{n}", n, PatientID=f"P{n}")
        save_dicom(tmp_path / f"IM_{n}", 100 + n, PatientID=f"P{n}")
    write_lines(tmp_path / "README", ["text"])
    (tmp_path / "EMPTY").touch()
    names = [f"1.2.840.{n}" for n in range(3)] + [f"IM_{n}" for n in range(3)]
    with_table(tmp_path, "file,label", names)
    assert DICOM.recognises(tmp_path)
    listing = DICOM.read(tmp_path, DataOptions())
    assert [entry.path for entry in listing.entries] == names
    assert listing.warnings == ("6 images are in no line of labels.csv: ignored",)


def test_a_uid_that_no_file_has_is_skipped(root: Path) -> None:
    with_table(root, "uid,label", [*(f"1.2.3.{n}" for n in range(N - 1)), "1.2.3.99"])
    listing = DICOM.read(root, DataOptions())
    assert [(one.path, one.problem) for one in listing.skipped] == [("1.2.3.99", "labels.csv line 7: no such image")]
    assert len(listing.entries) == N - 1


@pytest.mark.parametrize("other", [range(N), range(N)[::-1], [0] * N, ["1.2.840.9"] * N])
def test_numbers_beside_uids_are_not_taken_for_file_names(tmp_path: Path, other: Sequence[object]) -> None:
    for n in range(N):
        save_dicom(tmp_path / f"{n}.dcm", n, PatientID=f"P{n}")
    rows = [(other[n], f"1.2.3.{n}", label) for n, label in enumerate(LABELS)]
    write_table(tmp_path / "labels.csv", "slice,uid,label", rows)
    for image in (None, "uid"):
        listing = DICOM.read(tmp_path, DataOptions(image=image))
        assert [(entry.path, entry.label) for entry in listing.entries] == [
            (f"{n}.dcm", label) for n, label in enumerate(LABELS)
        ]


def test_two_files_of_one_uid(root: Path) -> None:
    save_dicom(root / "copy.dcm", 3, PatientID="P1")
    with_table(root, "uid,label", [f"1.2.3.{n}" for n in range(N)])
    assert refused(root) == '"1.2.3.3" can be 2 images (copy.dcm, series/3/IM3.dcm)'
    with_table(root, "id,label", [f"IM{n}" for n in range(N)])
    assert len(DICOM.read(root, DataOptions()).entries) == N


def test_a_table_of_other_images(root: Path) -> None:
    with_table(root, "id,label", [f"1.2.3.{90 + n}" for n in range(N)])
    assert refused(root) == (
        'no column names images of the folder; found id, label (first cells: "1.2.3.90", "1.2.3.91", "1.2.3.92")'
    )


def test_uids_in_the_tables_of_splits(root: Path) -> None:
    write_table(root / "train.csv", "uid,label", [(f"1.2.3.{n}", LABELS[n]) for n in range(4)])
    write_table(root / "test.csv", "uid,label", [(f"1.2.3.{n}", LABELS[n]) for n in (4, 5)])
    assert [entry.split for entry in DICOM.read(root, DataOptions()).entries] == ["train"] * 4 + ["test"] * 2
    write_table(root / "test.csv", "id,label", [("IM4", "a")])
    assert refused(root) == 'no column "uid"; found id, label; did you mean "id"?'


# Groups


def test_groups_of_the_table_come_first(root: Path) -> None:
    write_table(root / "labels.csv", "id,label,case", [(f"IM{n}", LABELS[n], f"C{n // 3}") for n in range(N)])
    listing = DICOM.read(root, DataOptions())
    assert ([entry.group for entry in listing.entries], listing.group_name) == (["C0"] * 3 + ["C1"] * 3, "case")
    listing = DICOM.read(root, DataOptions(group="label"))
    assert ([entry.group for entry in listing.entries], listing.group_name) == (LABELS, "label")


def test_groups_of_another_element(root: Path) -> None:
    with_table(root, "id,label", [f"IM{n}" for n in range(N)])
    listing = DICOM.read(root, DataOptions(group="AccessionNumber"))
    assert [entry.group for entry in listing.entries] == [f"A{n}" for n in range(N)]
    assert listing.group_name == "AccessionNumber"


def test_no_groups_if_asked_for(root: Path) -> None:
    with_table(root, "id,label", [f"IM{n}" for n in range(N)])
    listing = DICOM.read(root, DataOptions(group=""))
    assert ({entry.group for entry in listing.entries}, listing.group_name, listing.warnings) == ({None}, None, ())


@pytest.mark.parametrize("group", ["PatientsID", "patient", "StudyID"])
def test_a_group_that_is_nowhere(root: Path, group: str) -> None:
    with_table(root, "id,label", [f"IM{n}" for n in range(N)])
    problem = f'neither a column nor an element of the headers is "{group}"; found id, label'
    assert refused(root, DataOptions(group=group)) == problem


@pytest.mark.parametrize("patient", ["ANONYMOUS", "", None])
def test_anonymised_headers_name_no_patients(tmp_path: Path, patient: str | None) -> None:
    for n in range(N):
        save_dicom(tmp_path / f"IM{n}.dcm", n, **({} if patient is None else {"PatientID": patient}))
    with_table(tmp_path, "id,label", [f"IM{n}" for n in range(N)])
    listing = DICOM.read(tmp_path, DataOptions())
    assert ({entry.group for entry in listing.entries}, listing.group_name) == ({None}, None)
    assert listing.warnings == (
        "the headers name no patients (PatientID is alike in all): images of one may be in two splits",
    )


def test_an_unreadable_header_costs_no_listing(root: Path) -> None:
    (root / "series/5/IM5.dcm").write_bytes(b"text")
    with_table(root, "id,label", [f"IM{n}" for n in range(N)])
    listing = DICOM.read(root, DataOptions())
    assert [entry.group for entry in listing.entries] == ["P0", "P0", "P1", "P1", "P2", None]


# Recognition


def test_class_folders_of_dicom_need_no_table(tmp_path: Path) -> None:
    for n in range(N):
        save_dicom(tmp_path / LABELS[n] / f"IM{n}.dcm", n)
    assert not DICOM.recognises(tmp_path)
    write_table(tmp_path / "people.csv", "id,age", [(f"IM{n}", 40 + n % 2) for n in range(N)])
    assert next(name for name, layout in LAYOUTS.items() if layout.recognises(tmp_path)) == "folder"


def test_one_stray_file_does_not_make_photographs_dicom(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"images": N})
    save_dicom(tmp_path / "images" / "0stray.dcm", 9)
    write_table(tmp_path / "labels.csv", "id,label", [(f"{n:04d}", LABELS[n]) for n in range(N)])
    assert next(name for name, layout in LAYOUTS.items() if layout.recognises(tmp_path)) == "csv"


def test_no_dicom_and_no_table(tmp_path: Path) -> None:
    save_image(tmp_path / "x.png", 1)
    assert not DICOM.recognises(tmp_path)
    assert not DICOM.recognises(tmp_path / "x.png")
    with_table(tmp_path, "id,label", [f"x{n}" for n in range(N)])
    assert not DICOM.recognises(tmp_path)
    assert refused(tmp_path).startswith("no images under it (looked for DICOM files and a table (.csv)")
