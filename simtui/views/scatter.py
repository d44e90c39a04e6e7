"""What a scatter plot says: points, their marks, thresholds and lines; knows no terminal and no study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from simtui.palette import curve_color
from simtui.plotting import Frame, Series
from simtui.safe_text import safe, short_names
from simtui.views.parts import DIM, Line, Span

METHOD_GLYPHS = {"full": "●", "linear": "■", "scratch": "▲"}
_OTHER_GLYPH = "◆"
_PLAIN_GLYPHS = {"full": "F", "linear": "L", "scratch": "S"}
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


@dataclass(frozen=True)
class Point:
    """One mark; `key` names what it stands for, `is_strong` sets it off from the others."""

    key: str
    x: float
    y: float
    glyph: str
    color: str
    is_strong: bool = False


@dataclass(frozen=True)
class Scatter:
    """One plot.

    Attributes:
        x_line, y_line: thresholds; the region right of the one and below the other is shaded where both are there.
        cursor: the key of the point that is set off; None for none.
    """

    title: str
    points: tuple[Point, ...]
    frame: Frame
    series: tuple[Series, ...] = ()
    colors: tuple[str, ...] = ()
    x_line: float | None = None
    y_line: float | None = None
    cursor: str | None = None


def marks(backbones: Sequence[str], is_colorless: bool) -> Marks:
    """The marks of runs: colour by backbone, glyph by method; without colour both are characters."""
    return Marks(tuple(dict.fromkeys(backbones)), is_colorless)


@dataclass(frozen=True)
class Marks:
    """How runs of some backbones are marked."""

    backbones: tuple[str, ...]
    is_colorless: bool

    def glyph(self, method: str) -> str:
        """The glyph of a method."""
        known = _PLAIN_GLYPHS if self.is_colorless else METHOD_GLYPHS
        return known.get(method, "X" if self.is_colorless else _OTHER_GLYPH)

    def color(self, backbone: str) -> str:
        """The colour of a backbone; none without colour."""
        return "" if self.is_colorless else curve_color(self.backbones.index(backbone))

    def legend(self, methods: Sequence[str]) -> Line:
        """What the marks mean, on one line."""
        short = short_names(list(self.backbones))
        spans = [Span(" ")]
        if not self.is_colorless:
            for backbone in self.backbones:
                spans += [Span("━ ", color=self.color(backbone)), Span(f"{safe(short[backbone])}   ")]
        for method in dict.fromkeys(methods):
            spans += [Span(f"{self.glyph(method)} "), Span(f"{safe(method)}   ", DIM)]
        return tuple(spans)


def frame_of(xs: Sequence[float], ys: Sequence[float], n_x: int = 6, n_y: int = 6) -> Frame:
    """Axes whose ends and ticks are round numbers, around all finite values."""
    x_limits, x_ticks = _axis(xs, n_x)
    y_limits, y_ticks = _axis(ys, n_y)
    return Frame(x_limits, y_limits, x_ticks, y_ticks)


def nearest(points: Sequence[Point], current: str | None, where: str, frame: Frame) -> str | None:
    """The point next to the current one in a direction; the current one where there is none.

    What lies straight ahead counts as nearer than what lies aside.
    """
    at = next((point for point in points if point.key == current), None)
    if at is None:
        return points[0].key if points else None
    step_x, step_y = {"left": (-1, 0), "right": (1, 0), "up": (0, 1), "down": (0, -1)}[where]
    width = frame.x_limits[1] - frame.x_limits[0]
    height = frame.y_limits[1] - frame.y_limits[0]
    best: tuple[float, str] | None = None
    for point in points:
        dx, dy = (point.x - at.x) / width, (point.y - at.y) / height
        ahead, aside = dx * step_x + dy * step_y, abs(dx * step_y) + abs(dy * step_x)
        if point.key != at.key and ahead > 1e-9:
            distance = ahead + 2 * aside
            best = min(best or (math.inf, ""), (distance, point.key))
    return best[1] if best else at.key


def _axis(values: Sequence[float], n_ticks: int) -> tuple[tuple[float, float], tuple[float, ...]]:
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    span = max(high - low, 0.02)
    step = next((step for step in _STEPS if span / step <= n_ticks - 1), span)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return (first * step, last * step), tuple(round(tick * step, 10) for tick in range(first, last + 1))
