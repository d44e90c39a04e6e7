"""What a dataset is said to be: counts, sizes, problems once each with their files, and costs; nothing is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data.inspection import Inspection, Problem, inspect_dataset
from engine.data.options import DataOptions
from engine.data.read import read_dataset
from engine.errors import DataError
from tests.engine.data.making import make_folder_dataset, noise, save_image, write_lines


def inspected(root: Path, **options: object) -> Inspection:
    return inspect_dataset(root, DataOptions(**options))  # type: ignore[arg-type]


def test_counts_sizes_modes_and_costs(tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path, {"a": 20, "b": 10})
    Image.fromarray(noise(900, 40, 30)).convert("L").save(root / "a" / "grey.png")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    found = inspected(root)
    assert (found.layout, found.task, found.classes, found.n_images) == ("folder", "single", ("a", "b"), 31)
    assert {name: sum(n.values()) for name, n in found.n_of.items()} == {"a": 21, "b": 10}
    assert sum(found.n_of_split.values()) == 31 and set(found.n_of_split) == {"train", "val", "test"}
    assert found.sizes == ((16, 12), (16, 12), (40, 30)) and found.modes == {"RGB": 30, "L": 1}
    assert found.cache_bytes == 31 * 256 * 256 * 3 and found.n_decoded == 31
    assert found.is_usable and found.digest == read_dataset(root).digest
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_problem_is_said_once_with_its_count_and_first_files(tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path, {"a": 60, "b": 60})
    for n in range(5):
        write_lines(root / "a" / f"text{n}.jpg", [f"no image {n}"])
    (root / "b" / "empty.png").touch()
    Image.fromarray((noise(1).astype(np.uint16) * 200)[..., 0]).save(root / "b" / "deep.png")
    found = inspected(root)
    stops, skipped = found.problems[0], [each for each in found.problems if each.severity == "skipped"]
    assert (stops.severity, stops.n, stops.files) == ("stops", 1, ("b/deep.png",))
    assert stops.text == '16-bit image; set data.window = [low, high] or "auto"' and stops.fix
    assert skipped[0] == Problem("skipped", "not an image", 5, ("a/text0.jpg", "a/text1.jpg", "a/text2.jpg"))
    assert skipped[1] == Problem("skipped", "file is empty", 1, ("b/empty.png",))
    assert not found.is_usable
    assert inspected(root, window="auto", max_skipped=0.1).is_usable


def test_too_many_unusable_images_stop_a_study(tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path, {"a": 20, "b": 20})
    for n in range(3):
        write_lines(root / "a" / f"text{n}.jpg", [f"no image {n}"])
    found = inspected(root)
    assert found.problems[0].text == "3 of 43 images cannot be used (limit 5%)"
    assert not found.is_usable and inspected(root, max_skipped=0.1).is_usable


def test_an_odd_image_is_counted_not_refused(tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path, {"a": 20, "b": 20})
    Image.fromarray(noise(900)).convert("CMYK").save(root / "a" / "press.jpg")
    assert Problem("said", "CMYK, converted to RGB", 1, ("a/press.jpg",)) in inspected(root).problems


def test_groups_and_repeats(tmp_path: Path) -> None:
    for n in range(40):
        save_image(tmp_path / f"{n}.png", n // 2 if n < 4 else n)
    lines = [f"{n}.png,{'ab'[n // 2 % 2]},p{n // 2}" for n in range(40)]
    write_lines(tmp_path / "labels.csv", ["image,label,patient_id", *lines])
    found = inspected(tmp_path)
    assert (found.group_name, found.n_groups, found.n_repeats) == ("patient_id", 20, 2)


def test_findings_are_counted_by_class_and_thumbnails_name_them(tmp_path: Path) -> None:
    lines = []
    for n in range(40):
        save_image(tmp_path / f"{n}.png", n)
        lines.append(f"{n}.png,{n % 2},{n % 3 == 0:d}")
    write_lines(tmp_path / "labels.csv", ["image,edema,mass", *lines])
    found = inspect_dataset(tmp_path, DataOptions(label=("edema", "mass")), n_thumbnails=6, thumbnail_side=8)
    assert found.task == "multilabel" and found.n_images == 40
    assert {name: sum(n.values()) for name, n in found.n_of.items()} == {"edema": 20, "mass": 14}
    assert {each.label for each in found.thumbnails} == {"edema", "mass", "edema, mass", "no finding"}
    assert all(each.pixels.shape == (8, 8, 3) for each in found.thumbnails)


def test_only_some_images_are_decoded_on_request(tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path, {"a": 30, "b": 30})
    told: list[tuple[int, int]] = []
    found = inspect_dataset(root, DataOptions(), n_images=10, progress=lambda *at: told.append(at))
    assert found.n_decoded == 10 and found.n_images == 60 and told[-1] == (10, 10)


def test_a_thumbnail_is_the_image_in_small(tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path, {"a": 10, "b": 10})
    halves = np.zeros((60, 60, 3), np.uint8)
    halves[:, 30:] = (200, 100, 50)
    for path in root.rglob("*.png"):
        Image.fromarray(np.roll(halves, 0) + np.uint8(hash_of(path) % 5)).save(path)
    found = inspect_dataset(root, DataOptions(), n_thumbnails=2, thumbnail_side=4)
    for each in found.thumbnails:
        assert np.abs(each.pixels[:, 0].astype(int)).max() < 8
        assert np.abs(each.pixels[:, 3].astype(int) - (200, 100, 50)).max() < 8


def hash_of(path: Path) -> int:
    return int(path.stem)


def test_an_origin_set_needs_no_splits_but_enough_images(tmp_path: Path) -> None:
    root = make_folder_dataset(tmp_path / "many", {"a": 12, "b": 12, "c": 1})
    found = inspect_dataset(root, DataOptions(), is_origin=True)
    assert found.n_of_split == {"test": 25} and found.is_usable
    few = make_folder_dataset(tmp_path / "few", {"a": 4, "b": 4})
    found = inspect_dataset(few, DataOptions(), is_origin=True)
    assert found.problems[0].text == "8 images; k-NN with k = 20 needs 21" and not found.is_usable


def test_all_that_stops_a_study_is_listed_at_once(tmp_path: Path) -> None:
    """Two classes of one image, an image of 16 bits, one that is none; reading for a study stops at the first."""
    root = make_folder_dataset(tmp_path, {"a": 40, "b": 40, "c": 1, "d": 1})
    Image.fromarray((noise(1).astype(np.uint16) * 200)[..., 0]).save(root / "b" / "deep.png")
    write_lines(root / "a" / "text.jpg", ["no image"])
    found = inspected(root)
    stops = [each.text for each in found.problems if each.severity == "stops"]
    assert [text for text in stops if "split needs 2" in text] == [
        f'"{name}" has 1 image; a split needs 2' for name in "cd"
    ]
    assert any("16-bit" in text for text in stops) and not found.is_usable
    assert all(each.fix for each in found.problems if each.severity == "stops")
    assert any(each.severity == "skipped" and each.files == ("a/text.jpg",) for each in found.problems)
    assert any(each.text.startswith("few images for training") for each in found.problems)
    with pytest.raises(DataError, match='"c" has 1 image; a split needs 2'):
        read_dataset(root)
