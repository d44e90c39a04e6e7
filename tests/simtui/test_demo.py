"""The tables of the demo where there is no terminal: every backbone can be told from the others at 80 columns."""

from __future__ import annotations

import pytest

from simtui.demo import print_tables
from simtui.recent import sample_study


def test_the_tables_of_a_study_fit_80_columns_with_whole_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_tables(sample_study())
    printed = capsys.readouterr().out
    assert "supervised" in printed and "image-text" in printed
    assert "…" not in printed
    assert "0.764" in printed  # origin k-NN of the supervised backbone before fine-tuning
