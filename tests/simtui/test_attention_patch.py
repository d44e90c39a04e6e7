"""The cursor over the patches of an attention map: its values are those of the maps, by keys and by mouse."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.analysis.attention import study_attention
from engine.runs.study_folder import StudyFolder
from simtui.selection import Selection
from simtui.views import attention
from simtui.widgets.pictures import Pictures
from tests.simtui.driving import app_of, opened, press, written
from tests.simtui.studies import study_of, write_attention_maps, write_study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = write_study(tmp_path / "s", study_of(("bundled:supervised",), seeds=1, epochs=2))
    write_attention_maps(path)
    return path


def _said(text: str) -> str:
    return next(" ".join(line.split()) for line in text.splitlines() if "patch row" in line)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_keys_move_over_the_patches_and_read_out_both_maps(folder: Path, size: tuple[int, int]) -> None:
    study = StudyFolder(folder)
    record = next(each for each in study.listing().records if each.spec.method == "full")
    before, after = study_attention(study, record)
    view = attention.screen_data(before, after, Selection()).view
    async with opened(folder, size=size, view="8") as pilot:
        assert "H J K L read out a patch" in written(pilot)
        await press(pilot, "L")
        row, column = app_of(pilot).selection.patch or (-1, -1)
        assert view.after[row, column] == view.after.max()
        await press(pilot, *"KKKKHHHH", "J", "L", "L")
        assert app_of(pilot).selection.patch == (1, 2)
        expected = f"θ* {view.before[1, 2]:.4f} run {view.after[1, 2]:.4f} difference {view.difference[1, 2]:+.4f}"
        assert _said(written(pilot)) == f"patch row 2, column 3 share {expected}"
        await press(pilot, *"LLLLLJJJJJ")
        assert app_of(pilot).selection.patch == (3, 3)


async def test_a_click_on_any_picture_points_at_the_same_patch(folder: Path) -> None:
    async with opened(folder, size=(120, 40), view="8") as pilot:
        pictures = pilot.app.screen.query_one(Pictures)
        side = pictures._pictures[0].pixels.shape[1]
        for nth in range(4):
            offset = (1 + nth * (side + 2) + side - 1, 1 + side // 2 - 1)  # the last pixel of the last patch
            await pilot.click(Pictures, offset=offset)
            await pilot.pause()
            assert app_of(pilot).selection.patch == (3, 3)
            await pilot.click(Pictures, offset=(1 + nth * (side + 2), 1))
            await pilot.pause()
            assert app_of(pilot).selection.patch == (0, 0)
        await pilot.click(Pictures, offset=(1, 0))  # a title is no patch
        await pilot.pause()
        assert app_of(pilot).selection.patch == (0, 0)


def test_a_remembered_patch_outside_is_the_nearest_inside(folder: Path) -> None:
    study = StudyFolder(folder)
    before, after = study_attention(study, study.listing().records[0])
    assert attention.screen_data(before, after, Selection(patch=(99, -5))).patch == (3, 0)
