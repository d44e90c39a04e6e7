"""CSV tables: what is read, and the line that every error names."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.table import read_table
from engine.errors import DataError


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_table(path)
    return str(caught.value).replace(f"{path}", "table.csv")


def test_rows_columns_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b'\xef\xbb\xbfimage, label\r\n\r\n"a,1",NV\r\n"two\nlines", MEL \r\n')
    table = read_table(path)
    assert table.columns == ("image", "label")
    assert [list(row.cells.values()) for row in table.rows] == [["a,1", "NV"], ["two\nlines", "MEL"]]
    assert [row.line for row in table.rows] == [3, 5]


def test_ragged_row(tmp_path: Path) -> None:
    message = refused(tmp_path / "table.csv", b"a,b,c\n1,2,3\n\n1,2,3\n1,2,3,4\n")
    assert message.startswith("table.csv line 5: 4 fields, expected 3\n  fix: ")


def test_wrong_encoding(tmp_path: Path) -> None:
    message = refused(tmp_path / "table.csv", "image\na\nb\nméla\n".encode("latin-1"))
    assert message.startswith("table.csv line 4: not UTF-8\n")


def test_not_csv(tmp_path: Path) -> None:
    assert "table.csv line 2: not CSV (unexpected end of data)" in refused(tmp_path / "table.csv", b'image\n"open')


def test_same_column_twice(tmp_path: Path) -> None:
    assert "table.csv line 1: the same column twice" in refused(tmp_path / "table.csv", b"image,NV,NV\n")


def test_empty_table(tmp_path: Path) -> None:
    assert "table.csv: no header line" in refused(tmp_path / "table.csv", b"\n\n")


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "table.csv")


def test_missing_column_names_the_near_one(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("id,path,lable\n")
    with pytest.raises(DataError) as caught:
        read_table(path).require("label")
    assert caught.value.problem == 'no column "label"; found id, path, lable; did you mean "lable"?'
    with pytest.raises(DataError) as caught:
        read_table(path).require("quality")
    assert caught.value.problem == 'no column "quality"; found id, path, lable'
