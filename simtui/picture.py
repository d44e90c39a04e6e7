"""Owns how the screen becomes a picture: SVG as it is shown, and PNG drawn from it; fetches nothing from outside."""

from __future__ import annotations

import re
from pathlib import Path

from engine.files import atomic_write
from simtui.exporting import folders, free_paths

_FONTS = Path(__file__).with_name("fonts")
_FONT_FACES = re.compile(r"@font-face\s*{[^}]*}")  # of fonts on the web
_FAMILY = '"DejaVu Sans Mono", Menlo, Consolas'
_ZOOM = 2.0  # sharp in print and on screens of today


def standalone(svg: str) -> str:
    """A screenshot as Textual makes it, without what a browser would fetch for it."""
    return _FONT_FACES.sub("", svg).replace("Fira Code", _FAMILY)


def to_png(svg: str, zoom: float = _ZOOM) -> bytes:
    """The picture in pixels, `zoom` to a unit of the SVG, in the font that comes with simtui."""
    import resvg_py  # here: 10 MB that nobody needs who saves no picture

    fonts = [str(path) for path in sorted(_FONTS.glob("*.ttf"))]
    # The fonts of the machine as well: they may have what this one lacks.
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=zoom, font_files=fonts))


def save_picture(svg: str, name: str) -> str:
    """Writes SVG and PNG beside each other, under names that are free; returns what to say.

    Args:
        svg: as Textual exports it.
        name: what the picture is of; what does not belong in a file name becomes a hyphen.
    Raises:
        MachineError: none of the folders can be written, or the disk is full.
    """
    svg_path, png_path = free_paths(folders(), name, (".svg", ".png"))
    svg = standalone(svg)
    atomic_write(svg_path, svg.encode("utf-8", "backslashreplace"))
    atomic_write(png_path, to_png(svg))
    return f"wrote {svg_path} and {png_path.name}"
