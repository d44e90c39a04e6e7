"""Shows what a dataset is, on one screen or as JSON; reads and computes nothing itself."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from engine.data.inspection import Inspection, Problem, Thumbnail, inspect_dataset
from engine.data.options import DataOptions, Window
from engine.data.pixels import side_of
from engine.files import size_of
from simtui.child import Child
from simtui.follow import clock
from simtui.palette import is_colorless
from simtui.safe_text import fitted, safe

BAD_INPUT = 2
_BAR_WIDTH = 24
_TASKS = {"single": "one class an image", "ordinal": "grades", "multilabel": "several labels an image"}
_MARKS = {"stops": ("✗", "bold red"), "skipped": ("!", "yellow"), "said": ("·", "")}
_RAMP = " .:-=+*#%@"
_DEFAULT_SIZE = 224


def report_data(
    path: Path,
    options: DataOptions,
    *,
    is_origin: bool = False,
    backbone: str | None = None,
    weights: Path | None = None,
    input_size: int | None = None,
    n_images: int | None = None,
    as_json: bool = False,
) -> int:
    """Inspects a dataset, with a bar on standard error, and prints what it is; returns the exit code.

    Raises:
        SimtuiError: the dataset cannot be read at all, or the backbone cannot be loaded.
    """
    speed = _speed(backbone, weights, input_size) if backbone else None
    console = Console()
    side = _picture_side(console)
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn(), transient=True,
        console=Console(stderr=True),
    )  # fmt: skip
    with bars:
        task = bars.add_task("reading the dataset", total=None)

        def progress(done: int, total: int) -> None:
            bars.update(task, description="decoding images", completed=done, total=total)

        found = inspect_dataset(
            path,
            options,
            is_origin=is_origin,
            input_size=speed["input_size"] if speed else input_size or _DEFAULT_SIZE,
            n_images=n_images,
            n_thumbnails=0 if as_json else max(1, console.width // (side + 2)),
            thumbnail_side=side,
            progress=progress,
        )
    if as_json:
        print(json.dumps(_plain(found, speed), indent=2, ensure_ascii=True))
    else:
        draw(console, found, speed)
    return 0 if found.is_usable else BAD_INPUT


def _speed(backbone: str, weights: Path | None, input_size: int | None) -> dict[str, Any]:
    """What a child process measures, because this one never loads torch."""
    arguments = ["engine.jobs.estimate", backbone]
    arguments += ["--weights", str(weights)] if weights else []
    arguments += ["--input-size", str(input_size)] if input_size else []
    with Console(stderr=True).status(f"measuring {safe(backbone)}"):
        answer = Child(backbone, arguments).answer()
    assert answer is not None  # nobody ends it
    return answer


def _plain(found: Inspection, speed: dict[str, Any] | None) -> dict[str, Any]:
    content = asdict(found)
    content.pop("thumbnails")
    content |= {"n_images": found.n_images, "is_usable": found.is_usable, "epoch_s": _epoch_s(found, speed)}
    return content | {"backbone": speed}


def _epoch_s(found: Inspection, speed: dict[str, Any] | None) -> float | None:
    """Seconds of an epoch of full fine-tuning: training, then a look at the validation and test images."""
    if speed is None:
        return None
    n = found.n_of_split
    looked_at = n.get("val", 0) + n.get("test", 0)
    return float(n.get("train", 0) / speed["train_images_per_s"] + looked_at / speed["evaluate_images_per_s"])


def draw(console: Console, found: Inspection, speed: dict[str, Any] | None = None) -> None:
    """Prints the screen; `speed` is what was measured of a backbone."""
    side = _picture_side(console)
    kinds = [found.layout, _TASKS[found.task], f"{found.n_images:,} images", f"{len(found.classes)} classes"]
    head = Text(" · ".join(kinds), style="bold")
    if found.is_synthetic:
        head.append("  generated images", style="yellow")
    console.print(head)
    console.print(Text(safe(found.path), style="dim"), soft_wrap=True)
    room = max(4, console.height - 20 - side // 2) if console.is_terminal else 40
    console.print(_classes(found, room, console.width))
    console.print(_facts(found, speed))
    thumbnails = found.thumbnails[: max(1, console.width // (side + 2))]
    for line in _pictures(thumbnails, side, _is_colorless(console)):
        console.print(line)
    console.print(_problems(found.problems))
    if found.is_usable:
        console.print(Text("ready: a study can start on it", style="green"))
    else:
        console.print(Text("a study cannot start on it until what is marked ✗ is mended", style="bold red"))


def _picture_side(console: Console) -> int:
    return 12 if console.height < 36 else 16


def _is_colorless(console: Console) -> bool:
    """Whether pictures must do without colour: no terminal, or one that has none."""
    return console.color_system is None or is_colorless(os.environ, console.encoding)


def _classes(found: Inspection, room: int, width: int) -> Table:
    """The largest classes first, each with a bar and its images in every split."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    splits = list(found.n_of_split)
    name_width = min(max((cell_len(safe(name)) for name in found.classes), default=0), max(12, width - 62))
    name_width = max(name_width, 9)  # "… 99 more"
    table.add_column("class", no_wrap=True)
    table.add_column("", no_wrap=True)
    for split in splits:
        table.add_column(split, justify="right", no_wrap=True)
    totals = {name: sum(found.n_of[name].values()) for name in found.classes}
    ordered = sorted(found.classes, key=lambda name: -totals[name])
    most = max(totals.values(), default=0) or 1
    shown = ordered if len(ordered) <= room else ordered[: room - 1]
    for name in shown:
        bar = "█" * max(1 if totals[name] else 0, round(_BAR_WIDTH * totals[name] / most))
        cells = [Text(f"{found.n_of[name].get(split, 0):,}") for split in splits]
        table.add_row(Text(fitted(safe(name), name_width)), Text(bar, style="cyan"), *cells)
    if len(shown) < len(ordered):
        rest = ordered[len(shown) :]
        fewest, most_of_rest = (f"{end(totals[name] for name in rest):,}" for end in (min, max))
        table.add_row(
            Text(fitted(f"… {len(rest)} more", name_width), style="dim"),
            Text(f"{fewest} to {most_of_rest} images each", style="dim"),
        )
    table.add_row(
        Text("all", style="dim"), Text(""), *(Text(f"{found.n_of_split[split]:,}", style="dim") for split in splits)
    )
    return table


def _facts(found: Inspection, speed: dict[str, Any] | None) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    if found.read_from:
        table.add_row("from", safe(found.read_from))
    groups = f"{found.n_groups:,} by {safe(found.group_name)}" if found.group_name else "none named"
    table.add_row("groups", f"{groups} · repeated images {found.n_repeats:,}")
    if found.sizes:
        least, middle, most = (f"{width} × {height}" for width, height in found.sizes)
        sizes = least if least == most else f"{least} to {most}, median {middle}"
        modes = ", ".join(f"{safe(mode)} {n:,}" for mode, n in list(found.modes.items())[:4])
        table.add_row("images", f"{sizes} · {modes}{_window(found.window)}")
    side = side_of(found.input_size)
    per_s = found.n_decoded / max(found.decode_s, 1e-6)
    left_s = found.n_images / max(per_s, 1e-6)
    table.add_row(
        "cache",
        f"{size_of(found.cache_bytes)} at {found.input_size} pixels (kept as {side} × {side}), decoded once in "
        f"{clock(left_s)} ({per_s:,.0f} images/s here)",
    )
    epoch_s = _epoch_s(found, speed)
    if speed is not None and epoch_s is not None:
        table.add_row(
            "epoch",
            f"about {clock(epoch_s)} of full fine-tuning on {speed['device']} in {speed['precision']} "
            f"({speed['train_images_per_s']:,.0f} images/s)",
        )
    return table


def _window(window: Window | None) -> str:
    if window is None:
        return ""
    return " · window auto" if window == "auto" else f" · black at {window[0]:g}, white at {window[1]:g}"


def _pictures(thumbnails: Sequence[Thumbnail], side: int, is_plain: bool) -> list[Text]:
    """Pictures side by side, two rows of pixels a line, and their classes under them."""
    if not thumbnails:
        return []
    lines = []
    for y in range(0, side, 2):
        line = Text()
        for thumbnail in thumbnails:
            for x in range(side):
                top, bottom = thumbnail.pixels[y, x], thumbnail.pixels[y + 1, x]
                if is_plain:
                    line.append(_ramp(thumbnail.pixels, top, bottom))
                else:
                    line.append("▀", style=f"{_colour(top)} on {_colour(bottom)}")
            line.append("  ")
        lines.append(line)
    lines.append(Text("  ".join(fitted(safe(each.label), side) for each in thumbnails), style="dim"))
    return lines


def _ramp(pixels: Any, *cell: Any) -> str:
    """A character as dark as the cell, from the darkest to the brightest of the picture."""
    grey = pixels.mean(axis=2)
    share = (sum(float(pixel.mean()) for pixel in cell) / len(cell) - grey.min()) / max(float(np.ptp(grey)), 1.0)
    return _RAMP[min(int(share * len(_RAMP)), len(_RAMP) - 1)]


def _colour(pixel: Any) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(int(value) for value in pixel))


def _problems(problems: Sequence[Problem]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for problem in problems:
        mark, style = _MARKS[problem.severity]
        count = f"{problem.n:,} × " if problem.n > 1 else ""
        words = Text(f"{count}{safe(problem.text)}", style=style)
        if problem.files:
            more = ", …" if problem.n > len(problem.files) else ""
            words.append(f"  {', '.join(safe(name) for name in problem.files)}{more}", style="not bold dim")
        table.add_row(Text(mark, style=style), words)
        if problem.fix:
            table.add_row("", Text(f"fix: {safe(problem.fix)}"))
    return table
