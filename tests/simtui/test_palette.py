"""Colours: a scale that never goes dark again, and what stands in for it without colour."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from rich.color import Color, ColorSystem

from simtui.palette import (
    CURVE_COLORS,
    UNDEFINED_COLOR,
    change_color,
    digit,
    is_colorless,
    mixed,
    scale_color,
    text_color,
)


def _lightness(color: str) -> float:
    """CIE L* of a colour."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    ]
    y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


@pytest.mark.parametrize("is_256", [False, True])
def test_the_scale_grows_lighter_all_the_way(is_256: bool) -> None:
    shown = [scale_color(i / 100, is_256) for i in range(101)]
    lightness = [_lightness(color) for color in shown]
    assert all(b >= a - 0.01 for a, b in pairwise(lightness))
    assert lightness[-1] - lightness[0] > 65


def test_256_colours_are_shown_as_they_are_meant() -> None:
    steps = dict.fromkeys(scale_color(i / 100, is_256=True) for i in range(101))
    shown = [Color.parse(color).downgrade(ColorSystem.EIGHT_BIT) for color in steps]
    assert len({color.number for color in shown}) == len(steps) >= 12
    assert [color.get_truecolor().hex for color in shown] == list(steps)


def test_the_scale_never_adapts_and_ends_where_it_ends() -> None:
    assert scale_color(-0.2) == scale_color(0.0) == "#440154"
    assert scale_color(1.7) == scale_color(1.0) == "#fde725"
    assert scale_color(math.nan) == UNDEFINED_COLOR == scale_color(math.nan, is_256=True)


def test_text_is_readable_on_every_colour_of_the_scale() -> None:
    for i in range(101):
        for is_256 in (False, True):
            ground = scale_color(i / 100, is_256)
            assert abs(_lightness(text_color(ground)) - _lightness(ground)) > 38


def test_curve_colours_differ_in_256_colours_too() -> None:
    shown = {Color.parse(color).downgrade(ColorSystem.EIGHT_BIT).number for color in CURVE_COLORS}
    assert len(shown) == len(CURVE_COLORS)


def test_mixing_lies_between() -> None:
    assert mixed("#ffffff", "#000000", 0.5) == "#808080"
    assert mixed("#123456", "#000000", 1.0) == "#123456"


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0"), (0.1, "1"), (0.7, "7"), (0.79, "7"), (1.0, "9"), (-0.01, "-"), (math.nan, "–")]
)
def test_a_digit_says_the_tenths(value: float, shown: str) -> None:
    assert digit(value) == shown


def test_when_colour_is_ruled_out() -> None:
    assert is_colorless({"NO_COLOR": "1", "TERM": "xterm-256color"})
    assert is_colorless({"TERM": "dumb"})
    assert is_colorless({"TERM": "xterm-256color"}, "ascii")
    assert not is_colorless({"NO_COLOR": "", "TERM": "xterm-256color"}, "UTF-8")


@pytest.mark.parametrize("is_256", [False, True])
def test_a_change_is_lighter_the_larger_it_is_and_blue_or_orange_by_its_sign(is_256: bool) -> None:
    for sign in (-1, 1):
        lightness = [_lightness(change_color(sign * i / 20, is_256)) for i in range(21)]
        assert all(b >= a - 1e-9 for a, b in pairwise(lightness)) and lightness[-1] > lightness[0] + 40
    assert change_color(0.0, is_256) == change_color(-0.0, is_256)
    assert int(change_color(-1, is_256)[5:], 16) > int(change_color(-1, is_256)[1:3], 16)
    assert int(change_color(1, is_256)[5:], 16) < int(change_color(1, is_256)[1:3], 16)
    assert (change_color(-5, is_256), change_color(5, is_256)) == (change_color(-1, is_256), change_color(1, is_256))


def test_changes_in_256_colours_are_among_them() -> None:
    for i in range(-20, 21):
        color = change_color(i / 20, True)
        assert Color.parse(color).downgrade(ColorSystem.EIGHT_BIT).get_truecolor().hex == color
