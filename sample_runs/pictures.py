"""Draws the README's pictures from the sample study: `python sample_runs/pictures.py` (needs headless Chromium)."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from io import StringIO
from pathlib import Path

from rich.console import Console

from engine.data.inspection import inspect_dataset
from engine.data.options import DataOptions
from engine.data.synthetic.dermoscopy import generate
from simtui.app import SimtuiApp
from simtui.dataset import draw
from simtui.recent import sample_study

FOLDER = Path(__file__).resolve().parent / "pictures"
# name -> the keys that lead there from the first screen
PICTURES = {"map": "2", "trajectories": "3"}
SIZE = (120, 34)
_SETTLE_S = 1.0


async def screenshot(keys: str) -> str:
    """The app on the sample study, as SVG, after some keys."""
    app = SimtuiApp([sample_study()])
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause(_SETTLE_S)
        await pilot.press(*keys)
        await pilot.pause(_SETTLE_S)
        # Textual names a web font, which would be fetched, or missing: the machine's own one is used.
        return app.export_screenshot().replace("Fira Code", "DejaVu Sans Mono")


def dataset_screen() -> str:
    """What `simtui data` prints of generated dermoscopy images, as SVG."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "dermoscopy"
        generate(root, 480, 0)
        found = inspect_dataset(root, DataOptions(), n_thumbnails=6)
    console = Console(record=True, width=110, height=40, file=StringIO(), force_terminal=True, color_system="truecolor")
    draw(console, replace(found, path="data/dermoscopy"))
    return console.export_svg(title="simtui data data/dermoscopy").replace("Fira Code", "DejaVu Sans Mono")


def rasterise(svg: str, path: Path, chromium: str) -> None:
    """Writes SVG as PNG at its own size."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert found is not None
    width, height = (int(float(each)) + 1 for each in found.groups())
    with tempfile.TemporaryDirectory() as folder:
        page_path = Path(folder) / "page.html"
        page_path.write_text('<body style="margin:0">' + svg.replace("<svg ", f'<svg width="{width}" ', 1))
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += ["--disable-background-networking", f"--user-data-dir={folder}/profile"]
        command += [f"--window-size={width},{height}", f"--screenshot={path}", page_path.as_uri()]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def main() -> None:
    """Draws all of them."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("pictures need headless Chromium\n  fix: install it")
    FOLDER.mkdir(exist_ok=True)
    pictures = {"data": dataset_screen()} | {name: asyncio.run(screenshot(keys)) for name, keys in PICTURES.items()}
    for name, svg in pictures.items():
        rasterise(svg, FOLDER / f"{name}.png", chromium)
        print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
