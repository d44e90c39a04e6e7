"""Where bytes come from: hashes and squares of files and of rows, and content that is no longer what it was."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.data.images import decode_square, open_regular, square_of_array
from engine.data.intensity import AS_STORED, Decoding
from engine.data.manifest import Item, Skipped
from engine.data.sources import FolderSource, NpzSource, Source, source_of
from engine.errors import DataError, ImageError
from tests.engine.data.making import noise, save_arrays, save_images

SIDE = 8
ROWS = np.stack([noise(seed) for seed in range(9)])


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return save_arrays(tmp_path / "my.npz", train_images=ROWS[:6], test_images=ROWS[6:, :, :, 0])


def items_of(source: Source, paths: list[str]) -> list[Item]:
    hashes = [found for found in source.hashes(paths) if isinstance(found, str)]
    return [Item(path, path, 0, "train", sha256) for path, sha256 in zip(paths, hashes, strict=True)]


def test_the_source_of_a_root(tmp_path: Path, npz: Path) -> None:
    assert isinstance(source_of(npz), NpzSource)
    assert isinstance(source_of(tmp_path), FolderSource)
    (tmp_path / "folder.npz").mkdir()
    assert isinstance(source_of(tmp_path / "folder.npz"), FolderSource)


# Files


def test_hashes_of_files_in_order(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(300)]  # more than are handed out at a time
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "7.png").unlink()
    (tmp_path / "280.png").write_bytes(b"")
    found = list(FolderSource(tmp_path).hashes(names))
    expected: list[str | Skipped] = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    expected[7] = Skipped("7.png", "no such file")
    expected[280] = Skipped("280.png", "file is empty")
    assert found == expected


def test_squares_of_files_in_order(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(5)]
    save_images(tmp_path, names)
    (tmp_path / "3.png").write_text("not a picture")
    source = FolderSource(tmp_path)
    found = list(source.squares(items_of(source, names), SIDE, AS_STORED))
    for name, one in zip(names, found, strict=True):
        if name == "3.png":
            assert isinstance(one, ImageError)
            assert one.problem == "not an image"
        else:
            with open_regular(tmp_path / name) as file:
                assert not isinstance(one, Exception)
                np.testing.assert_array_equal(one.pixels, decode_square(file, tmp_path / name, SIDE).pixels)


def test_what_the_user_has_to_decide_is_given_and_not_raised(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 100).save(tmp_path / "0.png")
    source = FolderSource(tmp_path)
    items = items_of(source, ["0.png"])
    (found,) = source.squares(items, SIDE, AS_STORED)
    assert isinstance(found, DataError)
    (found,) = source.squares(items, SIDE, Decoding((0.0, 6300.0)))
    assert not isinstance(found, Exception)
    assert (found.pixels[0, 0, 0], found.pixels[-1, -1, 0]) == (0, 255)


@pytest.mark.parametrize(
    ("change", "seen"), [("other", "other content"), ("empty", "file is empty"), ("gone", "no such file")]
)
def test_a_file_that_has_changed(tmp_path: Path, change: str, seen: str) -> None:
    save_images(tmp_path, ["0.png", "1.png"])
    source = FolderSource(tmp_path)
    items = items_of(source, ["0.png", "1.png"])
    if change == "gone":
        (tmp_path / "1.png").unlink()
    else:
        (tmp_path / "1.png").write_bytes(b"" if change == "empty" else (tmp_path / "0.png").read_bytes())
    with pytest.raises(DataError) as caught:
        list(source.squares(items, SIDE, AS_STORED))
    assert caught.value.where == str(tmp_path / "1.png")
    assert caught.value.problem.startswith("changed since the dataset was read (")
    assert seen in caught.value.problem
    assert caught.value.fix == "read the dataset again"


# Rows


def paths_of(rows: list[int]) -> list[str]:
    return [f"train_images/{row:08d}" if row < 6 else f"test_images/{row - 6:08d}" for row in rows]


@pytest.mark.parametrize("rows", [[0, 1, 2], [5, 0, 3], [8, 1, 6, 2, 7], [2, 2, 0], [6, 7, 8, 0, 5], list(range(9))])
def test_squares_of_rows_in_any_order(npz: Path, rows: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NpzSource, "_BLOCK", 2)
    source = NpzSource(npz)
    paths = paths_of(rows)
    found = list(source.squares(items_of(source, paths), SIDE, AS_STORED))
    assert len(found) == len(rows)
    for row, one in zip(rows, found, strict=True):
        values = ROWS[row] if row < 6 else ROWS[row, :, :, 0]
        assert not isinstance(one, Exception)
        np.testing.assert_array_equal(one.pixels, square_of_array(values, SIDE).pixels)


def test_hashes_of_rows_are_of_shape_and_bytes(tmp_path: Path, npz: Path) -> None:
    source = NpzSource(npz)
    hashes = list(source.hashes(paths_of(list(range(9)))))
    assert len(set(hashes)) == 9
    assert hashes[1] == hashlib.sha256(b"(12, 16, 3)\n" + ROWS[1].tobytes()).hexdigest()
    # The same images elsewhere in another file have the same hashes; in another shape they are others.
    other = save_arrays(tmp_path / "other.npz", val_images=ROWS[:6][::-1])
    again = list(NpzSource(other).hashes([f"val_images/{row:08d}" for row in range(6)]))
    assert again == hashes[:6][::-1]
    flat = save_arrays(tmp_path / "flat.npz", val_images=ROWS[:6].reshape(6, 16, 12, 3))
    assert not set(NpzSource(flat).hashes([f"val_images/{row:08d}" for row in range(6)])) & set(hashes)


def test_a_row_that_has_changed(npz: Path) -> None:
    source = NpzSource(npz)
    items = items_of(source, paths_of([0, 1, 2]))
    items[1] = replace(items[1], sha256="0" * 64)
    with pytest.raises(DataError) as caught:
        list(source.squares(items, SIDE, AS_STORED))
    assert caught.value.where == f"{npz} train_images/00000001"
    assert caught.value.problem == "changed since the dataset was read (other content)"
