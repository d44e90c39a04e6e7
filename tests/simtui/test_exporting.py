"""Where an export goes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.analysis.options import TableOptions
from engine.analysis.table import Table
from engine.errors import MachineError
from simtui.exporting import export_csv, name_of

TABLE = Table("runs", ("a", "b"), (("=cmd()", 0.5), ("x", None)))


def test_an_export_never_overwrites(tmp_path: Path) -> None:
    paths = [export_csv(TABLE, "my study-runs", (tmp_path,)) for _ in range(3)]
    assert [path.name for path in paths] == ["my-study-runs.csv", "my-study-runs-2.csv", "my-study-runs-3.csv"]
    assert paths[2].read_text() == "a,b\n'=cmd(),0.5\nx,\n"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/x", "a\x1b[31m\nb", "...", "-", "é" * 300])
def test_a_name_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    path = export_csv(TABLE, name, (tmp_path,))
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
    assert export_csv(TABLE, "x", (closed, home)).parent == home
    with pytest.raises(MachineError, match="cannot be written"):
        export_csv(TABLE, "x", (closed,))


def test_a_name_says_what_differs_from_the_defaults() -> None:
    options = TableOptions(measure="rsa", layer="blocks.3", eta=0.5, epsilon=0.1, by="method")
    assert name_of("s", Table("forgetting", (), ()), options) == "s-forgetting-method"
    assert name_of("s", Table("space", (), ()), options) == "s-space-blocks.3-rsa-eta0.5-epsilon0.1"
    assert name_of("s", Table("runs", (), ()), options) == "s-runs"
    assert name_of("s", Table("heatmap", (), ()), TableOptions(run="r", epoch=0)) == "s-heatmap-r-epoch0"
