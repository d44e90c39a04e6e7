"""What comes back at the next start, and that a file which says nonsense changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simtui.app import SimtuiApp
from simtui.remembered import Memory, Place
from simtui.selection import Selection
from tests.simtui.driving import press, settled, until, written


def test_a_place_comes_back_as_it_was(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "state" / "remembered.json")
    place = Place("space", Selection(run_id="a\x1b[31m\udcff", epoch=3, eta=0.85, layer="blocks.3", head=2))
    memory.keep("light", tmp_path / "one", place)
    memory.keep("light", tmp_path / "two", Place())
    again = Memory(tmp_path / "state" / "remembered.json")
    assert again.theme == "light"
    assert again.place(tmp_path / "one").view == "space"
    assert again.place(tmp_path / "one").selection.eta == 0.85
    assert again.place(tmp_path / "one").selection.head == 2
    assert again.place(tmp_path / "two") == again.place(tmp_path / "three") == Place()


def test_the_oldest_of_too_many_is_forgotten(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "r.json")
    for i in range(60):
        memory.keep("dark", tmp_path / str(i), Place("map"))
    memory.keep("dark", tmp_path / "10", Place("map"))
    assert [memory.place(tmp_path / str(i)).view for i in (9, 10, 59)] == ["runs", "map", "map"]


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{", "null", '{"theme": 3, "studies": []}', '{"theme": "neon", "studies": {"STUDY": 1}}',
        '{"studies": {"STUDY": {"view": "x", "selection": {"row": -1, "eta": "high", "by": "me", "epoch": [1]}}}}',
        '{"studies": {"STUDY": {"view": ["map"], "selection": {"eta": NaN, "zzz": 1}}}}',
    ],
)  # fmt: skip
def test_nonsense_is_left_out(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.json").write_text(content.replace("STUDY", str(tmp_path)))
    memory = Memory(tmp_path / "r.json")
    assert memory.theme == "dark" and memory.place(tmp_path) == Place()


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    memory = Memory(tmp_path / "file" / "r.json")
    memory.keep("dark", tmp_path, Place("map"))
    assert memory.place(tmp_path) == Place()


async def test_the_app_opens_where_it_was_left(study: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    first = SimtuiApp([study], poll_s=0.05, memory=Memory(path))
    async with first.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: first.snapshot is not None)
        await press(pilot, "j", "j", "3", "j", "left_square_bracket", "T")
        before = written(pilot)
        kept = first.selection
    again = SimtuiApp([study], poll_s=0.05, memory=Memory(path))
    async with again.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: again.snapshot is not None)
        await settled(pilot)
        assert again.selection == kept and again.theme == "light"
        assert written(pilot) == before


async def test_a_run_that_is_gone_is_not_looked_for(study: Path, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "r.json")
    memory.keep("dark", study, Place("map", Selection(run_id="gone", row=90, epoch=80)))
    app = SimtuiApp([study], poll_s=0.05, memory=memory)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.snapshot is not None)
        await settled(pilot)
        assert app.selection.run_id is None
        assert "seed 0, epoch 4" in " ".join(written(pilot).split())


async def test_a_lost_connection_loses_a_second_at_most(study: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    app = SimtuiApp([study], poll_s=0.05, memory=Memory(path))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.snapshot is not None)
        await press(pilot, "2")
        await until(pilot, lambda: path.exists() and '"map"' in path.read_text())
        assert json.loads(path.read_text())["theme"] == "dark"
