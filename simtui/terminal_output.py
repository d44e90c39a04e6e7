"""Owns one mending of Textual: a small change far to the right must not resend the line to its left."""

from __future__ import annotations

from rich.console import Console
from rich.control import Control
from textual import __version__
from textual._compositor import ChopsUpdate

_MENDED_VERSION = "8.2.8"


def crop_dirty_regions() -> None:
    """Makes Textual send only the columns that have changed.

    Textual 8.2.8 crops a changed span at its right end but never at its left (`ChopsUpdate.render_segments`): a step of
    the cursor at the right edge of a map of 48 columns sends 4.1 kB in place of 0.3. Does nothing in other versions.
    """
    if __version__ == _MENDED_VERSION:
        ChopsUpdate.render_segments = _render_segments  # type: ignore[method-assign, assignment]


def _render_segments(update: ChopsUpdate, console: Console) -> str:
    """Every changed span, cropped at both ends, behind the sequence that moves to where it starts."""
    sent: list[str] = []
    last_y = update.spans[-1][0]
    for y, start, end in update.spans:
        for strip_end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is None or x > end or strip_end <= start:
                continue
            first, last = max(x, start), min(strip_end, end)
            sent += [Control.move_to(first, y).segment.text, strip.crop(first - x, last - x).render(console)]
        if y != last_y:
            sent.append("\n")
    return "".join(sent)
