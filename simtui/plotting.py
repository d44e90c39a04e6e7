"""The one place that uses plotext: curves with bands become cells of text; knows no widget and no study.

plotext draws into one global figure, so a lock guards it, and it is imported when the first plot is drawn (0.3 s).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_LOCK = threading.Lock()
_STYLED = re.compile(r"\x1b\[([0-9;]*)m([^\x1b]*)")
_BAND_MARKER = "hd"


@dataclass(frozen=True)
class Series:
    """One curve; `low` and `high` bound its band, and are equal to `mean` where there is none.

    `behind` are curves that take the place of the band, each `(x, y)`: the single runs of a mean.
    """

    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    marker: str = "braille"
    behind: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()


@dataclass(frozen=True)
class Frame:
    """What the axes show; the same for all curves of a plot."""

    x_limits: tuple[float, float]
    y_limits: tuple[float, float]
    x_ticks: tuple[float, ...]
    y_ticks: tuple[float, ...]


@dataclass(frozen=True)
class PlotCell:
    """One terminal cell of a plot: its character, the curve it belongs to and the band it lies in (None: neither)."""

    text: str
    curve: int | None = None
    band: int | None = None


Plot = tuple[tuple[PlotCell, ...], ...]


def axis_width(frame: Frame) -> int:
    """Cells that the labels of the y axis (`0.40`) and its line take."""
    return max([len(_label(tick)) for tick in frame.y_ticks], default=0) + 1


def plot(series: Sequence[Series], frame: Frame, width: int, height: int) -> Plot:
    """Draws curves over their bands; rows from top to bottom, `height` of `width` cells.

    Bands are drawn apart and laid under the curves, because a cell of braille has one colour only: drawn together, a
    curve would swallow its own band.
    """
    with _LOCK:
        curves = _cells(_built(series, frame, width, height, of_bands=False))
        bands = _cells(_built(series, frame, width, height, of_bands=True))
    return tuple(
        tuple(
            PlotCell(text if curve is not None or band is None else shade, curve, band)
            for (text, curve), (shade, band) in zip(curve_row, band_row, strict=True)
        )
        for curve_row, band_row in zip(curves, bands, strict=True)
    )


def _built(series: Sequence[Series], frame: Frame, width: int, height: int, of_bands: bool) -> str:
    import plotext

    plotext.terminal.limit(False, False)
    figure = plotext.figure
    figure.clear()
    figure.plot_size(width, height)
    figure.canvas("default")
    figure.axes(False, axis=0, side=1)
    figure.axes(False, axis=1, side=1)
    figure.ruler("x", "lower").lim(*frame.x_limits).ticks(list(frame.x_ticks), [f"{tick:g}" for tick in frame.x_ticks])
    figure.ruler("y", "left").lim(*frame.y_limits).ticks(list(frame.y_ticks), [_label(tick) for tick in frame.y_ticks])
    dot = (frame.y_limits[1] - frame.y_limits[0]) / (4 * max(height - 2, 1))
    for i, each in enumerate(series):
        of_band = "braille" if each.behind else _BAND_MARKER
        marker = plotext.marker(of_band if of_bands else each.marker, plotext.pixel((1, 0, i)))
        if of_bands:
            _draw_band(figure, each, marker)
        else:
            # Twice, a dot apart: one row of braille dots is too faint to follow across a band.
            for y in (each.mean, tuple(mean + dot for mean in each.mean)):
                figure.draw(figure.signal(list(each.x), list(y), marker=marker).lines())
    return str(figure.build().string())


def _label(tick: float) -> str:
    return f"{tick:.2f}" if abs(tick) < 10 else f"{tick:.0f}"


def _draw_band(figure: Any, series: Series, marker: Any) -> None:
    for x, y in series.behind:
        figure.draw(figure.signal(list(x), list(y), marker=marker).lines())
    if series.low == series.high or series.behind:
        return
    low = figure.signal(list(series.x), list(series.low), marker=marker)
    figure.draw(figure.signal(list(series.x), list(series.high), marker=marker).lines().fill(low))


def _cells(drawn: str) -> list[list[tuple[str, int | None]]]:
    """plotext's own colours are dropped; the colour (1, 0, i) says that a cell belongs to the ith curve."""
    rows: list[list[tuple[str, int | None]]] = []
    for row in drawn.rstrip("\n").split("\n"):
        curve: int | None = None
        cells: list[tuple[str, int | None]] = []
        for style, text in _STYLED.findall(row):
            if style.startswith("38;2;1;0;"):
                curve = int(style.split(";")[4])
            elif "38;" in style or style == "0":
                curve = None
            cells += [(char, curve) for char in text]
        rows.append(cells)
    return rows
