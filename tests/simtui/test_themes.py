"""Themes: text can be read on its ground in each, and nothing of a widget stays in the old one."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.color import Color
from textual.theme import Theme

from simtui.palette import CURVE_COLORS, FAINT_COLOR, MARK_COLOR, on_light
from simtui.themes import THEMES, next_theme
from tests.simtui.driving import app_of, opened, press


def _contrast(color: str, ground: str) -> float:
    """WCAG 2's contrast ratio: 1 to 21; large text needs 3."""
    light = sorted(_luminance(each) for each in (color, ground))
    return (light[1] + 0.05) / (light[0] + 0.05)


def _luminance(color: str) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in Color.parse(color).normalized]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", THEMES.values(), ids=list(THEMES))
def test_every_colour_can_be_read(theme: Theme) -> None:
    grounds = [ground for ground in (theme.background, theme.surface) if ground]
    words = [theme.foreground, theme.accent, theme.success, theme.warning, theme.error]
    marks = [*CURVE_COLORS, MARK_COLOR, FAINT_COLOR]
    for ground in grounds:
        assert min(_contrast(color, ground) for color in words if color) >= 4.5
    assert theme.background
    shown = marks if theme.dark else [on_light(color) for color in marks]
    assert min(_contrast(color, theme.background) for color in shown) >= 3


def test_the_keys_go_round_the_themes() -> None:
    names = list(THEMES)
    assert [next_theme(name) for name in names] == [*names[1:], names[0]]
    assert next_theme("of an older simtui") == names[0]


@pytest.mark.parametrize("view", ["1", "2", "3", "4", "5", "6", "7"])
async def test_nothing_is_left_in_the_colours_of_the_theme_before(study: Path, view: str) -> None:
    async with opened(study, size=(120, 40), view=view) as pilot:
        app = app_of(pilot)
        old = {str(THEMES["dark"].background), str(THEMES["dark"].surface)}
        app.theme = "light"
        await pilot.pause()
        await press(pilot, "question_mark", "escape")
        grounds = {
            segment.style.bgcolor.name
            for strip in app.screen._compositor.render_strips()
            for segment in strip
            if segment.style and segment.style.bgcolor
        }
        assert not grounds & old
        assert "#ffffff" in grounds
