"""The layout `imagenet`: four label files, a part of the images, and each line that is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.data.layouts import LAYOUTS, Listing
from engine.data.layouts.imagenet import IMAGENET, LABEL_FILES
from engine.data.options import DataOptions
from engine.errors import DataError, StudyError
from tests.engine.data.making import write_lines

TRUTH, SYNSETS, _, VAL, KAGGLE = LABEL_FILES
CONTENT: dict[str, Sequence[str]] = {
    TRUTH: ["490", "361", "490", "1000"],
    SYNSETS: ["n01751748", "n09193705", "n01751748", "n02105855"],
    VAL: [f"ILSVRC2012_val_{n:08d}.JPEG {label}" for n, label in ((1, 65), (2, 970), (3, 65), (4, 0))],
    KAGGLE: [
        "ImageId,PredictionString",
        "ILSVRC2012_val_00000003,n01751748 85 1 499 272 n01751748 3 4 5 6 ",
        *(f"ILSVRC2012_val_{n:08d},{name} 1 2 3 4 " for n, name in ((1, "n01751748"), (4, "n02105855"))),
        "ILSVRC2012_val_00000002,n09193705 1 2 3 4",
    ],
}


def with_images(root: Path, numbers: Sequence[int] = (1, 2, 3, 4), folder: str = "") -> Path:
    for number in numbers:
        path = root / folder / f"ILSVRC2012_val_{number:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def labels_of(listing: Listing) -> dict[str, object]:
    return {Path(entry.path).stem[-1]: entry.label for entry in listing.entries}


def refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        IMAGENET.read(root, DataOptions())
    assert caught.value.fix
    return f"{Path(caught.value.where).name}: {caught.value.problem}"


@pytest.mark.parametrize("place", ["", "val", "devkit/", "../"])
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        (TRUTH, {"1": "0490", "2": "0361", "3": "0490", "4": "1000"}),
        (SYNSETS, {"1": "n01751748", "2": "n09193705", "3": "n01751748", "4": "n02105855"}),
        (VAL, {"1": "0065", "2": "0970", "3": "0065", "4": "0000"}),
        (KAGGLE, {"1": "n01751748", "2": "n09193705", "3": "n01751748", "4": "n02105855"}),
    ],
)
def test_label_files_wherever_they_lie(tmp_path: Path, name: str, labels: dict[str, str], place: str) -> None:
    root = with_images(tmp_path / "data", folder=place if place == "val" else "")
    write_lines(root / ("" if place == "val" else place) / name, CONTENT[name])
    assert next(layout for layout in LAYOUTS.values() if layout.recognises(root)) is IMAGENET
    listing = IMAGENET.read(root, DataOptions())
    assert labels_of(listing) == labels
    assert listing.classes == tuple(sorted(set(labels.values())))
    assert {(entry.split, entry.group) for entry in listing.entries} == {(None, None)}
    assert (listing.skipped, listing.warnings) == ((), ())


def test_a_part_of_the_images_is_no_damage(tmp_path: Path) -> None:
    root = write_lines(with_images(tmp_path, [2]) / TRUTH, CONTENT[TRUTH]).parent
    listing = IMAGENET.read(root, DataOptions())
    assert labels_of(listing) == {"2": "0361"}
    assert listing.skipped == ()
    assert listing.warnings == (f"1 of the 4 images of {TRUTH} are here; the rest is left out",)


def test_a_few_missing_images_are_skipped(tmp_path: Path) -> None:
    root = write_lines(with_images(tmp_path, [1, 2, 4]) / TRUTH, CONTENT[TRUTH]).parent
    listing = IMAGENET.read(root, DataOptions())
    assert labels_of(listing) == {"1": "0490", "2": "0361", "4": "1000"}
    assert [(one.path, one.problem) for one in listing.skipped] == [
        ("ILSVRC2012_val_00000003", f"{TRUTH} line 3: no such image")
    ]


def test_labels_without_images(tmp_path: Path) -> None:
    (tmp_path / "other.JPEG").touch()
    write_lines(tmp_path / TRUTH, CONTENT[TRUTH])
    assert not IMAGENET.recognises(tmp_path)
    assert refused(tmp_path) == f"{tmp_path.name}: none of the 4 images of {TRUTH} is under it"
    (tmp_path / "other.JPEG").unlink()
    assert refused(tmp_path).startswith(f"{tmp_path.name}: no images under it (looked for ILSVRC2012_val_*.JPEG and")


def test_images_without_labels(tmp_path: Path) -> None:
    root = with_images(tmp_path / "data")
    assert not IMAGENET.recognises(root)
    assert not IMAGENET.recognises(root / "ILSVRC2012_val_00000001.JPEG")
    assert refused(root).startswith("data: no labels in it (looked for ILSVRC2012_val_*.JPEG and one of ")


@pytest.mark.parametrize(
    ("name", "line", "problem"),
    [
        (TRUTH, "0", 'label "0" is out of range; need 1 to 1000'),
        (TRUTH, "1001", 'label "1001" is out of range; need 1 to 1000'),
        (TRUTH, "n01751748", 'label "n01751748" is out of range; need 1 to 1000'),
        (TRUTH, "²", 'label "²" is out of range; need 1 to 1000'),
        (TRUTH, "", "label is empty"),
        (SYNSETS, "", "label is empty"),
        (SYNSETS, "n123", 'label "n123" is no WordNet id (n and 8 digits)'),
        (VAL, "x.JPEG 1000", 'label "1000" is out of range; need 0 to 999'),
        (VAL, "x.JPEG", "1 fields, expected 2"),
        (VAL, "x y.JPEG 3", "3 fields, expected 2"),
        (VAL, "../x.JPEG 3", 'path leaves the dataset folder ("../x.JPEG")'),
    ],
)
def test_wrong_line(tmp_path: Path, name: str, line: str, problem: str) -> None:
    root = with_images(tmp_path)
    content = list(CONTENT[name])
    write_lines(root / name, [content[0], line, *content[1:]])
    assert refused(root) == f"{name} line 2: {problem}"


def test_kaggle_label_that_is_none(tmp_path: Path) -> None:
    root = with_images(tmp_path)
    write_lines(root / KAGGLE, [*CONTENT[KAGGLE], "ILSVRC2012_val_00000009,1 2 3"])
    assert refused(root) == f'{KAGGLE} line 6: label "1 2 3" is no WordNet id (n and 8 digits)'


@pytest.mark.parametrize("header", ["ImageId,Label", "Id,PredictionString"])
def test_kaggle_table_without_a_column(tmp_path: Path, header: str) -> None:
    root = with_images(tmp_path)
    write_lines(root / KAGGLE, [header, *CONTENT[KAGGLE][1:]])
    missing = "PredictionString" if "ImageId" in header else "ImageId"
    assert refused(root).startswith(f'{KAGGLE}: no column "{missing}"; found ')


@pytest.mark.parametrize("name", [VAL, KAGGLE])
def test_one_image_on_two_lines(tmp_path: Path, name: str) -> None:
    root = with_images(tmp_path)
    content = [*CONTENT[name], CONTENT[name][-1]]
    write_lines(root / name, content)
    image = content[-1].replace(",", " ").split()[0]
    assert refused(root) == f'{name}: id "{image}" on lines {len(content) - 1} and {len(content)}'


def test_an_image_that_is_there_twice(tmp_path: Path) -> None:
    root = with_images(with_images(tmp_path, folder="val"), [2], folder="copy")
    write_lines(root / TRUTH, CONTENT[TRUTH])
    name = "ILSVRC2012_val_00000002"
    assert refused(root) == f'{TRUTH} line 2: "{name}" can be 2 images (copy/{name}.JPEG, val/{name}.JPEG)'


@pytest.mark.parametrize("setting", ["table", "image", "label", "split", "task", "group"])
def test_settings_that_have_no_place(tmp_path: Path, setting: str) -> None:
    value = "ordinal" if setting == "task" else "x"
    with pytest.raises(StudyError, match=f"^data.{setting} = '{value}': the layout \"imagenet\" has no place for it"):
        IMAGENET.read(tmp_path, DataOptions(**{setting: value}))  # type: ignore[arg-type]
