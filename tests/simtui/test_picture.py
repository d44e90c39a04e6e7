"""Pictures of the screen: complete, made without the web, and readable where no font is installed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image

import simtui
from simtui.picture import to_png
from tests.simtui.driving import app_of, opened, press, until


async def test_s_saves_what_is_on_the_screen(study: Path) -> None:
    async with opened(study, size=(120, 40)) as pilot:
        await press(pilot, "2", "s")
        await until(pilot, lambda: list(Path.cwd().glob("*.png")))
        (svg_path,), (png_path,) = Path.cwd().glob("*.svg"), Path.cwd().glob("*.png")
        assert svg_path.stem == png_path.stem and "heatmap" in svg_path.stem
        svg = svg_path.read_text()
        assert "http" not in svg.replace("http://www.w3.org", "").replace("https://www.textualize.io", "")
        assert "pre-trained" in svg.replace("&#160;", " ")
        image = np.asarray(Image.open(png_path).convert("RGB"))
        assert image.shape[1] > 2500 and len(np.unique(image.reshape(-1, 3), axis=0)) > 50
        assert app_of(pilot).is_running


def test_words_are_drawn_without_any_font_of_the_machine() -> None:
    def drawn(text: str) -> np.ndarray:
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 80 20">'
            f'<text y="15" font-family="DejaVu Sans Mono" fill="#000">{text}</text></svg>'
        )
        return np.asarray(Image.open(io.BytesIO(to_png(svg, 1.0))).convert("RGBA"))

    assert drawn("abc▀").any() and not np.array_equal(drawn("abc"), drawn("abd"))


def test_the_fonts_that_come_with_it_have_every_sign_that_is_drawn() -> None:
    top = Path(simtui.__file__).parents[1]
    known = {sign for path in (top / "simtui" / "fonts").glob("*.ttf") for sign in TTFont(path).getBestCmap()}
    sources = [path for name in ("simtui", "engine") for path in (top / name).rglob("*.py")]
    written = {ord(sign) for path in sources for sign in path.read_text("utf-8") if ord(sign) > 127}
    drawn = {*range(0x2500, 0x25A0), *range(0x2800, 0x2900)}  # frames, blocks, Braille: of plots
    assert not {hex(sign) for sign in (written | drawn) - known}
