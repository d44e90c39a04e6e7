"""CSV tables: what is read, and the line that every error names."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.table import read_lines, read_table
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


@pytest.mark.parametrize(
    ("name", "header", "columns"),
    [
        ("t.csv", "image,label", ("image", "label")),
        ("t.csv", "image;label", ("image", "label")),
        ("t.csv", "image\tlabel", ("image", "label")),
        ("t.csv", "image", ("image",)),
        ("t.csv", '"image, or path";label', ("image, or path", "label")),
        ("t.csv", '"size, in mm";"age; in years";label', ("size, in mm", "age; in years", "label")),
        ("t.tsv", "image\tsize, in mm", ("image", "size, in mm")),
        ("t.tab", '"image"\t"dx"', ("image", "dx")),
        ("t.csv", ",image,label", ("", "image", "label")),
    ],
)
def test_delimiters(tmp_path: Path, name: str, header: str, columns: tuple[str, ...]) -> None:
    delimiter = next((one for one in "\t;" if one in header.replace("; in", "")), ",")
    (tmp_path / name).write_text(f"{header}\n{delimiter.join('x' * len(columns))}\n")
    table = read_table(tmp_path / name)
    assert table.columns == columns
    assert table.values(columns[-1]) == ["x"]


def test_numbers_with_decimal_commas(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image;age;label\na;40,5;x\n")
    assert read_table(tmp_path / "t.csv").values("age") == ["40,5"]


def test_a_field_without_end(tmp_path: Path) -> None:
    message = refused(tmp_path / "table.csv", b"image,label\na," + b"x" * 200_000)
    assert message.startswith("table.csv line 2: not CSV (field larger than field limit (131072))\n")
    assert "not CSV" in refused(tmp_path / "table.csv", b"x" * 200_000)


def test_errors_of_a_table_and_of_a_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image\na\n")
    table = read_table(tmp_path / "t.csv")
    assert str(table.refusal("is odd", "mend it")) == f"{tmp_path / 't.csv'}: is odd\n  fix: mend it"
    assert str(table.error(2, "is odd", "mend it")) == f"{tmp_path / 't.csv'} line 2: is odd\n  fix: mend it"


def test_lines_of_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbfa\r\n\nb c\n")
    assert read_lines(tmp_path / "t.txt") == ["a", "", "b c"]
    (tmp_path / "t.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(DataError, match=r"t\.txt line 2: not UTF-8"):
        read_lines(tmp_path / "t.txt")


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
