"""What the cells of a map look like: the colour and the characters of a value, on the scale of what the map shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from simtui.palette import UNDEFINED_COLOR, change_color, digit, scale_color
from simtui.views.parts import NO_VALUE, Line, Span

_STEPS = (0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Scale:
    """What values become.

    Attributes:
        color: of a value; the second argument says whether the terminal has 256 colours and no more.
        written: a value in so many characters, those of `MapLayout.digits`, in a cell that is so wide.
        is_signed: every value has a sign, which takes a character of its own.
    """

    color: Callable[[float, bool], str]
    written: Callable[[float, int, int], str]
    is_signed: bool = False


@dataclass(frozen=True)
class MapPicture:
    """A matrix `(n_rows, n)` with the names of its layers, where the cursor is, and how it is drawn.

    `titles` say what is shown, the longest first: the first that fits is written. `rows` names the layers of the rows
    where they are not those of the columns.
    """

    matrix: np.ndarray
    layers: tuple[str, ...]
    row: int
    column: int
    titles: tuple[Line, ...]
    scale: Scale
    rows: tuple[str, ...] = ()

    @property
    def row_layers(self) -> tuple[str, ...]:
        """The layers of the rows."""
        return self.rows or self.layers


def change_scale(limit: float) -> Scale:
    """The scale of differences from `-limit` to `limit`."""
    return Scale(partial(_change_color, limit), partial(_signed, unit_of(limit)), is_signed=True)


def unit_of(limit: float) -> float:
    """What a digit of a difference counts where there is room for one only: tenths, or hundredths of small ones."""
    return 0.1 if limit > _STEPS[0] else 0.01


def limit_of(differences: np.ndarray) -> float:
    """The least of a few round figures that no difference is beyond."""
    known = np.abs(differences[np.isfinite(differences)])
    most = float(known.max()) if known.size else 0.0
    return next((step for step in _STEPS if most <= step), math.ceil(most))


def signed(value: float, digits: int = 3) -> str:
    """A difference as it is written in words: `+0.031`, `-0.120`, `0.000`; a dash where there is none."""
    if math.isnan(value):
        return NO_VALUE
    text = f"{value:+z.{digits}f}"
    return text[1:] if float(text) == 0 else text


def ramp(scale: Scale, low: float, high: float, width: int, is_256: bool) -> Line:
    """The colours of a scale from `low` to `high`, for a legend."""
    steps = max(width - 1, 1)
    return tuple(Span("█", color=scale.color(low + (high - low) * i / steps, is_256)) for i in range(width))


def _similarity_color(value: float, is_256: bool) -> str:
    """To the hundredth: what cannot be told apart need not be sent."""
    return scale_color(value if is_256 or math.isnan(value) else round(value, 2), is_256)


def _similarity_written(value: float, digits: int, width: int) -> str:
    """As much of a value as fits into so many characters: `0.41`, `.41`, its tenths; `-.41`, `-.4` below zero."""
    if digits <= 1 or math.isnan(value):
        return digit(value) if digits else ""
    text = f"{value:z.{1 if value < 0 and digits == 3 else 2}f}"
    if digits == 3 or text.startswith("-"):
        text = text.replace("0.", ".", 1)
    return text[:digits].rstrip(".")


def _change_color(limit: float, value: float, is_256: bool) -> str:
    if math.isnan(value):
        return UNDEFINED_COLOR
    # Short of the end, which is the colour of a curve: a light theme darkens that where it is not a ground.
    share = min(max(value / limit, -0.99), 0.99)
    return change_color(share if is_256 else round(share, 2), is_256)


def _signed(unit: float, value: float, digits: int, width: int) -> str:
    """A difference with its sign: `+0.07`, `+.07`, or one digit that counts so many units, `+1`."""
    if math.isnan(value):
        return NO_VALUE if digits else ""
    if digits <= 1:
        n_units = min(max(round(value / unit), -9), 9)
        return (f"{n_units:+d}" if n_units else " 0") if digits else ""
    text = f"{value:+z.2f}"
    if float(text) == 0:
        text = " " + text[1:]
    return text if width > len(text) else text.replace("0.", ".", 1)[:width]


SIMILARITY = Scale(_similarity_color, _similarity_written)
