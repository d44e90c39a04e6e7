"""Tables as files: each format reads back to the same cells, and nothing from outside is obeyed."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from engine.analysis.options import TableOptions
from engine.analysis.table import Table
from engine.analysis.tables import table_of
from engine.errors import MachineError, StudyError
from engine.export import FORMATS, format_of, to_bytes, to_csv, to_latex, to_markdown, write_table
from engine.files import sha256_file
from engine.runs.study_folder import StudyFolder
from engine.sources import sources_of, write_sources
from tests.simtui.studies import study_of, write_study

TABLE = Table(
    "made",
    ("name", "n", "value", "mixed", "nothing"),
    (("a", 1, 0.123456789012, 2, None), ("b", 2, None, 0.5, None), ("c", 3, math.inf, None, None)),
    ("a note",),
)
HOSTILE = ("=1+1", "a|b", "x\ny", "50 % & $5_#^~{}\\", "<script>", "`code`", "\x1b[31m\u202e", "caf\udce9")


def test_csv_has_nine_digits_and_empty_cells_for_no_value() -> None:
    rows = list(csv.reader(io.StringIO(to_csv(TABLE))))
    assert rows[0] == list(TABLE.columns)
    assert rows[1:] == [["a", "1", "0.123456789", "2", ""], ["b", "2", "", "0.5", ""], ["c", "3", "", "", ""]]


def test_parquet_keeps_types_every_digit_and_the_notes() -> None:
    found = pyarrow.parquet.read_table(io.BytesIO(to_bytes(TABLE, "parquet")))
    assert [str(field.type) for field in found.schema] == ["string", "int64", "double", "double", "double"]
    assert found.column("value").to_pylist() == [0.123456789012, None, None]
    assert found.column("mixed").to_pylist() == [2.0, 0.5, None]
    assert found.schema.metadata[b"simtui.notes"] == b"a note" and found.schema.metadata[b"simtui.table"] == b"made"


def test_markdown_rounds_and_lists_the_notes() -> None:
    lines = to_markdown(TABLE, digits=3).splitlines()
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == ["a", "1", "0.123", "2", ""]
    assert set(lines[1]) <= set("|-: ") and lines[-1] == "- a note"


def test_latex_is_a_booktabs_table_with_its_notes_as_comments() -> None:
    text = to_latex(TABLE, digits=3)
    assert text.startswith("% a note\n\\begin{tabular}{lrrrr}\n\\toprule\n")
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\hline")] == [1, 1, 1, 0]
    assert text.rstrip().endswith(r"\end{tabular}")


@pytest.mark.parametrize("file_format", sorted(FORMATS))
def test_hostile_names_stay_in_their_cells(file_format: str) -> None:
    table = Table("hostile", ("name", "value_%"), tuple((name, 1.0) for name in HOSTILE), ("a\nnote | % _",))
    content = to_bytes(table, file_format)
    if file_format == "parquet":
        names = pyarrow.parquet.read_table(io.BytesIO(content)).column("name").to_pylist()
        assert names[:-1] == list(HOSTILE[:-1]) and names[-1] == "caf\\udce9"
        return
    text = content.decode("utf-8", "surrogateescape")
    if file_format in ("csv", "tsv"):
        rows = list(csv.reader(io.StringIO(text), delimiter="," if file_format == "csv" else "\t"))[1:]
        assert [row[0] for row in rows] == ["'=1+1", *HOSTILE[1:]]
        return
    assert "\x1b" not in text and "\u202e" not in text
    lines = text.splitlines()
    if file_format == "markdown":
        body = lines[2 : 2 + len(HOSTILE)]
        assert len(lines) == 2 + len(HOSTILE) + 2
        assert all(line.replace(r"\|", "").count("|") == 3 for line in body)
        assert not any("<script>" in line.replace(r"\<", "") for line in body)
    else:
        assert len(lines) == 1 + 3 + 1 + len(HOSTILE) + 2  # note, begin and rules, header, rows, rule and end
        row = next(line for line in lines if "50" in line)
        assert row.count("&") == 1 + row.count(r"\&")
        assert r"\%" in row and r"\$5\_\#\textasciicircum{}\textasciitilde{}\{\}\textbackslash{}" in row


@pytest.mark.parametrize("file_format", sorted(FORMATS))
def test_a_table_without_rows_is_a_table(file_format: str) -> None:
    content = to_bytes(Table("empty", ("a", "b"), ()), file_format)
    assert b"a" in content


@pytest.mark.parametrize(
    ("name", "expected"),
    [("x.csv", "csv"), ("x.MD", "markdown"), ("x.tex", "latex"), ("x.tsv", "tsv"), ("x.parquet", "parquet"),
     ("x.txt", "csv"), ("x", "csv")],
)  # fmt: skip
def test_the_name_of_a_file_says_its_format(name: str, expected: str) -> None:
    assert format_of(Path(name)) == expected


def test_an_unknown_format_and_a_missing_library_are_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StudyError, match="choose one of csv, tsv, markdown, latex, parquet"):
        to_bytes(TABLE, "xlsx")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MachineError, match="needs pyarrow"):
        to_bytes(TABLE, "parquet")


class TestSources:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> StudyFolder:
        return StudyFolder(write_study(tmp_path / "study", study_of(("bundled:supervised",), seeds=2, epochs=2)))

    def test_they_name_the_digest_of_every_file_behind_a_table(self, folder: StudyFolder, tmp_path: Path) -> None:
        options = TableOptions(by="method", eta=0.9)
        table = table_of(folder, "forgetting", options)
        path = tmp_path / "forgetting.csv"
        write_table(table, path)
        found = json.loads(write_sources(path, folder, table, options).read_text())
        assert (tmp_path / "forgetting.csv.sources.json").exists()
        assert found["columns"] == list(table.columns) and found["notes"] == list(table.notes)
        assert found["options"] == {"by": "method"}  # what the table does not go by is not said
        assert found["study"]["study.toml_sha256"] == sha256_file(folder.study_file_path)
        assert len(found["runs"]) == 6
        for run_id, each in found["runs"].items():
            assert each["files_sha256"]["results.h5"] == sha256_file(folder.run_path(run_id) / "results.h5")

    def test_a_table_of_one_run_names_that_run_alone(self, folder: StudyFolder) -> None:
        options = TableOptions(run="full_seed01")
        found = sources_of(folder, table_of(folder, "heatmap", options), options)
        assert len(found["runs"]) == 1 and "full_seed01" in next(iter(found["runs"]))

    def test_runs_that_are_not_in_the_table_are_not_named(self, folder: StudyFolder) -> None:
        table = table_of(folder, "epochs", TableOptions())
        assert set(sources_of(folder, table, TableOptions())["runs"]) == set(table.column("run"))
