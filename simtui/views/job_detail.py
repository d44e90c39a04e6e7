"""What the jobs view says above and below its table: the bar, the machine; a run's figures, the end of its log."""

from __future__ import annotations

from rich.cells import cell_len

from engine.jobs.details import JobDetails
from engine.jobs.progress import StudyProgress
from engine.jobs.stage import RunProgress
from engine.runs.history import History
from engine.runs.record import RunRecord, State
from simtui.reader import Snapshot
from simtui.safe_text import safe
from simtui.views.jobs import STUDY, bar, clipped, done_share, sparkline, val_metric
from simtui.views.parts import (
    ACCENT,
    DIM,
    ERROR,
    NO_VALUE,
    STRONG,
    WARN,
    Line,
    Span,
    count,
    figure,
    line,
    line_width,
    wrapped,
)  # fmt: skip
from simtui.views.progress import duration
from simtui.views.runs import error_lines

_BY_EPOCH = {
    "train_loss": "train loss", "val_loss": "val loss", "val_accuracy": "val accuracy", "val_auroc": "val AUROC",
}  # fmt: skip
_STANDS = (
    ("running", (State.RUNNING,)), ("waiting", (State.QUEUED,)), ("failed", (State.FAILED,)),
    ("stopped", (State.STOPPED,)), ("interrupted", (State.INTERRUPTED,)),
)  # fmt: skip


def head(
    snapshot: Snapshot, details: JobDetails | None, now_s: float, width: int, max_lines: int, is_plain: bool
) -> tuple[Line, ...]:
    """The bar over all epochs, how many runs are where, and how busy the machine is; `max_lines` is at least 3."""
    progress = snapshot.progress
    assert progress is not None
    share = done_share(progress)
    done, rest = bar(share, min(max(width - 54, 10), 60), is_plain)
    wide = len(str(progress.epochs_total))
    epochs = f"  {int(share * 100):3d} %  epoch {progress.epochs_done:{wide}d} of {progress.epochs_total}"
    if progress.started_s is not None:
        epochs += f" · {duration(now_s - progress.started_s)} so far"
    stands = _stands(snapshot, progress, width)
    first = line(" ", Span(done, ACCENT), Span(rest, DIM), epochs)
    if not progress.is_running:
        return first, stands, _worked(progress)
    return first, stands, *_machine(progress, details, width, max_lines - 2)


def detail(
    snapshot: Snapshot, details: JobDetails | None, key: str | None, width: int, height: int, is_plain: bool
) -> tuple[Line, ...]:
    """All about the row under the cursor in `height` lines: who it is, how it went, why it ended, what it said last."""
    lines = list(_of_study(snapshot, width) if not key else _of_run(snapshot, details, key, width, is_plain))[:height]
    if details is None or details.run_id != (key or STUDY):
        return tuple(lines)
    room = height - len(lines)
    if details.log_problem:
        return (*lines, *wrapped(safe(details.log_problem), width, max(room, 1), WARN))[:height]
    said: list[Line] = [(Span(clipped(safe(each), width), DIM),) for each in details.log if each.strip()]
    if not said and room > 0:
        nobody = "the study" if not key else "this run"
        said = [
            (Span(f"log.txt: {nobody} has said nothing", DIM),),
            *_epochs(details.histories.get(key or ""), width, room - 1),
        ]
    return (*lines, *said[len(said) - room :]) if room < len(said) else (*lines, *said)


def _of_study(snapshot: Snapshot, width: int) -> tuple[Line, ...]:
    progress = snapshot.progress
    lines: list[Line] = [(Span(clipped(f"{safe(snapshot.path)}", width), STRONG),)]
    if progress is None:
        return tuple(lines)
    if progress.failure is not None:
        lines += wrapped(f"{safe(progress.failure.where)}: {safe(progress.failure.problem)}", width, 3, ERROR)
        lines += wrapped(f"fix: {safe(progress.failure.fix)}", width, 2)
    lines += [
        (Span(clipped(f"· {safe(note)}", width), WARN if " left out: " in note else DIM),) for note in progress.notes
    ]
    return tuple(lines)


def _of_run(snapshot: Snapshot, details: JobDetails | None, key: str, width: int, is_plain: bool) -> tuple[Line, ...]:
    record = snapshot.record(key)
    if record is None:
        broken = next((each for each in snapshot.damaged if each.run_id == key), None)
        return error_lines(broken, width) if broken else ()
    session = record.sessions[-1] if record.sessions else None
    known = (session.device, session.precision, session.host) if session else ()
    where = "".join(f" · {safe(each)}" for each in known if each)
    spec = record.spec
    name = f"{safe(spec.backbone.name)} · {spec.method} · seed {spec.seed}"
    title = line(Span(clipped(name, width), STRONG), Span(clipped(where, max(width - cell_len(name), 0)), DIM))
    reason: tuple[Line, ...] = ()
    if record.reason:
        role = ERROR if record.state is State.FAILED else WARN
        reason = wrapped(f"{record.state}: {safe(record.reason)}", width, 3, role)
    return title, *reason, *_courses(record, details, width, is_plain)


def _courses(record: RunRecord, details: JobDetails | None, width: int, is_plain: bool) -> tuple[Line, ...]:
    """How the loss and the score went from epoch 0 to the last finished one, and how long an epoch takes."""
    history = details.histories.get(record.run_id) if details else None
    if not history or record.epochs_done < 0:
        return ()
    metric = val_metric([record])
    parts: list[Span] = []
    for name, label in (("train_loss", "train loss"), (metric, _BY_EPOCH.get(metric, metric))):
        values = history.get(name)
        if values:
            drawn = "" if is_plain else f" {sparkline(values, 21)}"
            ends = f"{figure(values[0])} → {figure(values[-1])}"
            parts += [Span(f"{' · ' if parts else ''}{label} ", DIM), Span(ends), Span(drawn, ACCENT)]
    if record.epoch_seconds and line_width(parts) + 18 < width:
        mean_s = sum(record.epoch_seconds) / len(record.epoch_seconds)
        parts += [Span(" · ", DIM), Span(f"{mean_s:.1f} s"), Span(" an epoch", DIM)]
    if line_width(parts) > width:
        parts = [part for part in parts if part.role != ACCENT]
    return (tuple(parts),) if parts else ()


def _epochs(history: History | None, width: int, n: int) -> tuple[Line, ...]:
    """The last epochs in figures, as many figures as fit, where a run has no log that says so."""
    if not history or n <= 0:
        return ()
    shown = {name: values for name, values in history.items() if name in _BY_EPOCH and set(values) != {None}}
    n_epochs = max(map(len, shown.values()), default=0)
    lines: list[Line] = []
    for epoch in range(max(n_epochs - n, 0), n_epochs):
        spans = [Span(f"epoch {epoch:>3}", DIM)]
        for name, label in _BY_EPOCH.items():
            if name in shown and line_width(spans) + len(label) + 8 <= width:
                spans += [Span(f"  {label} ", DIM), Span(figure(shown[name][epoch]))]
        lines.append(tuple(spans))
    return tuple(lines)


def _stands(snapshot: Snapshot, progress: StudyProgress, width: int) -> Line:
    """How many runs are where; what there is none of is left out, but for those that fail."""
    wide = len(str(progress.n_runs))
    spans = [Span(f" {progress.n_done:{wide}d} of {progress.n_runs} done")]
    for word, states in _STANDS:
        n = sum(record.state in states for record in progress.records)
        if n or word in ("running", "waiting", "failed"):
            role = {"failed": ERROR, "stopped": WARN, "interrupted": WARN}.get(word, "normal") if n else DIM
            spans += [Span(" · ", DIM), Span(f"{n:{wide}d} {word}", role)]
    if snapshot.damaged:
        spans += [Span(" · ", DIM), Span(f"{len(snapshot.damaged)} damaged", ERROR)]
    speed = sum(each.images_per_s for each in progress.runs.values())
    if speed and line_width(spans) + 18 < width:
        spans += [Span(" · ", DIM), Span(f"{speed:6.0f} images/s")]
    return tuple(spans)


def _worked(progress: StudyProgress) -> Line:
    """What has been computed: the time of all epochs together, whatever ran at a time."""
    seconds = sum(sum(record.epoch_seconds) for record in progress.records)
    waited = sum(sum(record.waited_seconds) for record in progress.records)
    if not seconds:
        return ()
    return line(
        Span(f" {duration(seconds)} of epochs in all runs together, ", DIM),
        Span(f"{waited / seconds:.1%}".replace("%", " %") + " of it waiting for images", DIM),
    )


def _machine(progress: StudyProgress, details: JobDetails | None, width: int, max_lines: int) -> tuple[Line, ...]:
    """This machine where the study runs on it, then each device that a run has named; as many as fit."""
    load = details.load if details else None
    host = safe(progress.holder.host) if progress.holder else NO_VALUE
    if load is not None:
        cpu = f"{figure(load.cpu_load, 1):>5} of {count(load.n_cpus, 'core')}"
        memory = f"{load.memory_used_mb / 1e3:5.1f} of {load.memory_total_mb / 1e3:.1f} GB"
        entries: list[Line] = [(Span("CPU load", DIM), Span(cpu)), (Span("memory", DIM), Span(memory))]
    else:
        entries = [(Span(f"CPU and memory of {host}", DIM), Span(f" {NO_VALUE}"))]
    devices = {hint.device: hint for hint in progress.runs.values() if hint.device.partition(" ")[0] not in ("", "cpu")}
    entries += [_device(name, devices[name]) for name in sorted(devices, key=lambda each: (len(each), each))]
    lines: list[list[Span]] = [[Span(" ")]]
    for i, entry in enumerate(entries):
        used = line_width(lines[-1])
        if used > 1 and used + 3 + line_width(entry) > width - 6 * (len(lines) == max_lines and i < len(entries) - 1):
            if len(lines) == max_lines:
                lines[-1].append(Span(f" +{len(entries) - i}", DIM))
                break
            lines.append([Span(" ")])
        lines[-1] += [*([Span(" · ", DIM)] if line_width(lines[-1]) > 1 else []), *entry]
    return tuple(tuple(each) for each in lines)


def _device(name: str, hint: RunProgress) -> tuple[Span, ...]:
    memory = NO_VALUE
    if hint.memory_used_mb is not None and hint.memory_total_mb is not None:
        memory = f"{hint.memory_used_mb / 1e3:5.1f} of {hint.memory_total_mb / 1e3:.1f} GB"
    busy = NO_VALUE if hint.utilisation is None else f"{hint.utilisation * 100:3.0f} %"
    return Span(f"{safe(name)} ", DIM), Span(memory), Span(" busy ", DIM), Span(busy)


def lost_by_stopping(progress: StudyProgress) -> str:
    """What stopping at once throws away: the part of its epoch that each running run has done."""
    lost = []
    for record in progress.records:
        hint = progress.runs.get(record.run_id)
        if hint and hint.steps and record.epoch_seconds:
            lost.append(hint.step / hint.steps * sum(record.epoch_seconds) / len(record.epoch_seconds))
    if not progress.runs:
        return "No run is inside an epoch now, so nothing that is finished is lost."
    runs = count(len(progress.runs), "run")
    cost = f", about {duration(sum(lost))} of work" if len(lost) == len(progress.runs) else ""
    return f"What {runs} did of the epochs under way is lost{cost}; every finished epoch stays."
