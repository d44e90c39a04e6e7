"""From a folder to a manifest: recognition, hashes, splits, and what stops a dataset or only warns."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path

import numpy as np
import pytest

from engine.data.intensity import Decoding
from engine.data.manifest import SPLITS, Manifest, Skipped, read_manifest, write_manifest
from engine.data.options import DataOptions
from engine.data.pixels import pixel_cache
from engine.data.read import read_dataset, read_origin
from engine.data.splits import SHARES
from engine.errors import DataError, StudyError
from tests.engine.data.making import (
    make_folder_dataset,
    make_isic_dataset,
    noise,
    save_arrays,
    save_image,
    save_images,
    write_ground_truth,
    write_lines,
    write_table,
)


def problem_of(root: Path, group: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read_dataset(root, DataOptions(group=group))
    assert caught.value.fix
    return caught.value.problem


def about(manifest: Manifest, *words: str) -> tuple[str, ...]:
    """The warnings that begin with one of the words: those that a test is about."""
    return tuple(warning for warning in manifest.warnings if warning.startswith(words))


def official(root: Path, *names: str) -> Path:
    """Split folders of two classes with 4 images each."""
    for n, name in enumerate(names):
        make_folder_dataset(root / name, {"a": 4, "b": 4}, first_seed=100 * n)
    return root


def test_splits_are_drawn_where_there_are_none(tmp_path: Path) -> None:
    manifest = read_dataset(make_folder_dataset(tmp_path, {"b": 20, "a": 20}))
    assert (manifest.root, manifest.layout, manifest.classes) == (tmp_path, "folder", ("a", "b"))
    assert Counter((item.split, item.label) for item in manifest.items) == {
        (split, label): n for split, n in (("train", 14), ("val", 3), ("test", 3)) for label in (0, 1)
    }
    assert [item.id for item in manifest.items] == sorted(item.id for item in manifest.items)
    assert manifest.warnings == (
        "no official val (15 %) and test (15 %): drawn from all images, stratified by class",
        "no patients or lesions are named (data.group): images of one may be in two of the drawn splits",
    )
    for item in manifest.items[:3]:
        assert item.sha256 == hashlib.sha256((tmp_path / item.path).read_bytes()).hexdigest()
    assert manifest.skipped == ()
    assert not manifest.synthetic


def test_splits_do_not_depend_on_names_and_place(tmp_path: Path) -> None:
    one = read_dataset(make_folder_dataset(tmp_path / "one", {"a": 12, "b": 12}))
    other_root = make_folder_dataset(tmp_path / "deep" / "other", {"a": 12, "b": 12})
    assert read_dataset(other_root).digest == one.digest
    for number, path in enumerate(sorted(other_root.rglob("*.png"))):
        path.rename(path.with_name(f"{997 * number % 1009}.png"))
    renamed = read_dataset(other_root)
    assert {item.sha256: item.split for item in renamed.items} == {item.sha256: item.split for item in one.items}
    assert renamed.digest != one.digest


def test_official_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    manifest = read_dataset(official(tmp_path, "train", "val", "test"))
    assert [len(manifest.of_split(split)) for split in SPLITS] == [8, 8, 8]
    assert all(item.path.startswith(item.split) for item in manifest.items)
    assert manifest.warnings == ('few images for training (below 10): "a" 4, "b" 4',)


@pytest.mark.parametrize(
    ("names", "drawn", "warning"),
    [
        (["train", "test"], "val", "no official val (15 %)"),
        (["train", "val"], "test", "no official test (15 %)"),
        (["train"], "val", "no official val (15 %) and test (15 %)"),
    ],
)
def test_a_missing_split_is_drawn_from_the_training_images(
    tmp_path: Path, names: list[str], drawn: str, warning: str
) -> None:
    for n, name in enumerate(names):
        make_folder_dataset(tmp_path / name, {"a": 20, "b": 20}, first_seed=100 * n)
    manifest = read_dataset(tmp_path)
    assert {(item.path.split("/")[0], item.split) for item in manifest.items} == {
        *((name, name) for name in names),
        *(("train", split) for split in SPLITS if split not in names),
    }
    assert Counter(item.label for item in manifest.of_split(drawn)) == {0: 3, 1: 3}
    assert about(manifest, "no official") == (f"{warning}: drawn from the training images, stratified by class",)


def test_isic2018_with_lesions(tmp_path: Path) -> None:
    make_isic_dataset(tmp_path, {"Training": ["MEL", "NV", "BCC"] * 12, "Test": ["MEL", "NV", "BCC"]})
    lines = [f"ISIC_{n:07d},HAM_{n % 3}_{n // 6},follow_up" for n in range(36)]
    write_lines(tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv", ["image,lesion_id,type", *lines])
    manifest = read_dataset(tmp_path, DataOptions(group="lesion_id"))
    assert manifest.layout == "isic2018"
    splits_of_lesion: dict[str | None, set[str]] = {}
    for item in manifest.items:
        splits_of_lesion.setdefault(item.group, set()).add(item.split)
    assert {len(splits) for splits in splits_of_lesion.values()} == {1}
    assert len(splits_of_lesion) == 18 + 1
    assert [len(manifest.of_split(split)) for split in SPLITS] == [30, 6, 3]


def test_layout_can_be_forced(tmp_path: Path) -> None:
    classes = ["MEL", "NV", "BCC"] * 5
    make_isic_dataset(tmp_path, {"Training": classes, "Test": classes})
    assert read_dataset(tmp_path).layout == "isic2018"
    manifest = read_dataset(tmp_path, DataOptions(layout="folder"))
    assert manifest.classes == ("ISIC2018_Task3_Test_Input", "ISIC2018_Task3_Training_Input")


def test_unknown_layout_names_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        read_dataset(make_folder_dataset(tmp_path, {"a": 9, "b": 9}), DataOptions(layout="isic2081"))
    assert str(caught.value) == (
        'layout = "isic2081": unknown layout; did you mean "isic2018"?\n'
        "  fix: give one of isic2018, ham10000, aptos2019, chexpert, medmnist, imagenet, dicom, csv, folder"
    )


@pytest.mark.parametrize("layout", [None, "folder"])
def test_no_images(tmp_path: Path, layout: str | None) -> None:
    write_lines(tmp_path / "a" / "notes.txt", ["text"])
    with pytest.raises(DataError, match=r"no images under it \(looked for a folder a class"):
        read_dataset(tmp_path, DataOptions(layout=layout))


def test_no_folder(tmp_path: Path) -> None:
    assert problem_of(tmp_path / "nothing") == "no such folder"
    assert problem_of(write_lines(tmp_path / "file.csv", ["x"])) == "not a folder"


def test_generated_data_is_called_so(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"a": 9, "b": 9})
    write_lines(tmp_path / "synthetic.json", ['{"recipe": "scenes", "seed": 0, "n": 18}'])
    manifest = read_dataset(tmp_path)
    assert manifest.synthetic
    assert about(manifest, "no ") == (  # and nothing of patients, of whom there are none
        "no official val (15 %) and test (15 %): drawn from all images, stratified by class",
    )


def test_unreadable_images_are_skipped_and_listed(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"a": 40, "b": 40})
    (tmp_path / "a" / "empty.png").touch()
    os.mkfifo(tmp_path / "a" / "fifo.png")
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "b" / "nowhere.png")
    manifest = read_dataset(tmp_path)
    assert manifest.skipped == (
        Skipped("a/empty.png", "file is empty"),
        Skipped("a/fifo.png", "not a regular file"),
        Skipped("b/gone.png", "no such file"),
    )
    assert len(manifest.items) == 80


def test_disk_that_fails_while_hashing_costs_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder_dataset(tmp_path, {"a": 15, "b": 15})
    file_digest = hashlib.file_digest

    def fail(file: BufferedReader, name: str) -> object:
        if Path(f"/proc/self/fd/{file.fileno()}").readlink().name == "0007.png":
            raise OSError(5, "Input/output error")
        return file_digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", fail)
    assert read_dataset(tmp_path).skipped == (Skipped("a/0007.png", "cannot be read (Input/output error)"),)


def test_more_than_five_percent_skipped(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"a": 10, "b": 10})
    for name in ("x", "y"):
        (tmp_path / "a" / f"{name}.png").touch()
    assert problem_of(tmp_path) == (
        "2 of 22 images cannot be used (limit 5%): a/x.png: file is empty; a/y.png: file is empty"
    )


def test_missing_images_of_a_table_count_as_skipped(tmp_path: Path) -> None:
    make_isic_dataset(tmp_path, {"Training": ["MEL", "NV"]})
    write_ground_truth(tmp_path, "Training", ["image,MEL,NV", "ISIC_0000000,1,0", "ISIC_9,0,1"])
    assert problem_of(tmp_path).startswith(
        "1 of 2 images cannot be used (limit 5%): ISIC2018_Task3_Training_Input/ISIC_9"
    )


@pytest.mark.parametrize("is_folder", [True, False])
def test_link_out_of_the_dataset(tmp_path: Path, is_folder: bool) -> None:
    root = make_isic_dataset(tmp_path / "data", {"Training": ["MEL", "NV"] * 9})
    folder = root / "ISIC2018_Task3_Training_Input"
    moved = folder if is_folder else folder / "ISIC_0000003.jpg"
    target = tmp_path / "elsewhere"
    shutil.move(moved, target)
    moved.symlink_to(target)
    assert problem_of(root) == "link leads out of the dataset folder"


def test_link_within_the_dataset_and_a_linked_root(tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path / "data", {"a": 9, "b": 9})
    (root / "a" / "9999.png").symlink_to(root / "a" / "0000.png")
    (tmp_path / "link").symlink_to(root)
    manifest = read_dataset(tmp_path / "link")
    assert manifest.root == root
    assert about(manifest, "1 images") == ('1 images repeat another one (first: "a/9999.png")',)


def test_one_class_only(tmp_path: Path) -> None:
    assert problem_of(make_folder_dataset(tmp_path, {"a": 9})) == 'one class only ("a")'


def test_a_class_with_one_image(tmp_path: Path) -> None:
    assert problem_of(make_folder_dataset(tmp_path, {"a": 9, "rare": 1})) == '"rare" has 1 image; a split needs 2'


def test_a_class_without_images(tmp_path: Path) -> None:
    make_isic_dataset(tmp_path, {"Training": ["MEL", "NV"] * 9})
    assert problem_of(tmp_path) == '"BCC" has 0 images; a split needs 2'


def test_a_class_of_one_group(tmp_path: Path) -> None:
    make_isic_dataset(tmp_path, {"Training": ["MEL"] * 9 + ["NV"] * 9 + ["BCC"] * 3})
    lines = [f"ISIC_{n:07d},{'one' if n >= 18 else n}" for n in range(21)]
    write_lines(tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv", ["image,lesion_id", *lines])
    assert problem_of(tmp_path, "lesion_id") == (
        'the 3 images of "BCC" are of one group, or identical; a split needs 2 groups'
    )


def test_a_class_that_is_not_in_train(tmp_path: Path) -> None:
    official(tmp_path, "train", "val", "test")
    make_folder_dataset(tmp_path / "test", {"c": 2}, first_seed=900)
    assert problem_of(tmp_path) == '"c" has 2 images, none of them in train'


def test_a_class_that_is_only_in_train_warns(tmp_path: Path) -> None:
    official(tmp_path, "train", "val", "test")
    make_folder_dataset(tmp_path / "train", {"c": 2}, first_seed=900)
    manifest = read_dataset(tmp_path)
    assert about(manifest, "no ") == ('no image of "c" in val', 'no image of "c" in test')


def test_no_training_images(tmp_path: Path) -> None:
    assert problem_of(official(tmp_path, "test", "val")) == "no training images"


def test_split_without_images(tmp_path: Path) -> None:
    assert problem_of(make_folder_dataset(tmp_path, {"a": 2, "b": 2})) == "val has no images"


def test_classes_that_differ_only_in_unicode_form(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"nævus é": 5, "nævus e\u0301": 5})
    assert problem_of(tmp_path).startswith('two classes "nævus é" differ only in Unicode form (')


def test_identical_images_in_two_official_splits(tmp_path: Path) -> None:
    official(tmp_path, "train", "val", "test")
    for number in (0, 1):
        shutil.copy(tmp_path / "train" / "a" / f"000{number}.png", tmp_path / "test" / "a" / f"copy{number}.png")
    assert problem_of(tmp_path) == (
        '2 identical images are in train and test (first: "train/a/0000.png" and "test/a/copy0.png")'
    )


def test_identical_images_of_two_labels_warn(tmp_path: Path) -> None:
    official(tmp_path, "train", "val", "test")
    shutil.copy(tmp_path / "train" / "a" / "0000.png", tmp_path / "train" / "b" / "copy.png")
    assert about(read_dataset(tmp_path), "1 images") == (
        '1 images repeat another one (first: "train/b/copy.png")',
        '1 images are there under two labels (first: "train/a/0000.png" and "train/b/copy.png")',
    )


def test_one_group_in_two_official_splits(tmp_path: Path) -> None:
    make_isic_dataset(tmp_path, {"Training": ["MEL", "NV", "BCC"] * 9, "Test": ["MEL", "NV", "BCC"]})
    lines = [f"ISIC_{n:07d},HAM_{0 if n == 27 else n}" for n in range(30)]
    write_lines(tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv", ["image,lesion_id", *lines])
    assert problem_of(tmp_path, "lesion_id") == (
        '1 lesion is in train and test (first: "HAM_0": "ISIC_0000000" and "ISIC_0000027")'
    )


def test_hostile_names_go_through_to_the_pixels(tmp_path: Path) -> None:
    root = tmp_path / "data"
    classes = [
        "\x1b]0;owned\x07",
        "[red]",
        "[@click=quit]",
        "a\nb\tc",
        "\u202edrowssap",
        "\udcff\udcfe",
        "=cmd()",
        "-1",
    ]
    make_folder_dataset(root, dict.fromkeys(classes, 7))
    for name in ("\x1b[2J.png", "x\ny.png", "\udcff.png", "[@click=quit].png"):
        save_image(root / "=cmd()" / name, hash_of(name))
    manifest = read_dataset(root)
    assert set(manifest.classes) == set(classes)
    assert manifest.skipped == ()
    write_manifest(tmp_path / "manifest.json", manifest)
    assert read_manifest(tmp_path / "manifest.json") == manifest
    cache = pixel_cache(root, manifest.items, 7, tmp_path / "cache")
    assert cache.items == manifest.items
    again = read_dataset(shutil.copytree(root, tmp_path / "elsewhere"))
    assert again.digest == manifest.digest


# Tables, arrays and the user's settings, all the way to a manifest


def make_table(root: Path, n: int = 40, header: str = "id,label", *columns: Sequence[object]) -> Path:
    """Images and a table of them with labels "a" and "b" in turn, and columns of the test's own."""
    save_images(root, (f"images/{number:03d}.png" for number in range(n)))
    rows = [(f"{number:03d}", "ab"[number % 2], *(column[number] for column in columns)) for number in range(n)]
    write_table(root / "labels.csv", header, rows)
    return root


def test_a_table_of_patients(tmp_path: Path) -> None:
    make_table(tmp_path, 40, "id,label,patient_id", [f"p{n // 4}" for n in range(40)])
    manifest = read_dataset(tmp_path)
    assert (manifest.layout, manifest.classes, manifest.group_name) == ("csv", ("a", "b"), "patient_id")
    splits: dict[str | None, set[str]] = {}
    for item in manifest.items:
        splits.setdefault(item.group, set()).add(item.split)
    assert len(splits) == 10
    assert all(len(found) == 1 for found in splits.values())
    assert about(manifest, "no ") == (
        "no official val (15 %) and test (15 %): drawn from all images, stratified by class",
    )


def test_a_patient_in_two_official_splits(tmp_path: Path) -> None:
    splits = [("train", "val", "test")[n % 3 if n < 12 else 0] for n in range(40)]
    patients = [f"p{n}" if n != 2 else "p0" for n in range(40)]
    make_table(tmp_path, 40, "id,label,split,PatientID", splits, patients)
    assert problem_of(tmp_path) == '1 patient is in train and test (first: "p0": "images/000.png" and "images/002.png")'
    assert len(read_dataset(tmp_path, DataOptions(group="")).items) == 40
    drawn = read_dataset(tmp_path, DataOptions(split=""))
    assert about(drawn, "no official")


def test_findings_have_their_splits_drawn(tmp_path: Path) -> None:
    names = save_images(tmp_path, (f"images/{number:03d}.png" for number in range(60)))
    rows = [(f"{n:03d}", int(n % 3 == 0), int(n % 5 == 0)) for n in range(60)]
    write_table(names / "labels.csv", "id,Mass,Edema", rows)
    manifest = read_dataset(tmp_path, DataOptions(label=("Mass", "Edema")))
    assert (manifest.task, manifest.classes) == ("multilabel", ("Mass", "Edema"))
    assert {item.id: item.label for item in manifest.items} == {
        f"images/{n:03d}.png": (int(n % 3 == 0), int(n % 5 == 0)) for n in range(60)
    }
    for number in (0, 1):
        found = Counter(item.split for item in manifest.items if item.label[number])  # type: ignore[index]
        assert all(abs(found[split] - found.total() * share / 100) <= 1.5 for split, share in SHARES.items())


def test_one_finding_only(tmp_path: Path) -> None:
    make_table(tmp_path)
    write_table(tmp_path / "labels.csv", "id,finding", [(f"{n:03d}", ("Mass", "none")[n % 2]) for n in range(40)])
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path, DataOptions(task="multilabel"))
    assert caught.value.problem == 'one class only ("Mass")'


def test_an_archive(tmp_path: Path) -> None:
    images = np.stack([noise(seed) for seed in range(60)])
    arrays = {
        f"{split}_{kind}": values[start:stop]
        for split, start, stop in (("train", 0, 40), ("val", 40, 50), ("test", 50, 60))
        for kind, values in (("images", images), ("labels", np.arange(60)[:, None] % 2))
    }
    path = save_arrays(tmp_path / "data" / "my.npz", **arrays)
    manifest = read_dataset(path)
    assert (manifest.root, manifest.layout, manifest.classes) == (path, "medmnist", ("0", "1"))
    assert Counter(item.split for item in manifest.items) == {"train": 40, "val": 10, "test": 10}
    assert all(item.label == int(item.path[-8:]) % 2 for item in manifest.items)
    assert manifest.warnings == ()
    # The folder that holds it is the same dataset, and so is a copy under another name.
    assert read_dataset(path.parent) == manifest
    assert read_dataset(path.rename(tmp_path / "other.npz")).digest == manifest.digest


def test_an_archive_of_training_images_has_splits_drawn(tmp_path: Path) -> None:
    images = np.stack([noise(seed) for seed in range(60)])
    path = save_arrays(tmp_path / "my.npz", train_images=images, train_labels=np.arange(60) % 2)
    manifest = read_dataset(path)
    assert Counter(item.split for item in manifest.items) == {"train": 42, "val": 8, "test": 10}
    path = save_arrays(tmp_path / "test.npz", test_images=images, test_labels=np.arange(60) % 2)
    with pytest.raises(DataError) as caught:
        read_dataset(path)
    assert caught.value.problem == "no training images"


def test_the_user_says_how_many_may_be_skipped(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"a": 10, "b": 10})
    for name in ("x", "y"):
        (tmp_path / "a" / f"{name}.png").touch()
    assert len(read_dataset(tmp_path, DataOptions(max_skipped=0.1)).skipped) == 2
    with pytest.raises(DataError, match="2 of 22 images cannot be used"):
        read_dataset(tmp_path, DataOptions(max_skipped=0.0))


def test_links_are_followed_if_asked_for(tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path / "data", {"a": 9, "b": 9})
    for number, target in ((3, tmp_path / "file.png"), (4, tmp_path / "other.png")):
        shutil.move(root / "a" / f"000{number}.png", target)
        (root / "a" / f"000{number}.png").symlink_to(target)
    assert problem_of(root) == "link leads out of the dataset folder"
    assert len(read_dataset(root, DataOptions(follow_links=True)).items) == 18


@pytest.mark.parametrize("follow_links", [False, True])
def test_a_table_that_is_a_link_out_of_the_dataset(tmp_path: Path, follow_links: bool) -> None:
    root = make_table(tmp_path / "data")
    (root / "labels.csv").rename(tmp_path / "elsewhere.csv")
    (root / "labels.csv").symlink_to(tmp_path / "elsewhere.csv")
    if follow_links:
        assert len(read_dataset(root, DataOptions(follow_links=True)).items) == 40
    else:
        assert problem_of(root) == "link leads out of the dataset folder"


def test_window_and_frame_are_kept_and_change_the_digest(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"a": 9, "b": 9})
    plain = read_dataset(tmp_path)
    other = read_dataset(tmp_path, DataOptions(window=(0.0, 4095.0), frame=1))
    assert (plain.decoding, other.decoding) == (Decoding(), Decoding((0.0, 4095.0), 1))
    assert plain.items == other.items
    assert plain.digest != other.digest


def test_an_origin_is_all_test_images(tmp_path: Path) -> None:
    for n, name in enumerate(("train", "val", "test")):
        make_folder_dataset(tmp_path / name, {"a": 6, "b": 6}, first_seed=100 * n)
    manifest = read_origin(tmp_path)
    assert {item.split for item in manifest.items} == {"test"}
    assert (len(manifest.items), manifest.warnings) == (36, ())


def test_an_origin_that_is_too_small(tmp_path: Path) -> None:
    make_folder_dataset(tmp_path, {"a": 10, "b": 10})
    with pytest.raises(DataError) as caught:
        read_origin(tmp_path)
    assert caught.value.problem == "20 images; k-NN with k = 20 needs 21"


def hash_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:6])
