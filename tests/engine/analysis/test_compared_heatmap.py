"""The heatmap of a run beside that of another: values, difference, and what cannot be compared."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from engine.analysis.heatmap import compared_heatmap_table
from engine.errors import StudyError
from engine.runs.record import RunRecord
from engine.runs.results import Results, SimilarityKey
from engine.study import run_specs
from tests.simtui.studies import made_record, study_of

KEY = SimilarityKey("target", "cls", "linear_cka")
SPECS = run_specs(study_of(("bundled:supervised",), seeds=1, epochs=1))
MINE = Results(("a", "b"), {KEY: np.array([[[0.5, 0.25], [math.nan, 1.0]]], np.float32)})
THEIRS = Results(("a", "b"), {KEY: np.array([[[0, 0], [0, 0]], [[0.75, 0.25], [0.5, math.nan]]], np.float32)})


def _records() -> list[RunRecord]:
    return [made_record(spec, None, -1, 2) for spec in SPECS[:2]]


def test_each_row_has_both_values_and_their_difference() -> None:
    record, other = _records()
    table = compared_heatmap_table((record, MINE), (other, THEIRS), KEY, (0, 1))
    assert table.name == "heatmap"
    name = "linear_cka_cls_target"
    assert table.columns == (
        "run", "epoch", "layer_ref", "layer", name,
        "pinned_run", "pinned_epoch", f"{name}_pinned", f"{name}_difference",
    )  # fmt: skip
    assert table.rows[0] == (record.run_id, 0, "a", "a", 0.5, other.run_id, 1, 0.75, -0.25)
    assert table.column(f"{name}_difference") == (-0.25, 0.0, None, None)
    assert "difference: run minus pinned_run" in table.notes


def test_layers_of_other_names_are_refused() -> None:
    record, other = _records()
    with pytest.raises(StudyError, match="their layers have not the same names"):
        compared_heatmap_table((record, MINE), (other, replace(THEIRS, layers=("a", "c"))), KEY, (0, 0))
