"""What lies over a view, under keys that come faster than screens and in terminals that are too small for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from textual._compositor import LayoutUpdate
from textual.command import CommandList
from textual.events import Resize
from textual.geometry import Size
from textual.pilot import Pilot
from textual.widgets import Input

from engine.runs.record import State, read_record, write_record
from simtui.screens.ask import AskScreen
from simtui.screens.attention import AttentionScreen
from simtui.screens.confirm import ConfirmScreen
from simtui.screens.help import HelpScreen
from simtui.screens.over import lay_over
from simtui.views.parts import Sheet, fit_columns
from simtui.widgets.grid import Grid
from tests.simtui.driving import app_of, opened, press, settled, until, view_of, written
from tests.simtui.studies import write_attention_maps


async def _resize(pilot: Pilot[None], width: int, height: int) -> None:
    pilot.app._driver._size = (width, height)  # type: ignore[union-attr]
    pilot.app.post_message(Resize(Size(width, height), Size(width, height)))
    await asyncio.sleep(0.05)
    await pilot.pause()


# --- keys faster than screens


@pytest.mark.parametrize("first", ["help", "new_study", "command_palette"])
@pytest.mark.parametrize("second", ["help", "new_study"])
async def test_one_thing_lies_over_a_view(study: Path, first: str, second: str) -> None:
    async with opened(study) as pilot:
        for action in (first, second):
            getattr(pilot.app, f"action_{action}")()
        await pilot.pause()
        await press(pilot, "escape")
        assert view_of(pilot).VIEW == "runs" and len(pilot.app.screen_stack) == 2


@pytest.mark.parametrize("opens", ["question_mark", "n", "ctrl+p"])
async def test_left_twice_it_takes_nothing_from_below(study: Path, opens: str) -> None:
    async with opened(study) as pilot:
        await press(pilot, opens)
        over = pilot.app.screen
        leave = over.action_leave if opens == "n" else over.dismiss  # type: ignore[attr-defined]
        leave()
        leave()
        await pilot.pause()
        assert view_of(pilot).VIEW == "runs"
        await press(pilot, "2", "1")
        assert view_of(pilot).VIEW == "runs" and len(pilot.app.screen_stack) == 2


@pytest.mark.parametrize("opens", ["question_mark", "n", "ctrl+p"])
async def test_a_view_comes_to_the_front_whatever_lies_over_the_one_before(study: Path, opens: str) -> None:
    async with opened(study) as pilot:
        await press(pilot, opens)
        app_of(pilot).action_view("space")
        await pilot.pause(0.1)
        assert view_of(pilot).VIEW == "space" and len(pilot.app.screen_stack) == 2
        await press(pilot, "1")
        assert view_of(pilot).VIEW == "runs" and len(pilot.app.screen_stack) == 2


async def test_a_page_key_before_the_palette_has_a_list_does_nothing(study: Path) -> None:
    async with opened(study) as pilot:
        app_of(pilot).action_command_palette()
        while not pilot.app.screen.query(CommandList):
            await asyncio.sleep(0)
        commands = pilot.app.screen.query_one(CommandList)
        while not commands.option_count:  # it has entries then, and no lines
            await asyncio.sleep(0)
        assert not commands.scrollable_content_region
        await pilot.app._check_bindings("pagedown")
        await pilot.app._check_bindings("pageup")
        await until(pilot, lambda: commands.option_count > 3 and commands.size.height > 3)
        await pilot.press("pageup", "pagedown")
        await until(pilot, lambda: (commands.highlighted or 0) > 0)


# --- too small for it


async def test_the_palette_survives_any_size_and_keeps_what_was_typed(study: Path) -> None:
    async with opened(study) as pilot:
        await press(pilot, "ctrl+p", "t", "h")
        for width in (59, 11, 5, 1, 11, 3):
            await _resize(pilot, width, 30)
            await pilot.press("down", "pagedown", "x")
        await _resize(pilot, 80, 19)
        assert not any(widget.region.area for widget in pilot.app.screen.query(CommandList))
        await _resize(pilot, 80, 24)
        await pilot.press("e")
        assert pilot.app.screen.query_one(Input).value == "the"
        assert pilot.app.screen.query_one(CommandList).region.area
        await press(pilot, "escape")
        assert view_of(pilot).VIEW == "runs"


async def test_a_question_is_hidden_and_comes_back_as_it_was(study: Path) -> None:
    given: list[str | None] = []
    async with opened(study) as pilot:
        lay_over(pilot.app.screen, AskScreen("which?", "any"), given.append)
        await pilot.pause()
        await pilot.press("a", "b")
        await _resize(pilot, 40, 24)
        await pilot.press("c", "enter")
        assert not pilot.app.screen.query_one("#ask").region.area
        await _resize(pilot, 80, 24)
        assert pilot.app.screen.query_one("#ask").region.area
        await pilot.press("d", "enter")
        await pilot.pause()
        assert given == ["abd"]
        assert view_of(pilot).VIEW == "runs"


async def test_nobody_says_yes_to_what_is_hidden(study: Path) -> None:
    given: list[bool | None] = []
    async with opened(study) as pilot:
        lay_over(pilot.app.screen, ConfirmScreen("stop?", "it costs", "x"), given.append)
        await pilot.pause()
        await _resize(pilot, 80, 10)
        await press(pilot, "y")
        assert given == [None]


async def test_the_view_says_what_it_needs_where_something_hidden_lies_over_it(study: Path) -> None:
    async with opened(study) as pilot:
        await press(pilot, "question_mark")
        below = pilot.app.screen_stack[-2]
        await _resize(pilot, 50, 15)
        assert isinstance(pilot.app.screen, HelpScreen) and not pilot.app.screen.query_one("#help-panel").region.area
        assert below.query_one("#small").region.area == 50 * 15
        assert pilot.app.screen.styles.background.a == 0
        await press(pilot, "escape", "question_mark", "ctrl+p")
        assert len(pilot.app.screen_stack) == 2, "nothing opens where it would be hidden"


# --- the rest


@pytest.mark.parametrize(("view", "turns"), [("1", "b"), ("4", "t"), ("5", "t"), ("7", ""), ("9", "")])
async def test_left_and_right_mean_nothing_in_a_table(study: Path, view: str, turns: str) -> None:
    async with opened(study, view=view) as pilot:
        if turns:
            await press(pilot, turns)
        grid = pilot.app.screen.query_one(Grid)
        await until(pilot, lambda: grid.region.area and grid.key is not None)
        key = grid.key
        await press(pilot, "left", "right", "h", "l")
        assert grid.key == key


@pytest.mark.parametrize("opens", ["", "question_mark", "n", "ctrl+p"])
async def test_everything_is_drawn_anew(study: Path, opens: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[object] = []
    async with opened(study) as pilot:
        if opens:
            await press(pilot, opens)
        await pilot.pause(0.6)
        before = written(pilot)
        monkeypatch.setattr(pilot.app, "_display", lambda _, update: drawn.append(update))
        await press(pilot, "ctrl+l")
        assert any(isinstance(update, LayoutUpdate) and update.region.size == (80, 24) for update in drawn)
        assert written(pilot) == before


def test_a_table_that_is_not_filled_yet_survives_any_width() -> None:
    """A grid is laid out before it is first shown, in a terminal of one column with less than no room."""
    assert fit_columns(Sheet((), ()), -2)[1] == ()


async def test_the_attention_view_comes_back_from_a_run_without_maps(small_study: Path) -> None:
    """Its pictures are drawn once there is room for them again; to ask for it in a loop stopped the app for good."""
    write_attention_maps(small_study)
    lacking = sorted((small_study / "runs").glob("*scratch_seed00*"))[0]
    record = read_record(lacking)
    write_record(lacking, record.with_(state=State.STOPPED))
    async with opened(small_study, view="8") as pilot:
        have = next((small_study / "runs").glob("*full_seed00*")).name
        app_of(pilot).select(run_id=have)
        await settled(pilot)
        with_maps = written(pilot)
        app_of(pilot).select(run_id=record.run_id)
        await until(pilot, lambda: view_of(pilot).has_class("-empty"))
        app_of(pilot).select(run_id=have)
        await until(pilot, lambda: written(pilot) == with_maps)


async def test_the_attention_view_is_at_rest_behind_another(small_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left before it had a size, it went on asking for one."""
    write_attention_maps(small_study)
    asked: list[AttentionScreen] = []
    draw = AttentionScreen._draw
    async with opened(small_study, view="8") as pilot:
        left = view_of(pilot)
        assert isinstance(left, AttentionScreen) and left._shown
        left.query_one("#data").styles.height = 2
        await press(pilot, "1")
        monkeypatch.setattr(AttentionScreen, "_draw", lambda screen: (asked.append(screen), draw(screen)))
        assert left.query_one("#data").size.height < 4
        left._draw()
        await asyncio.sleep(0.3)
        assert len(asked) == 1
        monkeypatch.undo()
