"""How a study stands, in a sentence or two: whether it runs, when it will end, which key makes it go on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from engine.jobs.progress import Condition, StudyProgress
from engine.runs.record import State
from simtui.reader import Snapshot
from simtui.safe_text import safe
from simtui.views.parts import count
from simtui.views.progress import duration


@dataclass(frozen=True)
class Keys:
    """How the keys that a sentence names are written; a user may have others."""

    go_on: str = "c"
    stop_now: str = "X"


def summary(snapshot: Snapshot, now: datetime, keys: Keys) -> str:
    """How the study stands, in words; where it does not run, which key makes it go on."""
    progress = snapshot.progress
    assert progress is not None
    if progress.is_running:
        return _running(progress, now, keys)
    key = keys.go_on
    left = sum(record.state not in (State.DONE, State.FAILED) for record in progress.records)
    if progress.failure is not None:
        failure = progress.failure
        said = f"{safe(failure.where)}: {safe(failure.problem)}. Fix: {safe(failure.fix)}"
        return f"Failed. {said}. Then {key} continues."
    if progress.condition is Condition.FINISHED:
        again = f", {progress.n_failed} failed: {key} tries again what failed" if progress.n_failed else ""
        return f"Finished: {progress.n_done} of {count(progress.n_runs, 'run')} done{again}."
    if progress.condition is Condition.STOPPED:
        return f"Stopped: {progress.n_done} of {count(progress.n_runs, 'run')} done, {left} left. {key} continues."
    if progress.condition is Condition.INTERRUPTED:
        return (
            "Interrupted: its process has ended without a word, as when a machine restarts. "
            f"{count(left, 'run')} left; {key} continues each from its last epoch."
        )
    return f"Not started: {key} starts it." if progress.n_runs else f"No runs yet: {key} starts the study."


def _running(progress: StudyProgress, now: datetime, keys: Keys) -> str:
    where = f" on {safe(progress.holder.host)}" if progress.holder else ""
    match progress.condition:
        case Condition.STARTING:
            return f"Starting{where}: loading libraries."
        case Condition.STOPPING:
            return f"Stopping{where}: each run ends with the epoch that it is in. {keys.stop_now} stops at once."
        case Condition.PAUSED:
            why = safe(progress.stage.removeprefix("paused").lstrip(": "))
            return f"Paused{where}: {why}. It goes on by itself when there is room."
    text = f"Running{where}, {count(progress.n_workers, 'worker')}"
    if progress.started_s is not None:
        began = datetime.fromtimestamp(progress.started_s)
        text += f", since {_clock(began, now)}"
    if progress.stage_total or (progress.stage and progress.stage != "running"):
        of = f" {progress.stage_done} of {progress.stage_total}" if progress.stage_total else ""
        text += f": {safe(progress.stage)}{of}"
    if progress.time_left_s is None:
        return f"{text}. The time left is not known before the first epoch."
    end = datetime.fromtimestamp(now.timestamp() + progress.time_left_s)
    return f"{text}. Ends about {_clock(end, now)}, in {duration(progress.time_left_s)}."


def _clock(time: datetime, now: datetime) -> str:
    """`03:40`, with the day where it is another one."""
    if time.date() == now.date():
        return f"{time:%H:%M}"
    return f"{time:%a %H:%M}" if abs((time.date() - now.date()).days) < 7 else f"{time:%Y-%m-%d %H:%M}"
