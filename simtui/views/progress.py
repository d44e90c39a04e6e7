"""What the progress line says of a study that runs; empty for one that does not."""

from __future__ import annotations

from engine.jobs.progress import StudyProgress
from simtui.safe_text import safe
from simtui.views.parts import ACCENT, DIM, ERROR, Line, Span, count


def progress_line(progress: StudyProgress | None, width: int) -> Line:
    """One line: what is going on, how much is done, how long it will take; or why the study could not go on."""
    if progress is None:
        return ()
    if not progress.is_running:
        if progress.failure is None:
            return ()
        return (Span(f" ✗ {safe(progress.failure.where)}: {safe(progress.failure.problem)}", ERROR),)
    done = progress.epochs_done / progress.epochs_total if progress.epochs_total else 0.0
    bar = 12 if width >= 100 else 8
    full = round(done * bar)
    stage = safe(progress.stage) + (f" {progress.stage_done}/{progress.stage_total}" if progress.stage_total else "")
    parts = [
        f"{progress.n_done} of {count(progress.n_runs, 'run')}",
        *([f"{progress.n_failed} failed"] if progress.n_failed else []),
        f"epoch {progress.epochs_done}/{progress.epochs_total}",
    ]
    speed = sum(each.images_per_s for each in progress.runs.values())
    if speed and width >= 100:
        parts.append(f"{speed:.0f} images/s")
    left_s = progress.time_left_s
    parts.append("time left not known yet" if left_s is None else f"{duration(left_s)} left")
    return (
        Span(" ▶ ", ACCENT), Span("━" * full, ACCENT), Span("─" * (bar - full), DIM),
        Span(f" {stage}" if stage else "", ACCENT), Span("  " + " · ".join(parts)),
    )  # fmt: skip


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 05 min`: no more figures than a guess deserves."""
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
