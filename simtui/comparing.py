"""Shows how far a comparison of two checkpoints is, and prints it; what loads torch is a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text

from engine.analysis.estimators import in_order, label_of
from engine.analysis.heatmap import heatmap_table
from engine.analysis.options import TableOptions
from engine.analysis.table import Cell, Table
from engine.errors import MachineError
from engine.export import write_table
from engine.jobs.compare import READING, ComparisonRequest, known_comparison
from engine.jobs.stage import Failure
from engine.runs.record import RunRecord
from engine.runs.results import Results, SimilarityKey
from engine.runs.study_folder import StudyFolder
from engine.sources import write_sources
from simtui.safe_text import safe
from simtui.views.layer_map import pooling_name

_WHERE = "simtui compare"


def compared(request: ComparisonRequest) -> StudyFolder:
    """The comparison, from the cache or computed now, with progress and the time left on standard error.

    Raises:
        SimtuiError: what the process says that it failed of.
        MachineError: it ended without a word.
    """
    return known_comparison(request) or StudyFolder(_computed(request))


def comparison_table(folder: StudyFolder) -> tuple[Table, TableOptions]:
    """Every pair of layers, a column for each measure and pooling; and what it was asked for."""
    record, results = _only(folder)
    tables = [heatmap_table(record, results, key, 0) for key in _keys(record, results)]
    rows: list[tuple[Cell, ...]] = [
        (*parts[0][1:3], *(each[3] for each in parts)) for parts in zip(*(each.rows for each in tables), strict=True)
    ]
    columns = ("layer_ref", "layer", *(each.columns[3] for each in tables))
    notes = tuple(dict.fromkeys(note for each in tables for note in each.notes))
    keys = _keys(record, results)
    poolings, measures = (
        ", ".join(dict.fromkeys(getattr(key, name) for key in keys)) for name in ("pooling", "measure")
    )
    options = TableOptions(run=record.run_id, epoch=0, pooling=poolings, measure=measures)
    return Table("heatmap", columns, tuple(rows), (*notes, *_left_out(record))), options


def print_comparison(folder: StudyFolder) -> None:
    """The maps as figures, one below the other: the first checkpoint's layers in rows, the second's in columns."""
    record, results = _only(folder)
    console = Console()
    for key in _keys(record, results):
        drawn = RichTable(box=None, header_style="dim", title_justify="left", pad_edge=False)
        drawn.title = Text(f"{label_of(key.measure)}, {pooling_name(key)}")
        drawn.add_column("A ↓  B →", style="dim", no_wrap=True)
        for layer in results.layers:
            drawn.add_column(safe(layer), justify="right", no_wrap=True)
        for row, values in zip(results.rows, results.similarity[key][0].tolist(), strict=True):
            drawn.add_row(safe(row), *("–" if value != value else f"{value:.3f}" for value in values))
        # As wide as it is where nobody's terminal is: a cut table has lost figures.
        width = None if console.is_terminal else 10_000
        console.print(drawn, width=width, crop=console.is_terminal)
        console.print()
    for note in comparison_table(folder)[0].notes:
        console.print(Text(safe(note), style="dim"), soft_wrap=True)


def write_comparison(folder: StudyFolder, path: Path, file_format: str, digits: int) -> int:
    """Writes the table and its sources; returns how many rows it has.

    Raises:
        MachineError: the file cannot be written, or the format needs a library that is not installed.
    """
    table, options = comparison_table(folder)
    write_table(table, path, file_format, digits)
    write_sources(path, folder, table, options)
    return len(table.rows)


def _only(folder: StudyFolder) -> tuple[RunRecord, Results]:
    (record,) = folder.listing().records
    return record, folder.results(record.run_id)


def _keys(record: RunRecord, results: Results) -> tuple[SimilarityKey, ...]:
    return in_order(results.similarity, record.spec.measure.similarity)


def _left_out(record: RunRecord) -> tuple[str, ...]:
    """A pooling that one of the two does not have is compared with no other."""
    second = record.provenance
    assert record.reference is not None
    if "cls" in second.poolings:
        return ()
    has_first = "cls" in record.reference.poolings
    whose = second.weights_checkpoint if has_first else record.reference.checkpoint
    return (f"cls: left out, as {whose} has no CLS token; feat alone is compared with feat",)


def _computed(request: ComparisonRequest) -> Path:
    command = [sys.executable, "-m", "engine.jobs.compare_child", request.first.text, request.second.text]
    command += ["--n", str(request.n), *(word for name in request.measures for word in ("--measure", name))]
    command += ["--images", str(request.images)] if request.images else []
    command += ["--reading", json.dumps({name: getattr(request.reading, name) for name in READING})]
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child:
            try:
                last, complained = _followed(child)
            except BaseException:
                child.kill()
                raise
    except OSError as error:
        problem = f"no process could be started ({error.strerror or error})"
        raise MachineError(_WHERE, problem, "try again when this machine has less to do") from error
    if "path" in last:
        return Path(last["path"])
    with contextlib.suppress(TypeError):
        raise Failure(**last).as_error()
    words = complained.strip().splitlines()
    problem = f"its process ended with code {child.returncode} ({words[-1][:200] if words else 'without a word'})"
    raise MachineError(_WHERE, problem, 'see what is broken with "simtui doctor"')


def _followed(child: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    """Draws what the process says until it ends; its last object, and what it complained of."""
    assert child.stdout is not None and child.stderr is not None
    last: dict[str, Any] = {}
    complained: list[str] = []
    reading = threading.Thread(target=lambda: complained.append(child.stderr.read()), daemon=True)  # type: ignore[union-attr]
    reading.start()
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn(), transient=True,
        console=Console(stderr=True),
    )  # fmt: skip
    with bars:
        task, stage = bars.add_task("loading libraries", total=None), ""
        for text in child.stdout:
            try:
                said = json.loads(text)
            except ValueError:
                continue  # a library may print
            if not isinstance(said, dict):
                continue
            last = said
            if "stage" in said:
                if said["stage"] != stage:
                    bars.remove_task(task)
                    stage, task = said["stage"], bars.add_task(safe(said["stage"]), total=said["total"] or None)
                bars.update(task, completed=said["done"], total=said["total"] or None)
    child.wait()
    reading.join()
    return last, "".join(complained)
