"""Owns colour: the scale of similarity, the colours of curves, and whether colour may be relied on at all.

The scale is viridis: lightness rises evenly from 0 to 1, so that it reads in 256 colours, in grey and to colour-blind
eyes. Curves take Okabe and Ito's colours in an order that keeps neighbours apart on a dark ground.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

_VIRIDIS = (
    "440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bddf26", "fde725",
)  # fmt: skip
# Viridis in the 256 colours of a terminal: rounding each channel, as libraries do, gives bands that go dark again.
_VIRIDIS_256 = (
    "5f005f", "5f0087", "5f00af", "005f87", "005faf", "0087af", "00af87",
    "00d787", "5fd75f", "87d75f", "afd75f", "d7d700", "ffd700", "ffff5f",
)  # fmt: skip
# Less in blue, more in orange, nearly black where nothing has changed; each a colour that 256 colours have.
_DIVERGING_256 = ("5fafff", "0087d7", "005f87", "1c1c1c", "875f00", "d78700", "ffaf00")
# A little beside the colours of curves, which `on_light` changes.
_LESS, _MORE, _NO_CHANGE = "#57b4e9", "#e69f01", "#18191c"
CURVE_COLORS = ("#56b4e9", "#e69f00", "#2bbf91", "#d98cb8", "#f0e442", "#e8743b", "#8c9eff", "#b8b8b8", "#a6d854")
# The same hues on a light ground, each dark enough to be read there.
_ON_LIGHT = dict(
    zip(
        CURVE_COLORS,
        ("#0072b2", "#a85c00", "#00765a", "#a3407a", "#857700", "#bf4408", "#4450c0", "#6b6b6b", "#4f7d12"),
        strict=True,
    )
)
MARK_COLOR, FAINT_COLOR = "#fefefe", "#9a9fa8"  # of means and lines among points
_ON_LIGHT |= {MARK_COLOR: "#000000", FAINT_COLOR: "#6b6b6b"}
UNDEFINED_COLOR = "#2b303b"
_DARK_TEXT, _LIGHT_TEXT = "#10131a", "#f2f4f8"


def scale_color(value: float, is_256: bool = False) -> str:
    """The colour of a similarity: the scale runs from 0 to 1 and never adapts; what lies outside takes its end.

    Args:
        is_256: only take colours that a terminal of 256 colours has.
    """
    if math.isnan(value):
        return UNDEFINED_COLOR
    if is_256:
        return f"#{_VIRIDIS_256[min(max(int(value * len(_VIRIDIS_256)), 0), len(_VIRIDIS_256) - 1)]}"
    place = min(max(value, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    low = min(int(place), len(_VIRIDIS) - 2)
    part = place - low
    channels = (
        round(int(_VIRIDIS[low][i : i + 2], 16) * (1 - part) + int(_VIRIDIS[low + 1][i : i + 2], 16) * part)
        for i in (0, 2, 4)
    )
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def change_color(value: float, is_256: bool = False) -> str:
    """The colour of a change in [-1, 1]: blue below 0, orange above; what lies outside takes its end.

    Args:
        is_256: only take colours that a terminal of 256 colours has.
    """
    value = min(max(value, -1.0), 1.0)
    if is_256:
        return f"#{_DIVERGING_256[round((value + 1) / 2 * (len(_DIVERGING_256) - 1))]}"
    return mixed(_MORE if value > 0 else _LESS, _NO_CHANGE, abs(value))


def text_color(background: str) -> str:
    """Dark or light, whichever is easier to read on the background (`#rrggbb`)."""
    red, green, blue = (int(background[i : i + 2], 16) for i in (1, 3, 5))
    return _DARK_TEXT if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 110 else _LIGHT_TEXT


def mixed(color: str, ground: str, share: float) -> str:
    """`color` laid over `ground` at `share` of its strength."""
    return "#" + "".join(
        f"{round(int(color[i : i + 2], 16) * share + int(ground[i : i + 2], 16) * (1 - share)):02x}" for i in (1, 3, 5)
    )


def curve_color(index: int) -> str:
    """The colour of the nth curve, as it is on a dark ground."""
    return CURVE_COLORS[index % len(CURVE_COLORS)]


def on_light(color: str) -> str:
    """What stands for the colour of a curve or a mark on a light ground; other colours, as those of a scale, stay."""
    return _ON_LIGHT.get(color, color)


def has_own_color(index: int) -> bool:
    """Whether the colour of the nth curve is not that of one before; a letter marks it otherwise."""
    return index < len(CURVE_COLORS)


def curve_letter(index: int) -> str:
    """What marks the nth curve where colour says nothing, or not enough."""
    return "abcdefghijklmnopqrstuvwxyz"[index % 26]


def digit(value: float) -> str:
    """A similarity in one character: its tenths, `-` below zero, a dash where it is undefined."""
    if math.isnan(value):
        return "–"
    return "-" if value < 0 else str(min(int(value * 10 + 1e-9), 9))


def is_colorless(environ: Mapping[str, str], encoding: str = "utf-8", color_system: str | None = None) -> bool:
    """Whether the user or the terminal rules colour out, so that digits and letters must say everything.

    Args:
        encoding: of what is sent to the terminal; without Unicode there are no blocks to be coloured.
        color_system: as rich names it; a terminal of 16 colours has none of the scale's.
    """
    is_plain = environ.get("TERM") in ("dumb", "unknown", "vt100", "vt220")
    is_poor = is_plain or color_system in ("standard", "windows")
    return bool(environ.get("NO_COLOR")) or is_poor or not encoding.lower().startswith("utf")
