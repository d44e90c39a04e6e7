"""`.npz` files row by row, and each way in which one is damaged, hostile or merely another kind."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.data import npz
from engine.data.npz import NpzFile, row_of_path, row_path
from engine.errors import DataError
from tests.engine.data.making import save_arrays

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 3, 4, 3), dtype=np.uint8)


def npy_bytes(values: NDArray[Any], version: tuple[int, int] = (1, 0), *, pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, values, version=version, allow_pickle=pickle)
    return file.getvalue()


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def refused(path: Path, name: str = "x") -> str:
    with pytest.raises(DataError) as caught:
        NpzFile(path).array(name)
    assert caught.value.where == str(path)
    assert caught.value.fix
    return caught.value.problem


@pytest.mark.parametrize("rows", [[], [0], [19], [0, 1, 2], [3, 7, 8, 19], list(range(20))])
def test_rows_in_one_pass(tmp_path: Path, rows: list[int]) -> None:
    archive = NpzFile(save_arrays(tmp_path / "a.npz", x=IMAGES, y=np.arange(20)))
    assert archive.names == ("x", "y")
    assert archive.header("x").shape == (20, 3, 4, 3)
    assert archive.header("x").row_bytes == 36
    found = list(archive.rows("x", rows))
    assert len(found) == len(rows)
    for row, values in zip(rows, found, strict=True):
        np.testing.assert_array_equal(values, IMAGES[row])


def test_stored_without_compression_and_in_version_2(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=IMAGES)
    np.testing.assert_array_equal(NpzFile(tmp_path / "a.npz").array("x"), IMAGES)
    path = zipped(tmp_path / "b.npz", x=npy_bytes(IMAGES, (2, 0)), other=b"")
    np.testing.assert_array_equal(NpzFile(path).array("x"), IMAGES)


def test_row_that_is_not_there(tmp_path: Path) -> None:
    archive = NpzFile(save_arrays(tmp_path / "a.npz", x=IMAGES))
    with pytest.raises(DataError, match="x is cut short"):
        list(archive.rows("x", [20]))


def test_no_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "a.npz") == "no such file"


@pytest.mark.parametrize(
    ("content", "problem"), [(b"", "file is empty"), (b"text", "not an .npz file (File is not a zip file)")]
)
def test_not_an_archive(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    assert refused(tmp_path / "a.npz") == problem


def test_cut_short(tmp_path: Path) -> None:
    path = save_arrays(tmp_path / "a.npz", x=IMAGES)
    path.write_bytes(path.read_bytes()[:-30])
    assert refused(path).startswith("not an .npz file (")


def test_array_that_is_not_there(tmp_path: Path) -> None:
    assert refused(save_arrays(tmp_path / "a.npz", y=IMAGES)).startswith("x is damaged (")


def test_changed_bytes(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", x=npy_bytes(IMAGES))
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    assert refused(path).startswith("x is damaged (Bad CRC-32")


def test_changed_bytes_far_behind_the_header(tmp_path: Path) -> None:
    values = np.zeros((200, 1000), np.uint8)
    path = zipped(tmp_path / "a.npz", x=npy_bytes(values))
    content = bytearray(path.read_bytes())
    content[150_000] ^= 1
    path.write_bytes(content)
    archive = NpzFile(path)
    assert len(list(archive.rows("x", range(100)))) == 100
    with pytest.raises(DataError, match=r"x is damaged \(Bad CRC-32"):
        list(archive.rows("x", range(200)))


def test_pickled_objects_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    path = zipped(tmp_path / "a.npz", x=npy_bytes(np.array([{"a": 1}, None], dtype=object), pickle=True))
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("unpickled"))
    monkeypatch.setattr(pickle, "loads", lambda *_, **__: pytest.fail("unpickled"))
    assert refused(path) == "x holds pickled objects, which can run code; refused"


def test_more_than_is_stored(tmp_path: Path) -> None:
    content = npy_bytes(IMAGES).replace(b"(20, 3, 4, 3)", b"(99, 3, 4, 3)")
    assert refused(zipped(tmp_path / "a.npz", x=content)) == "x declares 3564 bytes, stores 720"
    content = npy_bytes(IMAGES).replace(b"(20, 3, 4, 3)", b"(19, 3, 4, 3)")
    assert refused(zipped(tmp_path / "a.npz", x=content)) == "x declares 684 bytes, stores 720"


def test_fortran_order(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", x=npy_bytes(np.asfortranarray(np.arange(6).reshape(2, 3))))
    assert refused(path) == "x is (2, 3) in Fortran order, which is not read"
    path = zipped(tmp_path / "b.npz", x=npy_bytes(np.asfortranarray(np.arange(6))))
    assert NpzFile(path).array("x").tolist() == [0, 1, 2, 3, 4, 5]


def test_a_version_that_is_not_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", x=npy_bytes(IMAGES, (3, 0)))
    assert refused(path) == "x is in version (3, 0) of .npy"


def test_header_that_is_none(tmp_path: Path) -> None:
    assert refused(zipped(tmp_path / "a.npz", x=b"text, and no magic number")).startswith("x is damaged (")
    content = npy_bytes(IMAGES).replace(b"'shape'", b"'sharp'")
    assert refused(zipped(tmp_path / "b.npz", x=content)).startswith("x is damaged (")


def test_rows_and_labels_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_arrays(tmp_path / "a.npz", x=IMAGES)
    monkeypatch.setattr(npz, "_MAX_LABEL_BYTES", 719)
    assert refused(path) == "x is (20, 3, 4, 3), too large for labels"
    monkeypatch.setattr(npz, "_MAX_ROW_BYTES", 35)
    assert refused(path) == "x is (20, 3, 4, 3), which is not read"


def test_paths_of_rows() -> None:
    assert row_path("train_images", 7) == "train_images/00000007"
    for row in (0, 99_999_999, 100_000_000):
        assert row_of_path(row_path("val_images", row)) == ("val_images", row)
    assert sorted(row_path("x", row) for row in (2, 10, 1)) == [row_path("x", row) for row in (1, 2, 10)]


@pytest.mark.parametrize("path", ["", "x", "x/1", "a/x/00000001", "x/0000000a", "x/00000001.png"])
def test_paths_of_no_row(path: str) -> None:
    with pytest.raises(ValueError, match="names no row of an array"):
        row_of_path(path)
