"""What stops a study before it begins, and what is only said: classes, splits, groups, repeats, the origin domain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.data.checks import Finding, check_classes, check_groups, check_origin, check_repeats, check_splits
from engine.data.manifest import Item, Label, Manifest
from engine.errors import DataError

DRAWN = ["val", "test"]


def manifest_of(rows: Sequence[tuple[str, Label]], classes: str = "ab", **fields: Any) -> Manifest:
    """Images of these splits and labels, no two alike."""
    items = tuple(Item(f"i{n}", f"i{n}.png", label, split, f"{n:064x}") for n, (split, label) in enumerate(rows))
    return Manifest(Path("data"), "csv", tuple(classes), items, **fields)


def with_items(manifest: Manifest, **values: Sequence[Any]) -> Manifest:
    items = [
        Item(**{**vars(item), **{name: cells[n] for name, cells in values.items()}})
        for n, item in enumerate(manifest.items)
    ]
    return Manifest(**{**vars(manifest), "items": tuple(items)})


def sound(n: int = 12) -> list[tuple[str, Label]]:
    return [(split, label) for split in ("train", "val", "test") for label in (0, 1) for _ in range(n)]


def refused(check: Callable[..., Iterator[Finding]], *arguments: object) -> str:
    error = next(each for each in check(*arguments) if isinstance(each, DataError))
    assert error.fix
    assert error.where == "data"
    return error.problem


# Splits


@pytest.mark.parametrize(
    ("missing", "is_official", "said"),
    [
        ([], True, []),
        (["val"], True, ["no official val (15 %): drawn from the training images, stratified by class"]),
        (DRAWN, False, ["no official val (15 %) and test (15 %): drawn from all images, stratified by class"]),
    ],
)
def test_which_splits_were_drawn(missing: list[str], is_official: bool, said: list[str]) -> None:
    assert list(check_splits(manifest_of(sound()), missing, is_official)) == said


# Classes


def test_a_sound_dataset_has_nothing_to_say() -> None:
    assert list(check_classes(manifest_of(sound()), [])) == []


@pytest.mark.parametrize(("n", "words"), [(0, "0 images"), (1, "1 image")])
def test_a_class_with_less_than_two_images(n: int, words: str) -> None:
    rows = [*sound(), *[("train", 2)] * n]
    assert refused(check_classes, manifest_of(rows, "abc"), []) == f'"c" has {words}; a split needs 2'


def test_a_class_that_is_not_in_train() -> None:
    rows = [*sound(), ("test", 2), ("val", 2)]
    assert refused(check_classes, manifest_of(rows, "abc"), []) == '"c" has 2 images, none of them in train'


def test_a_class_that_is_in_train_alone() -> None:
    rows = [*sound(), *[("train", 2)] * 12]
    said = list(check_classes(manifest_of(rows, "abc"), []))
    assert said == ['no image of "c" in val', 'no image of "c" in test']
    problem = 'the 12 images of "c" are of one group, or identical; a split needs 2 groups'
    assert refused(check_classes, manifest_of(rows, "abc"), DRAWN) == problem


def test_a_split_without_images() -> None:
    rows = [row for row in sound() if row[0] != "val"]
    assert refused(check_classes, manifest_of(rows), []) == "val has no images"


def test_few_images() -> None:
    rows = [*sound(), *[("train", 2)] * 9, ("val", 2), ("test", 2), *[("train", 3)] * 10, ("val", 3), ("test", 3)]
    assert list(check_classes(manifest_of(rows, "abcd"), [])) == ['few images for training (below 10): "c" 9']


def test_many_classes_of_few_images() -> None:
    rows = [(split, label) for split in ("train", "val", "test") for label in range(8) for _ in range(2)]
    few = ", ".join(f'"{name}" 2' for name in "abcdef")
    said = [f"few images for training (below 10): {few} and 2 more"]
    assert list(check_classes(manifest_of(rows, "abcdefgh"), [])) == said


@pytest.mark.parametrize(("n", "is_said"), [(99, False), (100, True)])
def test_imbalance(n: int, is_said: bool) -> None:
    rows = [("train", 0)] * n + [("train", 1)] * 10 + [(split, label) for split in ("val", "test") for label in (0, 1)]
    said = 'imbalance: "a" has 10 times the training images of "b"; see finetune.class_weights and finetune.sampling'
    assert list(check_classes(manifest_of(rows), [])) == [said] * is_said


def test_findings_count_for_each_of_their_classes() -> None:
    rows: list[tuple[str, Label]] = [
        (split, label) for split in ("train", "val", "test") for label in ((1, 1), (0, 0), (-1, 0)) for _ in range(10)
    ]
    assert list(check_classes(manifest_of(rows, task="multilabel"), [])) == []
    rows = [(split, (1, -1)) for split in ("train", "val", "test") for _ in range(10)]
    assert refused(check_classes, manifest_of(rows, task="multilabel"), []) == '"b" has 0 images; a split needs 2'


# Groups


@pytest.mark.parametrize(
    ("group_name", "n", "sentence"),
    [
        ("patient_id", 3, "3 patients are in train and test"),
        ("PatientID", 1, "1 patient is in train and test"),
        ("lesion_id", 2, "2 lesions are in train and test"),
        ("patient", 1, "1 patient is in train and test"),
        ("case no", 1, "1 case is in train and test"),
        ("id", 1, "1 group is in train and test"),
        (None, 1, "1 group is in train and test"),
    ],
)
def test_a_group_in_two_splits(group_name: str | None, n: int, sentence: str) -> None:
    manifest = manifest_of([("train", 0)] * 5 + [("test", 0)] * 5 + [("val", 0)], group_name=group_name)
    groups = [*(f"g{row}" for row in range(5)), *(f"g{row}" if row < n else f"h{row}" for row in range(5)), "v"]
    problem = refused(check_groups, with_items(manifest, group=groups), [])
    assert problem == f'{sentence} (first: "g0": "i0" and "i5")'


def test_the_pair_of_splits_that_shares_most_is_named() -> None:
    manifest = manifest_of([("train", 0)] * 3 + [("val", 0)] * 3 + [("test", 0)] * 3, group_name="patient")
    groups = ["a", "b", "c", "x", "y", "c", "a", "b", "z"]
    assert refused(check_groups, with_items(manifest, group=groups), []) == (
        '2 patients are in train and test (first: "a": "i0" and "i6")'
    )


def test_groups_that_stay_in_their_split() -> None:
    manifest = manifest_of([("train", 0), ("train", 0), ("val", 0), ("test", 0)], group_name="patient")
    assert list(check_groups(with_items(manifest, group=["a", "a", "b", "c"]), DRAWN)) == []


def test_images_without_a_group() -> None:
    manifest = manifest_of([("train", 0), ("train", 0), ("val", 0), ("test", 0)], group_name="patient_id")
    some = with_items(manifest, group=["a", "a", None, None])
    assert list(check_groups(some, DRAWN)) == ["2 images have no patient_id: each of them may go into any split"]
    assert list(check_groups(some, [])) == []


def test_no_groups_at_all() -> None:
    said = "no patients or lesions are named (data.group): images of one may be in two of the drawn splits"
    assert list(check_groups(manifest_of(sound()), ["val"])) == [said]
    assert list(check_groups(manifest_of(sound()), [])) == []
    assert list(check_groups(manifest_of(sound(), synthetic=True), ["val"])) == []


# Repeats


@pytest.mark.parametrize(
    ("n", "sentence"), [(1, "1 identical image is in train and val"), (2, "2 identical images are in train and val")]
)
def test_identical_images_in_two_splits(n: int, sentence: str) -> None:
    manifest = manifest_of([("train", 0)] * 3 + [("val", 0)] * 3 + [("test", 0)])
    hashes = [f"{row % 3 if row - 3 < n else row:064x}" for row in range(7)]
    assert refused(check_repeats, with_items(manifest, sha256=hashes)) == f'{sentence} (first: "i0" and "i3")'


def test_identical_images_in_one_split() -> None:
    manifest = manifest_of([("train", 0), ("train", 0), ("train", 1), ("train", 0), ("test", 0)])
    hashes = ["a" * 64, "a" * 64, "b" * 64, "b" * 64, "c" * 64]
    assert list(check_repeats(with_items(manifest, sha256=hashes))) == [
        '2 images repeat another one (first: "i1")',
        '1 images are there under two labels (first: "i2" and "i3")',
    ]
    assert list(check_repeats(manifest)) == []


# The origin domain


def test_a_sound_origin() -> None:
    assert list(check_origin(manifest_of([("test", n % 3) for n in range(21)], "abc"))) == []


def test_an_origin_of_findings() -> None:
    manifest = manifest_of([("test", (1, 0))] * 30, task="multilabel")
    assert refused(check_origin, manifest) == "several labels an image; k-NN on the origin domain needs one"


def test_an_origin_of_too_few_images() -> None:
    manifest = manifest_of([("test", n % 2) for n in range(20)])
    assert refused(check_origin, manifest) == "20 images; k-NN with k = 20 needs 21"


def test_an_origin_of_lonely_and_repeated_images() -> None:
    manifest = manifest_of([("test", 0)] * 30 + [("test", 1), ("test", 2)], "abc")
    hashes = [f"{max(1, row):064x}" for row in range(32)]
    assert list(check_origin(with_items(manifest, sha256=hashes))) == [
        '2 classes have 1 image, which no neighbour can share (first: "b")',
        '1 images repeat another one (first: "i1")',
    ]
