"""The demo: makes images, runs a small study on them through the very path of any study, shows its tables."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import tomli_w
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text

from engine.analysis.options import TableOptions
from engine.analysis.table import Cell, Table
from engine.analysis.tables import table_of
from engine.errors import StudyError
from engine.files import atomic_write
from engine.runs.study_folder import StudyFolder
from simtui.safe_text import safe, short_names

N_TARGET = 480
N_ORIGIN = 480
STUDY = {
    "study": {"name": "demo"},
    "data": {"path": "synthetic_dermoscopy"},
    "probe": {"n": 128},
    "origin": {"path": "synthetic_scenes", "n": N_ORIGIN},
    "backbone": [{"name": f"bundled:{name}"} for name in ("supervised", "image-text", "self-supervised")],
    "finetune": {
        "methods": ["full", "linear"],
        "seeds": 2,
        "epochs": 4,
        "batch_size": 32,
        "learning_rate": {"full": 5e-4, "linear": 1e-2},
    },
}
_COLUMNS = {
    "runs": (
        "backbone",
        "method",
        "seed",
        "test_accuracy",
        "linear_cka_cls",
        "test_ece",
        "origin_knn_before",
        "origin_knn_after",
    ),
    "forgetting": (
        "backbone",
        "method",
        "n_seeds",
        "origin_knn_before_mean",
        "origin_knn_after_mean",
        "drop_mean",
        "drop_sd",
        "linear_cka_cls_mean",
    ),
}


def run_demo(out: Path) -> Path:
    """Generates what is missing, runs or continues the study, and returns its folder; exits where the study fails."""
    from engine.jobs.launch import make_study_folder, start_study
    from engine.study import load_study
    from simtui.follow import clock, follow

    console = Console(stderr=True)
    if out.exists() and not (out / "study.toml").exists() and any(out.iterdir()):
        raise StudyError(str(out), "exists and holds something else", "give another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    console.print(
        f"Demo in {safe(out)}: the images are synthetic, made by this program; nothing medical follows from them."
    )
    atomic_write(out / "study.toml", tomli_w.dumps(STUDY))
    started_s = time.monotonic()
    _generate(out, console)
    folder = make_study_folder(load_study(out / "study.toml"), out / "study")
    exit_code = follow(folder, start_study(folder))
    console.print(f"{clock(time.monotonic() - started_s)} in all. Look again with: simtui {safe(folder.path)}")
    if exit_code:
        sys.exit(exit_code)
    return folder.path


def print_tables(study_path: Path) -> None:
    """The run and forgetting tables, for where there is no terminal to open the app in."""
    console = Console()
    folder = StudyFolder(study_path)
    for name, columns in _COLUMNS.items():
        table = table_of(folder, name, TableOptions())
        console.print(_drawn(table, columns))
        for note in table.notes:
            console.print(Text(note, style="dim"))
        console.print()


def _generate(out: Path, console: Console) -> None:
    """Both generated datasets; `synthetic.json` is written last, so its presence says that one is whole."""
    from engine.data.synthetic import dermoscopy, scenes

    bars = Progress(TextColumn("{task.description}"), BarColumn(30), TimeRemainingColumn(), console=console)
    with bars:
        for name, generate, n in (
            ("synthetic_dermoscopy", dermoscopy.generate, N_TARGET),
            ("synthetic_scenes", scenes.generate, N_ORIGIN),
        ):
            if (out / name / "synthetic.json").exists():
                continue
            task = bars.add_task(f"making {name.replace('_', ' ')} images", total=n)
            generate(out / name, n, progress=lambda done, total, task=task: bars.update(task, completed=done))  # type: ignore[misc]


def _drawn(table: Table, columns: tuple[str, ...]) -> RichTable:
    drawn = RichTable(title=table.name, title_justify="left", header_style="bold", box=None)
    for column in columns:
        is_text = column in ("backbone", "method")
        drawn.add_column(column.replace("_", " "), justify="left" if is_text else "right", no_wrap=is_text)
    short = short_names([str(name) for name in table.column("backbone")])
    for row in zip(*(table.column(column) for column in columns), strict=True):
        drawn.add_row(*(Text(_cell(short.get(cell, cell) if isinstance(cell, str) else cell)) for cell in row))
    return drawn


def _cell(cell: Cell) -> str:
    if cell is None:
        return "–"
    return f"{cell:.3f}" if isinstance(cell, float) else safe(cell)
