"""Where an export goes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.analysis.options import TableOptions
from engine.analysis.table import Table
from engine.errors import MachineError
from simtui.exporting import copied_text, free_paths, name_of, save_copied, save_table
from simtui.reader import Snapshot

TABLE = Table("runs", ("a", "b"), (("=cmd()", 0.5), ("x", None)))


def _snapshot(study: Path) -> Snapshot:
    return Snapshot(study, "my study")


def test_an_export_never_overwrites_and_has_its_sources(study: Path, tmp_path: Path) -> None:
    for _ in range(3):
        said = save_table(TABLE, TableOptions(), _snapshot(study))
    names = sorted(path.name for path in Path.cwd().iterdir() if path.suffix == ".csv")
    assert names == ["my-study-runs-2.csv", "my-study-runs-3.csv", "my-study-runs.csv"]
    assert said == f"wrote {Path.cwd() / 'my-study-runs-3.csv'}"
    assert Path("my-study-runs-3.csv").read_text() == "a,b\n'=cmd(),0.5\nx,\n"
    assert Path("my-study-runs-3.csv.sources.json").exists()


def test_names_of_several_files_are_free_together(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    assert [path.name for path in free_paths((tmp_path,), "x", (".svg", ".png"))] == ["x-2.svg", "x-2.png"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/x", "a\x1b[31m\nb", "...", "-", "é" * 300])
def test_a_name_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    (path,) = free_paths((tmp_path,), name, (".csv",))
    assert path.parent == tmp_path
    assert path.name.isascii() and path.name.isprintable() and len(path.name) < 140
    assert not path.name.startswith((".", "-"))


def test_the_next_folder_is_taken_where_the_first_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, home = tmp_path / "closed", tmp_path / "home"
    closed.mkdir()
    home.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed)  # root may write anywhere
    assert free_paths((closed, home), "x", (".csv",))[0].parent == home
    with pytest.raises(MachineError, match="cannot be written"):
        free_paths((closed,), "x", (".csv",))


def test_what_is_copied_is_in_a_file_too() -> None:
    text = copied_text(TABLE)
    assert text == "a\tb\n'=cmd()\t0.5\nx\t\n"
    said = save_copied(TABLE, is_copied=True)
    path = Path(said.rpartition(" in ")[2])
    assert path.read_text() == text and said.startswith("copied 2 rows")


def test_what_terminals_would_drop_goes_into_the_file_only() -> None:
    large = Table("runs", ("a",), tuple((f"run {i}" * 10,) for i in range(1000)))
    assert copied_text(large) is None
    said = save_copied(large, is_copied=False)
    assert "more than terminals copy" in said
    assert len(Path(said.rpartition(" in ")[2]).read_text().splitlines()) == 1001


def test_a_name_says_what_differs_from_the_defaults() -> None:
    options = TableOptions(measure="rsa", layer="blocks.3", eta=0.5, epsilon=0.1, by="method")
    assert name_of("s", Table("forgetting", (), ()), options) == "s-forgetting-method"
    assert name_of("s", Table("space", (), ()), options) == "s-space-blocks.3-rsa-eta0.5-epsilon0.1"
    assert name_of("s", Table("runs", (), ()), options) == "s-runs"
    assert name_of("s", Table("heatmap", (), ()), TableOptions(run="r", epoch=0)) == "s-heatmap-r-epoch0"
