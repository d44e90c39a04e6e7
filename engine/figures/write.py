"""Writes the figures and tables of a study into a folder, and says which could not be made; draws nothing itself."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.analysis.options import TableOptions
from engine.analysis.study_data import read_study
from engine.analysis.table import Table
from engine.errors import DamagedError, ShapeError, StudyError
from engine.export import to_bytes
from engine.figures.drawing import Drawing, Source
from engine.figures.names import TABLES_NAME
from engine.figures.style import on_one_line, require_matplotlib, styled
from engine.figures.table import FIGURES
from engine.figures.tables import TABLES
from engine.files import atomic_write
from engine.runs.study_folder import StudyFolder

# `None`: without the time of day, the same study gives the same bytes.
_METADATA = {"pdf": {"CreationDate": None}, "png": {}}
_TABLE_FORMATS = {".tex": "latex", ".md": "markdown"}


@dataclass(frozen=True)
class Written:
    """One figure or table: the files that it became, or why it was skipped."""

    name: str
    paths: tuple[Path, ...] = ()
    reason: StudyError | DamagedError | ShapeError | None = None


def write_figures(
    folder: StudyFolder, to: Path, options: TableOptions, only: Collection[str] = (),
    formats: Sequence[str] = ("pdf", "png"), dpi: int = 300,
) -> Iterator[Written]:  # fmt: skip
    """Makes one after the other; what the study has nothing for is skipped with its reason.

    Args:
        to: the folder; made if missing. Files of the same names are replaced, each whole or not at all.
        only: numbers of `FIGURES`, or "tables"; empty for everything.
        formats: "pdf", "png" or both.
        dpi: of a PNG, in dots per inch.
    Raises:
        MachineError: matplotlib is not installed, or a file cannot be written.
    """
    require_matplotlib()
    source = Source(folder, read_study(folder))
    for number, kind in FIGURES.items():
        if not only or number in only:
            yield _attempt(kind.file_stem, lambda: _write_figure(source, options, number, to, formats, dpi))  # noqa: B023
    if not only or TABLES_NAME in only:
        for name, make in TABLES.items():
            yield _attempt(name, lambda: _write_table(make(source, options), to / name))  # noqa: B023


def draw(number: str, source: Source, options: TableOptions) -> Drawing:
    """One of `FIGURES`, in the house's style and laid out.

    Raises:
        StudyError: the study lacks what it needs.
        DamagedError: a file that it needs is damaged.
    """
    with styled():
        drawing = FIGURES[number].draw(source, options)
        # Ticks depend on the room that labels leave, and that on the ticks: the second pass settles it.
        for _ in range(2):
            drawing.figure.draw_without_rendering()
        drawing.figure.set_layout_engine("none")
    return drawing


def to_image(drawing: Drawing, file_format: str, dpi: int = 300) -> bytes:
    """The figure as PDF or PNG; the same figure gives the same bytes."""
    content = io.BytesIO()
    with styled():
        drawing.figure.savefig(content, format=file_format, dpi=dpi, metadata=_METADATA[file_format])
    return content.getvalue()


def _attempt(name: str, make: Callable[[], tuple[Path, ...]]) -> Written:
    try:
        return Written(name, make())
    except (StudyError, DamagedError, ShapeError) as error:
        return Written(name, reason=error)


def _write_figure(
    source: Source, options: TableOptions, number: str, to: Path, formats: Sequence[str], dpi: int
) -> tuple[Path, ...]:
    drawing = draw(number, source, options)
    stem = FIGURES[number].file_stem
    paths = []
    for file_format in dict.fromkeys(formats):
        paths.append(to / f"{stem}.{file_format}")
        atomic_write(paths[-1], to_image(drawing, file_format, dpi))
    paths.append(to / f"{stem}.txt")
    caption = "".join(f"{on_one_line(line)}\n" for line in drawing.caption)
    atomic_write(paths[-1], caption.encode("utf-8", "surrogateescape"))
    return tuple(paths)


def _write_table(table: Table, stem: Path) -> tuple[Path, ...]:
    paths = []
    for suffix, file_format in _TABLE_FORMATS.items():
        paths.append(stem.with_name(f"{stem.name}{suffix}"))
        atomic_write(paths[-1], to_bytes(table, file_format))
    return tuple(paths)
