"""Owns what Textual's updates become on the wire: only cells that have changed, and each change of look in few bytes.

Over SSH bytes are latency. Textual 8.2.8 sends a changed span from the left end of the widget that it belongs to
(`ChopsUpdate.render_segments` crops at the right only), sends again what is on the screen already, and switches every
look off and the next one on in full: a step of the cursor at the right edge of a map of 48 layers takes 4.1 kB.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from rich.cells import get_character_cell_size
from rich.color import Color, ColorSystem
from rich.console import Console
from rich.style import Style
from textual import __version__
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.app import App
from textual.screen import Screen
from textual.strip import Strip

_MENDED_VERSION = "8.2.8"
_NEAR = 4  # cells; moving the terminal's cursor takes more bytes than sending so many again

# A character, and the sequence that switches its look on. A wide character has a second cell, without a character.
_Cell = tuple[str, str]
_display = App._display
_UNKNOWN: _Cell = ("\0", "")
_shown: WeakKeyDictionary[Console, dict[int, list[_Cell]]] = WeakKeyDictionary()


def crop_dirty_regions() -> None:
    """Makes Textual send what has changed and no more. Does nothing in versions that this was not measured with."""
    if __version__ == _MENDED_VERSION:
        ChopsUpdate.render_segments = _render_changes  # type: ignore[method-assign, assignment]
        LayoutUpdate.render_segments = _render_screen  # type: ignore[method-assign, assignment]
        App._display = _display_changes  # type: ignore[method-assign, assignment]


@dataclass(frozen=True)
class _Rendered(CompositorUpdate):
    """An update that has become a sequence already."""

    sequence: str

    def render_segments(self, console: Console) -> str:
        return self.sequence


def _display_changes(app: App[Any], screen: Screen[Any], renderable: Any) -> None:
    """Where the terminal shows all of an update already, not even a frame is begun."""
    is_sent = app._running and not (app._closed or app._batch_count or app.is_headless or app._driver is None)
    if is_sent and isinstance(renderable, CompositorUpdate):
        sequence = renderable.render_segments(app.console)
        renderable = _Rendered(sequence) if sequence else None
    _display(app, screen, renderable)


def _render_changes(update: ChopsUpdate, console: Console) -> str:
    """Of the spans that Textual takes for changed, what differs from what the terminal shows."""
    shown, pen = _shown.setdefault(console, {}), _Pen()
    for y, start, end in update.spans:
        for strip_end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is not None and x <= end and strip_end > start:
                first, last = max(x, start), min(strip_end, end)
                _send(strip.crop(first - x, last - x), first, y, shown, pen, console)
    return pen.finished()


def _render_screen(update: LayoutUpdate, console: Console) -> str:
    """Everything: after a resize, or when another program has used the terminal, nobody knows what it shows."""
    shown: dict[int, list[_Cell]] = {}
    _shown[console] = shown
    pen = _Pen()
    for y, strips in enumerate(update.strips, update.region.y):
        _send(Strip.join(list(strips)), update.region.x, y, shown, pen, console)
    return pen.finished()


def _send(strip: Strip, x: int, y: int, shown: dict[int, list[_Cell]], pen: _Pen, console: Console) -> None:
    # Where the user wants no colours Textual sends greys, and where the terminal has none, 16 million of them.
    cells = _cells_of(strip, None if os.environ.get("NO_COLOR") else console._color_system)
    if len(cells) != strip.cell_length:  # what Textual takes for wider or narrower than we do is sent as it is
        pen.move_to(x, y)
        pen.write(strip.render(console))
        shown.pop(y, None)
        return
    line = shown.setdefault(y, [])
    line += [_UNKNOWN] * (x + len(cells) - len(line))
    for start, end in _changed(line[x : x + len(cells)], cells):
        pen.move_to(x + start, y)
        pen.draw(cells[start:end])
    line[x : x + len(cells)] = cells


def _changed(before: Sequence[_Cell], now: Sequence[_Cell]) -> list[tuple[int, int]]:
    """From where to where two lines differ; what stays between is sent again where that is cheaper."""
    places: list[tuple[int, int]] = []
    if before == now:
        return places
    for x, (old, new) in enumerate(zip(before, now, strict=True)):
        if old != new:
            start = x if new[0] else max(x - 1, 0)  # the second half of a wide character cannot be sent alone
            if places and start - places[-1][1] <= _NEAR:
                places[-1] = (places[-1][0], x + 1)
            else:
                places.append((start, x + 1))
    return places


def _cells_of(strip: Strip, colors: ColorSystem | None) -> list[_Cell]:
    cells: list[_Cell] = []
    for text, style, _ in strip:
        look = _look_of(style, colors)
        if text.isascii():
            cells += [(char, look) for char in text]
            continue
        for char in text:
            width = get_character_cell_size(char)
            if width:
                cells.append((char, look))
                cells += [("", look)] * (width - 1)
            elif cells:  # a mark on the character before it
                at = -1 if cells[-1][0] or len(cells) == 1 else -2
                cells[at] = (cells[at][0] + char, cells[at][1])
    return cells


@lru_cache(maxsize=4096)
def _look_of(style: Style | None, colors: ColorSystem | None) -> str:
    """The sequence that switches a style on, without links; empty for the terminal's own look.

    Without colours, bold and underline remain, and dark text on a brighter ground, as of a cursor, is drawn reversed.
    """
    if not style:
        return ""
    if colors is None:
        style = style.without_color + Style(reverse=_brightness(style.bgcolor, 0) > _brightness(style.color, 765))
    else:
        style = style.update_link(None)
    return Strip.render_style(style, "\0", colors or ColorSystem.TRUECOLOR).partition("\0")[0]


def _brightness(color: Color | None, default: int) -> int:
    return default if color is None or color.is_default else sum(color.get_truecolor())


class _Pen:
    """Collects what is sent, and knows which look is switched on."""

    def __init__(self) -> None:
        self._sent: list[str] = []
        self._look = ""

    def move_to(self, x: int, y: int) -> None:
        """Moves the terminal's cursor."""
        self._sent.append(f"\x1b[{y + 1};{x + 1}H")

    def write(self, text: str) -> None:
        """Text that brings its own looks, and leaves none."""
        self._sent.append(_turn(self._look, "") + text)
        self._look = ""

    def draw(self, cells: Sequence[_Cell]) -> None:
        """Characters in their looks."""
        for char, look in cells:
            if look != self._look:
                self._sent.append(_turn(self._look, look))
                self._look = look
            self._sent.append(char)

    def finished(self) -> str:
        """All of it; the look is switched off."""
        return "".join(self._sent) + _turn(self._look, "")


@lru_cache(maxsize=16384)
def _turn(old: str, new: str) -> str:
    """The sequence from one look to another: what differs, or everything anew where something must be switched off."""
    if old == new:
        return ""
    before, now = dict(_parts(old)), dict(_parts(new))
    if before.keys() - now.keys():
        return f"\x1b[{';'.join(['0', *now.values()])}m" if now else "\x1b[0m"
    return f"\x1b[{';'.join(code for part, code in now.items() if before.get(part) != code)}m"


def _parts(look: str) -> Iterator[tuple[str, str]]:
    """What a look consists of, by part: the colour of the text, the ground, each attribute."""
    codes = iter(look[2:-1].split(";") if look else ())
    for code in codes:
        if code in ("38", "48"):  # 38;5;n of 256 colours, 38;2;r;g;b of all
            kind = next(codes)
            rest = [next(codes) for _ in range(1 if kind == "5" else 3)]
            yield ("text" if code == "38" else "ground"), ";".join([code, kind, *rest])
        else:
            yield {"3": "text", "9": "text", "4": "ground", "10": "ground"}.get(code[:-1], code), code
