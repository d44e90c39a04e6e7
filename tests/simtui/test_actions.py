"""The table of actions: every action can be done, and everything that lists actions lists them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from simtui.actions import ACTIONS, ALL, VIEWS, actions_of, footer_of, key_table_markdown
from simtui.app import _SCREENS, SimtuiApp
from simtui.screens.help import help_lines
from tests.simtui.driving import opened, press


@pytest.mark.parametrize("view", ALL)
def test_every_action_of_a_view_has_its_method(view: str) -> None:
    for action in actions_of(view):
        name = action.name.removeprefix("app.").partition("(")[0]
        owner = SimtuiApp if action.name.startswith("app.") else _SCREENS[view]
        assert callable(getattr(owner, f"action_{name}")), action.name


@pytest.mark.parametrize("view", ALL)
def test_no_key_does_two_things_in_a_view(view: str) -> None:
    keys = [key for action in actions_of(view) for key in action.keys]
    assert len(keys) == len(set(keys))


def test_nothing_hangs_on_keys_that_terminals_eat() -> None:
    eaten = {f"ctrl+{letter}" for letter in "abhijms"}
    assert all(set(action.keys) - eaten for action in ACTIONS)


def test_the_readme_table_and_the_help_name_every_action() -> None:
    table = key_table_markdown()
    for action in ACTIONS:
        assert f"| `{action.shown}` | {action.says} |" in table
        for view in action.views:
            text = "\n".join("".join(span.text for span in line) for line in help_lines(view))
            says = "the other views" if action.name.startswith("app.view(") else action.says
            assert says in text, (view, action.says)


@pytest.mark.parametrize("view", ALL)
def test_the_help_is_72_wide_and_the_footer_always_ends_with_help_and_quit(view: str) -> None:
    lines = help_lines(view)
    assert max(sum(len(span.text) for span in line) for line in lines) <= 72
    assert [word for _, word in footer_of(view)][-2:] == ["help", "quit"]


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
async def test_all_of_the_help_can_be_read(study: Path, size: tuple[int, int]) -> None:
    async with opened(study, size=size, view="3") as pilot:
        await press(pilot, "question_mark")
        seen: set[str] = set()
        for _ in range(40):
            strips = pilot.app.screen._compositor.render_strips()
            seen |= {strip.text.strip().removesuffix("▁").strip() for strip in strips}
            await pilot.press("j")
            await pilot.pause()
        for line in help_lines("trajectories", width=min(size[0] - 6, 72)):
            text = "".join(span.text for span in line).strip()
            assert any(text[:50] in each for each in seen), text


def test_each_view_has_its_number() -> None:
    assert [action.keys for action in ACTIONS if action.name.startswith("app.view(")] == [
        (str(i + 1),) for i in range(len(VIEWS))
    ]
