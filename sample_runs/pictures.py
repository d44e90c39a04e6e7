"""Draws the README's pictures, one of each view, from the sample study: `python sample_runs/pictures.py`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from dataclasses import replace
from io import StringIO
from pathlib import Path

from rich.console import Console

from engine.data.inspection import inspect_dataset
from engine.data.options import DataOptions
from engine.data.synthetic.dermoscopy import generate
from engine.files import atomic_write
from simtui.app import SimtuiApp
from simtui.dataset import draw
from simtui.picture import standalone, to_png
from simtui.recent import sample_study
from simtui.screens.new_study import NewStudyScreen

FOLDER = Path(__file__).resolve().parent / "pictures"
# name -> the keys that lead there from the first screen
PICTURES: dict[str, tuple[str, ...]] = {
    "runs": ("b", "o", *"ooooo"),
    "map": ("2",),
    "compare": ("2", "c", *"nnn", "x"),
    "trajectories": ("3",),
    "layers": ("3", "d"),
    "space": ("4",),
    "distributions": ("5",),
    "correlation": ("6",),
    "forgetting": ("7",),
    "attention": ("8", "L"),
    "jobs": ("9",),
}
SIZE = (120, 34)
_SETTLE_S, _KEY_S = 1.0, 0.2
_ZOOM = 1.0


async def screenshot(keys: tuple[str, ...]) -> str:
    """The app on the sample study, as SVG, after some keys."""
    app = SimtuiApp([sample_study()])
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause(_SETTLE_S)
        for key in keys:
            await pilot.press(key)
            await pilot.pause(_KEY_S)
            while app.screen.has_class("-empty"):  # it still reads
                await pilot.pause(_KEY_S)
        await pilot.pause(_SETTLE_S)
        return app.export_screenshot()


async def new_study_screen() -> str:
    """A new study of generated dermoscopy images, with what three backbones would take, as SVG."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        generate(Path("dermoscopy"), 480, 0)
        app = SimtuiApp([sample_study()], images="dermoscopy")
        async with app.run_test(size=SIZE) as pilot:
            await pilot.pause(_SETTLE_S)
            while not isinstance(app.screen, NewStudyScreen) or app.screen.form.look("images").is_under_way:
                await pilot.pause(_KEY_S)
            for key in ("down", "down", "space", "down", "space", "down", "space"):
                await pilot.press(key)
                await pilot.pause(_KEY_S)
            await pilot.pause(5 * _SETTLE_S)
            return app.export_screenshot()


def dataset_screen() -> str:
    """What `simtui data` prints of generated dermoscopy images, as SVG."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "dermoscopy"
        generate(root, 480, 0)
        found = inspect_dataset(root, DataOptions(), n_thumbnails=6)
    console = Console(record=True, width=110, height=40, file=StringIO(), force_terminal=True, color_system="truecolor")
    draw(console, replace(found, path="data/dermoscopy"))
    return console.export_svg(title="simtui data data/dermoscopy")


def main() -> None:
    """Draws all of them."""
    os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
    os.environ.pop("NO_COLOR", None)
    FOLDER.mkdir(exist_ok=True)
    pictures = {"data": dataset_screen(), "new": asyncio.run(new_study_screen())}
    pictures |= {name: asyncio.run(screenshot(keys)) for name, keys in PICTURES.items()}
    for name, svg in pictures.items():
        atomic_write(FOLDER / f"{name}.png", to_png(standalone(svg), _ZOOM))
        print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
