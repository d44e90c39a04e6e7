"""What a scatter plot says: points, their marks, thresholds and lines; knows no terminal and no study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.finetune.methods import HALF, METHODS, is_method, mixing_of
from engine.runs.record import RunRecord
from simtui.palette import curve_color
from simtui.plotting import Frame, Series
from simtui.safe_text import safe, short_names
from simtui.views.parts import DIM, Line, Span, line_width

# By the order of the table of methods; mixtures have one for those below one half and one for those above.
_GLYPHS = "●■▲▶▼★○□△◇▽☆"  # ◆ is the mean of an interval
_LITTLE, _MUCH, _OTHER_GLYPH = "◐", "◑", "✚"
# Without colour the kind of character says the method, and which of them the backbone.
_PLAIN = (
    "ABCDEFGHIJ", "abcdefghij", "123456789", "KLMN", "OPQR", "STUV", "WXYZ", "klmn", "opqr", "stuv", "wxyz", "!$%&",
)  # fmt: skip
_LITTLE_PLAIN, _MUCH_PLAIN, _OTHER_PLAIN = "<([{", ">)]}", "?=;:~^"
_FEW = 3  # methods whose characters are told by their order alone
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


@dataclass(frozen=True)
class Point:
    """One mark; `key` names what it stands for, `is_strong` sets it off; `is_summary`: it stands for several."""

    key: str
    x: float
    y: float
    glyph: str
    color: str
    is_strong: bool = False
    is_summary: bool = False


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

    @property
    def runs(self) -> tuple[Point, ...]:
        """The points that stand for a run, which the cursor can be on."""
        return tuple(point for point in self.points if not point.is_summary)


def marks(backbones: Sequence[str], is_colorless: bool) -> Marks:
    """The marks of runs: colour by backbone, glyph by method; without colour both are characters."""
    return Marks(tuple(dict.fromkeys(backbones)), is_colorless)


@dataclass(frozen=True)
class Marks:
    """How runs of some backbones are marked."""

    backbones: tuple[str, ...]
    is_colorless: bool

    def glyph(self, method: str, backbone: str) -> str:
        """The mark of a run; with colour it is the method's alone."""
        if not self.is_colorless:
            return _of_method(method, _GLYPHS, (_LITTLE, _MUCH, _OTHER_GLYPH))
        known = _of_method(method, _PLAIN, (_LITTLE_PLAIN, _MUCH_PLAIN, _OTHER_PLAIN))
        return known[self.backbones.index(backbone) % len(known)]

    def color(self, backbone: str) -> str:
        """The colour of a backbone; none without colour."""
        return "" if self.is_colorless else curve_color(self.backbones.index(backbone))

    def of(self, record: RunRecord) -> tuple[str, str]:
        """The mark of a run and its colour."""
        spec = record.spec
        return self.glyph(spec.method, spec.backbone.name), self.color(spec.backbone.name)

    def legend(self, methods: Sequence[str]) -> Line:
        """What the marks mean, on one line."""
        short = short_names(list(self.backbones))
        spans, known = [Span(" ")], list(dict.fromkeys(methods))
        for backbone in self.backbones:
            mark = self._all_of(backbone, known) if self.is_colorless else "━"
            spans += [Span(f"{mark} ", color=self.color(backbone)), Span(f"{safe(short[backbone])}  ")]
        if self.is_colorless and len(known) <= _FEW:
            return (*spans, Span(f"{self._all_of(self.backbones[0], known)}: {' '.join(map(safe, known))}", DIM))
        for method in known:
            spans += [Span(f"{self.glyph(method, self.backbones[0])} "), Span(f"{safe(method)}  ", DIM)]
        return tuple(spans)

    def _all_of(self, backbone: str, methods: Sequence[str]) -> str:
        return "".join(self.glyph(method, backbone) for method in methods)


def _of_method(method: str, known: Sequence[str], others: tuple[str, str, str]) -> str:
    """What stands for a method: its own, that of mixtures below or above one half, or that of unknown ones."""
    if method in METHODS:
        return known[list(METHODS).index(method) % len(known)]
    if not is_method(method):
        return others[2]
    return others[0] if mixing_of(method) < HALF else others[1]


def legend_lines(legend: Line, width: int) -> tuple[Line, ...]:
    """A legend in as many lines as it needs; a mark is never parted from its name, which two blanks end."""
    lines: list[Line] = [()]
    entry: Line = ()
    for i, span in enumerate(legend):
        entry = (*entry, span)
        if not span.text.endswith("  ") and i < len(legend) - 1:
            continue
        if lines[-1] and line_width((*lines[-1], *entry)) > width + 2:
            lines.append((Span(" "),))
        lines[-1] = (*lines[-1], *entry)
        entry = ()
    return tuple(lines)


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
