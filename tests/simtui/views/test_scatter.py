"""Scatter plots as plain data: marks that tell runs apart with and without colour, round axes, the next point."""

from __future__ import annotations

import math

import pytest

from simtui.views.scatter import Point, frame_of, marks, nearest

BACKBONES = ("bundled:supervised", "bundled:image-text", "bundled:self-supervised")
METHODS = ("full", "linear", "scratch")
POINTS = tuple(
    Point(name, x, y, "●", "") for name, x, y in (("a", 0.1, 0.1), ("b", 0.5, 0.1), ("c", 0.5, 0.9), ("d", 0.9, 0.2))
)
FRAME = frame_of([0.0, 1.0], [0.0, 1.0])


@pytest.mark.parametrize("is_colorless", [False, True])
def test_every_backbone_and_method_has_a_mark_of_its_own(is_colorless: bool) -> None:
    found = marks(BACKBONES, is_colorless)
    shown = [(found.glyph(method, backbone), found.color(backbone)) for backbone in BACKBONES for method in METHODS]
    assert len(set(shown)) == len(shown)
    assert all(color == "" for _, color in shown) == is_colorless
    legend = "".join(span.text for span in found.legend(METHODS))
    assert all(name.removeprefix("bundled:") in legend for name in BACKBONES) and "scratch" in legend
    assert len(legend) <= 80


def test_unknown_methods_and_many_backbones_still_have_marks() -> None:
    many = tuple(f"b{i}" for i in range(25))
    assert all(len(marks(many, True).glyph(method, name)) == 1 for name in many for method in (*METHODS, "lora"))


def test_axes_end_at_round_numbers_around_all_values() -> None:
    frame = frame_of([0.33, 0.91, math.nan], [0.0, 0.013])
    assert frame.x_limits == pytest.approx((0.2, 1.0)) and frame.x_ticks == pytest.approx((0.2, 0.4, 0.6, 0.8, 1.0))
    assert frame.y_limits[0] == 0.0 and frame.y_limits[1] >= 0.013
    low, high = frame_of([0.5], [0.5]).x_limits
    assert low <= 0.5 < high
    assert frame_of([], []).x_limits == (0.0, 1.0)


@pytest.mark.parametrize(
    ("start", "where", "expected"),
    [("a", "right", "b"), ("b", "up", "c"), ("b", "right", "d"), ("c", "down", "b"), ("a", "left", "a"),
     (None, "up", "a"), ("gone", "up", "a")],
)  # fmt: skip
def test_a_step_goes_to_what_lies_ahead(start: str | None, where: str, expected: str) -> None:
    assert nearest(POINTS, start, where, FRAME) == expected


def test_there_is_no_step_where_there_is_no_point() -> None:
    assert nearest((), None, "up", FRAME) is None
