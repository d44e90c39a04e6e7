"""What the views look like: few pictures, at the two sizes that people use; `--snapshot-update` makes them anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from simtui.app import SimtuiApp
from tests.simtui.driving import press, until
from tests.simtui.studies import write_attention_maps, write_study


@pytest.fixture(scope="module")
def full_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shape of the sample: 3 backbones × 3 methods × 5 seeds × 10 epochs."""
    path = write_study(tmp_path_factory.mktemp("full"))
    write_attention_maps(path)
    return path


@pytest.mark.parametrize(
    ("size", "keys"),
    [
        pytest.param((80, 24), ("j", "j"), id="runs-80x24"),
        pytest.param((120, 40), ("j", "j"), id="runs-120x40"),
        pytest.param((80, 24), ("2", "j", "l", "l"), id="map-80x24"),
        pytest.param((120, 40), ("2", "j", "l", "l"), id="map-120x40"),
        pytest.param((80, 24), ("3", "j", "j", "left_square_bracket"), id="trajectories-80x24"),
        pytest.param((120, 40), ("3", "v"), id="trajectories-120x40"),
        pytest.param((80, 24), ("7", "j"), id="forgetting-80x24"),
        pytest.param((120, 40), ("7", "b"), id="forgetting-120x40"),
        pytest.param((80, 24), ("3", "d", "j"), id="layers-80x24"),
        pytest.param((120, 40), ("3", "d"), id="layers-120x40"),
        pytest.param((80, 24), ("4", "right_curly_bracket"), id="space-80x24"),
        pytest.param((120, 40), ("4", "l"), id="space-120x40"),
        pytest.param((80, 24), ("5", "t"), id="comparison-80x24"),
        pytest.param((120, 40), ("5", "j"), id="distributions-120x40"),
        pytest.param((120, 40), ("4", *(["left_square_bracket"] * 9), "t"), id="forecast-120x40"),
        pytest.param((80, 24), ("6",), id="correlation-80x24"),
        pytest.param((120, 40), ("6", "v"), id="correlation-120x40"),
        pytest.param((80, 24), ("8", "n"), id="attention-80x24"),
        pytest.param((120, 40), ("8", "p", "right"), id="attention-120x40"),
        pytest.param((80, 24), ("2", "question_mark"), id="help-80x24"),
        pytest.param((120, 40), ("b", "o", "o", "o", "r"), id="means-120x40"),
        pytest.param((80, 24), ("slash", *"full", "enter", "space"), id="filter-80x24"),
        pytest.param((80, 24), ("2", "c", "n"), id="compare-80x24"),
        pytest.param((120, 40), ("2", "c", "n", "n", "x", "d"), id="compare-120x40"),
    ],
)
def test_looks(full_study: Path, snap_compare: Any, size: tuple[int, int], keys: tuple[str, ...]) -> None:
    app = SimtuiApp([full_study])

    async def drive(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.snapshot is not None)
        await press(pilot, *keys)

    assert snap_compare(app, terminal_size=size, run_before=drive)
