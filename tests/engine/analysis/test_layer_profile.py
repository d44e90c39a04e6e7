"""Layer profiles of made-up runs: which layer moved most, when, and in which run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.analysis.layer_profile import diagonal_table, layer_profiles, layers_table
from engine.analysis.options import TableOptions
from engine.analysis.study_data import RunData, StudyData
from engine.errors import StudyError
from engine.runs.record import State
from tests.engine.analysis.made_runs import COLUMN, KEY, made_run

OPTIONS = TableOptions()


def _run(name: str, first_layer: list[float], second_layer: list[float], **made: object) -> RunData:
    run = made_run(name, n_epochs=len(first_layer), **made)  # type: ignore[arg-type]
    return replace(run, diagonal={KEY: np.array([first_layer, second_layer], np.float32).T})


FALLING = _run("a", [1, 0.9, 0.8], [1, 0.4, 0.2], seed=0)
OTHER = _run("b", [1, 0.5, 0.1], [1, 0.8, 0.6], seed=1)
SLOW = _run("c", [1, 1.0, 0.9], [1, 0.9, 0.4], seed=2)


def test_the_layer_that_moved_most_when_and_where() -> None:
    (found,) = layer_profiles(StudyData((FALLING, OTHER, SLOW)), OPTIONS)
    first, second = found.moves
    assert found.group == ("bundled:supervised", "full") and found.run_ids == ("a", "b", "c")
    assert first.drop.mean == pytest.approx((0.2 + 0.9 + 0.1) / 3, abs=1e-6)
    assert second.drop.mean == pytest.approx((0.8 + 0.4 + 0.6) / 3, abs=1e-6)
    assert found.moved_most is second
    assert (first.n_moved_most, second.n_moved_most) == (1, 2)
    assert (first.run, second.run) == ("b", "a")
    # The mean of the second layer falls by 0.3 in epoch 1 and in epoch 2: half of it after exactly one epoch.
    assert second.half_epoch == pytest.approx(1.0, abs=1e-5)
    # The mean of the first falls by 0.2, then by another 0.2.
    assert first.half_epoch == pytest.approx(1.0, abs=1e-5)
    assert [spread.mean for spread in found.curves[1].spreads] == pytest.approx([1, 0.7, 0.4])


def test_half_is_interpolated_between_epochs_and_the_steepest_epoch_named() -> None:
    (found,) = layer_profiles(StudyData((FALLING,)), OPTIONS)
    first, second = found.moves
    assert second.half_epoch == pytest.approx(0.4 / 0.6, abs=1e-5) and second.steepest_epoch == 1
    assert first.half_epoch == pytest.approx(1.0, abs=1e-5)


def test_a_layer_that_never_moves_has_no_half_and_is_never_the_most() -> None:
    still = _run("linear", [1, 1, 1], [1, 1, 1], method="linear")
    (found,) = layer_profiles(StudyData((still,)), OPTIONS)
    assert {(move.half_epoch, move.steepest_epoch, move.n_moved_most) for move in found.moves} == {(None, None, 0)}
    assert found.moves[0].drop.mean == 0.0


def test_layers_that_move_alike_share_the_first_rank() -> None:
    (found,) = layer_profiles(StudyData((_run("tie", [1, 0.5, 0.5], [1, 0.5, 0.5]),)), OPTIONS)
    assert [move.n_moved_most for move in found.moves] == [1, 1]
    table = layers_table(StudyData((_run("tie", [1, 0.5, 0.5], [1, 0.5, 0.5]),)), OPTIONS)
    assert table.column("rank") == (1, 1)


def test_an_undefined_layer_is_left_out_and_nothing_else() -> None:
    holed = _run("holed", [1, np.nan, np.nan], [1, 0.8, 0.6])
    (found,) = layer_profiles(StudyData((holed,)), OPTIONS)
    first, second = found.moves
    assert first.drop.mean is None and first.run is None and first.half_epoch is None
    assert second.drop.mean == pytest.approx(0.4, abs=1e-6) and second.n_moved_most == 1
    table = layers_table(StudyData((holed,)), OPTIONS)
    assert table.column("rank") == (None, 1)
    assert table.column(f"{COLUMN}_drop_n") == (0, 1)


def test_runs_that_are_not_done_are_left_out_and_said() -> None:
    short = _run("short", [1, 0.9], [1, 0.9], state=State.STOPPED)
    table = layers_table(StudyData((FALLING, short)), OPTIONS)
    assert set(table.column("n_runs")) == {1}
    assert "left out: 1 of 2 runs, which have not come to their last epoch" in table.notes


def test_backbones_of_another_depth_are_not_averaged() -> None:
    deep = replace(
        made_run("deep", backbone="other"),
        layers=("block 1", "block 2", "block 3"),
        diagonal={KEY: np.array([[1, 1, 1], [1, 1, 0.5], [1, 1, 0.4]], np.float32)},
    )
    found = layer_profiles(StudyData((FALLING, deep)), TableOptions(by="method"))
    assert [len(each.moves) for each in found] == [2, 3]


def test_the_diagonal_has_a_row_for_each_layer_and_epoch() -> None:
    table = diagonal_table(StudyData((FALLING, OTHER)), OPTIONS)
    assert len(table.rows) == 6
    row = dict(zip(table.columns, table.rows[1], strict=True))
    assert (row["layer"], row["epoch"]) == ("block 1", 1)
    assert row[f"{COLUMN}_mean"] == pytest.approx(0.7, abs=1e-6)
    assert row[f"{COLUMN}_low"] < row[f"{COLUMN}_mean"] < row[f"{COLUMN}_high"]


def test_nothing_gives_no_rows_and_an_unknown_similarity_an_error() -> None:
    assert layers_table(StudyData(()), OPTIONS).rows == ()
    with pytest.raises(StudyError, match="no such similarity"):
        layer_profiles(StudyData((FALLING,)), TableOptions(probe="origin"))
