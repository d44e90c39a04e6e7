"""Studies for tests of figures: on disk where attention is drawn, in memory where thousands of runs are."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from engine.analysis.options import TableOptions
from engine.analysis.study_data import StudyData, read_study
from engine.figures.drawing import Drawing, Source
from engine.figures.style import styled
from engine.figures.write import draw
from engine.runs.attention_maps import ATTENTION_FILE, write_attention
from engine.runs.record import write_record
from engine.runs.study_folder import StudyFolder
from engine.study import Study, run_specs
from tests.attention import made_maps
from tests.simtui.studies import study_of, write_run, write_study

HOSTILE = ("timm:$x^2_{a}$ 100%", "_hidden\\frac{1}{2}", "timm:眼科\x1b[31m $ & # " + "long" * 14)
REFERENCE = "ab" * 32


def source_of(path: Path, study: Study | None = None, **options: Any) -> Source:
    """A study of made-up figures, written and read."""
    folder = StudyFolder(write_study(path, study or study_of(seeds=4, epochs=4), **options))
    return Source(folder, read_study(folder))


def in_memory(source: Source, data: StudyData) -> Source:
    """The same folder with other runs."""
    return Source(source.folder, data)


def with_attention(path: Path, images: tuple[str, ...] = ("a/1.png", "a/2.png", "b/3.png", "c/10.png")) -> Source:
    """A study whose first full run has attention maps."""
    study = study_of(seeds=1, epochs=2)
    write_study(path, study)
    domains = tuple("origin" if i >= len(images) // 2 else "target" for i in range(len(images)))
    spec = next(each for each in run_specs(study) if each.method == "full")
    record = write_run(path, spec)
    provenance = replace(record.provenance, attention_reference=REFERENCE)
    write_record(path / "runs" / spec.run_id, replace(record, provenance=provenance))
    (path / "activations").mkdir()
    looks: dict[str, Any] = {"images": images, "domains": domains}
    write_attention(path / "activations" / f"{REFERENCE}.h5", made_maps(0, with_pixels=True, **looks))
    write_attention(path / "runs" / spec.run_id / ATTENTION_FILE, made_maps(1, **looks))
    folder = StudyFolder(path)
    return Source(folder, read_study(folder))


def drawn(number: str, source: Source, **options: Any) -> Drawing:
    """A figure, laid out as it would be saved."""
    drawing = draw(number, source, TableOptions(**options))
    with styled():
        drawing.figure.draw_without_rendering()
    return drawing


def lines(axes: Any, gid: str) -> list[Any]:
    """The lines of a panel that show one thing."""
    return [each for each in axes.lines if each.get_gid() == gid]


def texts(drawing: Drawing) -> list[Any]:
    """Every text of a figure that is shown and says something."""
    from matplotlib.text import Text

    figure = drawing.figure
    hidden = {id(text) for axes in figure.axes for text in axes.findobj(Text) if not axes.axison}
    ticks = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
    }
    shown = {
        id(label)
        for axes in figure.axes
        if axes.axison
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis._update_ticks()
        for label in (tick.label1, tick.label2)
    }
    return [
        text
        for text in figure.findobj(Text)
        if text.get_text().strip() and text.get_visible() and id(text) not in hidden
        and (id(text) not in ticks or id(text) in shown)
    ]  # fmt: skip


def crowding(drawing: Drawing) -> list[str]:
    """Which texts lie over each other or run out of the figure."""
    with styled():
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts(drawing)]
    whole = drawing.figure.bbox
    found = [
        f"{text!r} runs out"
        for text, box in boxes
        if box.x0 < whole.x0 - 1 or box.y0 < whole.y0 - 1 or box.x1 > whole.x1 + 1 or box.y1 > whole.y1 + 1
    ]
    for (one, a), (other, b) in combinations(boxes, 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if width > 1 and height > 1:
            found.append(f"{one!r} lies over {other!r}")
    return found
