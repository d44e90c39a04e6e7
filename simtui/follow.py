"""Shows a running study in a terminal without the app: live bars, or one look at it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table as RichTable
from rich.text import Text

from engine.analysis.score import score_of
from engine.jobs.launch import end_study, stop_study
from engine.jobs.progress import StudyProgress, study_progress
from engine.runs.record import RunRecord, State
from engine.runs.study_folder import StudyFolder
from simtui.safe_text import safe

_INTERVAL_S = 0.5
_COLOURS = {
    State.DONE: "green",
    State.RUNNING: "cyan",
    State.FAILED: "red",
    State.INTERRUPTED: "yellow",
    State.STOPPED: "yellow",
}


def follow(folder: StudyFolder, process: subprocess.Popen[bytes]) -> int:
    """Shows progress until the study ends; returns its exit code, 130 where ctrl+c stopped it.

    The first ctrl+c asks the study to stop at the next epoch, the second ends it at once; either way it can continue.
    """
    console = Console(stderr=True)
    exit_code: int | None = None
    stopping = False
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while True:
            try:
                exit_code = process.poll()
                if exit_code is not None:
                    break
                live.update(_drawn(study_progress(folder), stopping), refresh=True)
                time.sleep(_INTERVAL_S)
            except KeyboardInterrupt:
                if stopping:
                    end_study(process)
                    break
                stop_study(folder)
                stopping = True
    progress = study_progress(folder)
    if progress.failure:
        failure = progress.failure
        words = f"simtui: {safe(failure.where)}: {safe(failure.problem)}\n  fix: {safe(failure.fix)}"
        console.print(Text(words), soft_wrap=True)
        return progress.failure.exit_code
    _print_outcome(console, folder, progress)
    return 130 if stopping else int(exit_code or 0)


def print_status(folder: StudyFolder) -> None:
    """One look at a study: its stage, and every run."""
    console = Console()
    progress = study_progress(folder)
    console.print(Text(_headline(progress)))
    if progress.failure:
        console.print(Text(str(progress.failure), style="red"))
    for line in _notes(progress):
        console.print(line)
    console.print(_runs_table(progress))
    for damaged in folder.listing().damaged:
        console.print(Text(safe(str(damaged.error).replace("\n", " ")), style="red"))


def clock(seconds: float) -> str:
    """A time as `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _headline(progress: StudyProgress) -> str:
    if progress.is_running and not progress.stage:
        return "starting: loading libraries"
    parts = [f"{progress.n_done} of {progress.n_runs} runs done"]
    if progress.n_failed:
        parts.append(f"{progress.n_failed} failed")
    if not progress.is_running:
        return ", ".join([*parts, "not running"])
    if progress.stage_total:
        parts.insert(0, f"{progress.stage} ({progress.stage_done} of {progress.stage_total})")
    elif progress.stage and progress.stage != "running":
        parts.insert(0, progress.stage)
    if progress.time_left_s is not None:
        parts.append(f"{clock(progress.time_left_s)} left")
    return safe(", ".join(parts))


def _drawn(progress: StudyProgress, stopping: bool) -> Group:
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(30),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    # Within an epoch too: with long epochs the bar must move.
    inside = sum(hint.step / hint.steps for hint in progress.runs.values() if hint.steps and hint.step < hint.steps)
    left = "" if progress.time_left_s is None else f"{clock(progress.time_left_s)} left"
    if progress.stage_total and not progress.runs:
        bars.add_task(safe(progress.stage), total=progress.stage_total, completed=progress.stage_done, note="")
    task = bars.add_task("study", total=progress.epochs_total or None, note=left)
    bars.update(task, completed=progress.epochs_done + inside)
    for run_id, hint in progress.runs.items():
        done = max(hint.epoch - 1, 0) + (hint.step / hint.steps if hint.steps else 0)
        speed = f"{hint.images_per_s:.0f} images/s  {hint.waited_share:.0%} waiting"
        loss = "" if hint.loss is None else f"loss {hint.loss:.3f}  "
        note = f"epoch {hint.epoch}/{hint.epochs}  {loss}{speed}"
        task = bars.add_task(f"  {_short(run_id)}", total=hint.epochs, note=note)
        bars.update(task, completed=done)
    words = [Text(_headline(progress))]
    if stopping:
        words.append(Text("stopping at the next epoch; ctrl+c again ends it at once", style="yellow"))
    return Group(*words, *_notes(progress), bars)


def _notes(progress: StudyProgress) -> list[Text]:
    """What there is to know of the images."""
    return [Text(f"· {safe(note)}", style="yellow" if " left out: " in note else "dim") for note in progress.notes]


def _short(run_id: str) -> str:
    return safe(run_id.rpartition("_")[0] or run_id)


def _print_outcome(console: Console, folder: StudyFolder, progress: StudyProgress) -> None:
    console.print(Text(_headline(progress)))
    for line in _notes(progress):
        console.print(line)
    for record in progress.records:
        if record.state is State.FAILED:
            console.print(Text(f"{_short(record.run_id)}: {safe(record.reason)}", style="red"))
    waiting = sum(record.state in (State.QUEUED, State.STOPPED, State.INTERRUPTED) for record in progress.records)
    if waiting:
        console.print(Text(f"{waiting} runs are left: simtui run {safe(folder.path)} continues"))


def _runs_table(progress: StudyProgress) -> RichTable:
    table = RichTable(box=None, header_style="dim")
    for name, justify in (
        ("run", "left"),
        ("state", "left"),
        ("epoch", "right"),
        (f"test {score_of(progress.records).label}", "right"),
        ("note", "left"),
    ):
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=name != "note")
    for record in progress.records:
        table.add_row(*_row(record, progress))
    return table


def _waited(record: RunRecord) -> str:
    """The part of its training that waited for images, where that has been measured and is any."""
    share = sum(record.waited_seconds) / max(sum(record.epoch_seconds), 1e-9)
    return f"{share:.1%} of its time waiting for images" if share >= 0.001 else ""


def _row(record: RunRecord, progress: StudyProgress) -> Sequence[Text]:
    hint = progress.runs.get(record.run_id)
    score = record.last.get(score_of([record]).metric)
    if hint:
        loss = "" if hint.loss is None else f"loss {hint.loss:.3f}, "
        note = (
            f"epoch {hint.epoch}, step {hint.step}/{hint.steps}, {loss}"
            f"{hint.images_per_s:.0f} images/s, {hint.waited_share:.0%} waiting for images"
        )
    else:
        note = safe(record.reason) or _waited(record)
    return (
        Text(_short(record.run_id)),
        Text(str(record.state), style=_COLOURS.get(record.state, "")),
        Text(f"{max(record.epochs_done, 0)}/{record.spec.epochs}"),
        Text("–" if score is None else f"{score:.3f}"),
        Text(note, style="dim"),
    )
