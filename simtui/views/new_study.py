"""What the screen of a new study says: the state of each field, what the study takes, what stands in its way."""

from __future__ import annotations

import time

from rich.cells import cell_len, set_cell_size

from engine.backbones.facts import Place
from engine.errors import SimtuiError
from engine.files import size_of
from engine.jobs.forecast import Forecast
from engine.study_draft import draft_text
from simtui.safe_text import fitted, safe
from simtui.study_form import Dataset, Entry, Form, Look
from simtui.views.parts import ACCENT, DIM, ERROR, GOOD, NORMAL, STRONG, WARN, Line, Span, count, fitting, line, wrapped
from simtui.widgets.choices import Choice

_PLACES: dict[Place, str] = {
    "bundled": "bundled", "file": "file", "cached": "cached", "absent": "to fetch",
}  # fmt: skip
_TASKS = {"single": "one class an image", "ordinal": "grades", "multilabel": "several labels an image"}
_MARKS = {"stops": ("✗ ", ERROR), "skipped": ("! ", WARN), "said": ("· ", DIM)}
_ASSUMES = (
    "assumes what was timed with random weights, 16 blank images at a time, beside whatever else was running; linear "
    "runs train on features that are taken once"
)
_EMPTY = {
    "images": ("a folder of labelled images, or a MedMNIST .npz",),
    "origin": ("optional: images of the pre-training domain, for forgetting", "optional: the pre-training domain"),
}


def look_line(which: str, look: Look, width: int) -> Line:
    """One line on the state of a folder."""
    if not look.path:
        return fitting([(Span(text, DIM),) for text in _EMPTY[which]], width)
    if look.is_under_way:
        return (Span(f"reading … {max(0, round(time.monotonic() - look.started_s))} s", ACCENT),)
    if look.error is not None:
        return (Span(fitted(f"✗ {safe(look.error.problem)}", width), ERROR),)
    assert look.dataset is not None
    if look.dataset.stops:
        return (Span(fitted(f"✗ {safe(look.dataset.stops[0].text)}", width), ERROR),)
    return (Span("✓ ", GOOD), Span(fitted(_summary(look.dataset), width - 2)))


def _summary(dataset: Dataset) -> str:
    splits = ", ".join(f"{split} {n:,}" for split, n in dataset.n_of_split.items())
    parts = [safe(dataset.layout), count_of(dataset.n_images, "image"), count_of(len(dataset.classes), "class"), splits]
    return " · ".join(parts)


def count_of(n: int, noun: str) -> str:
    """`1 image`, `10,015 images`, `7 classes`."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{n:,} {noun if n == 1 else plural}"


def look_panel(look: Look, names: tuple[str, ...], width: int, height: int) -> list[Line]:
    """All about a folder: what may stand here while it is typed, then what was found, then every problem."""
    lines: list[Line] = []
    if len(names) > 1 or (names and not look.path):
        text = " · ".join(names[:40]) + ("  …" if len(names) > 40 else "")
        lines += wrapped(text, width, 2 if look.path else height, DIM)
    if look.error is not None:
        lines += _error_lines(look.error, width)
    if look.dataset is not None:
        lines += _dataset_lines(look.dataset, width)
    if len(lines) > height:
        lines = [*lines[: height - 1], (Span(f"more: simtui data {safe(look.path)}", DIM),)]
    return lines


def _dataset_lines(dataset: Dataset, width: int) -> list[Line]:
    groups = (
        f"grouped by {safe(dataset.group_name)} ({dataset.n_groups:,})" if dataset.group_name else "no groups named"
    )
    facts = [_TASKS[dataset.task], groups, f"{dataset.n_decoded:,} decoded to try"]
    if dataset.is_synthetic:
        facts.append("generated images")
    largest = sorted(dataset.classes.items(), key=lambda each: -each[1])
    classes = " · ".join(f"{safe(name)} {n:,}" for name, n in largest)
    lines = [*wrapped(" · ".join(facts), width, 2), *wrapped(classes, width, 2, DIM)]
    for problem in dataset.problems:
        mark, role = _MARKS[problem.severity]
        text = f"{mark}{f'{problem.n:,} × ' if problem.n > 1 else ''}{safe(problem.text)}"
        files = f" ({', '.join(safe(name) for name in problem.files)})" if problem.files else ""
        lines += wrapped(text + files, width, 2, role)
        if problem.fix:
            lines += wrapped(f"  fix: {safe(problem.fix)}", width, 2)
    return lines


def _error_lines(error: SimtuiError, width: int) -> list[Line]:
    return [
        *wrapped(f"{safe(error.where)}: {safe(error.problem)}", width, 3, ERROR),
        *wrapped(f"fix: {safe(error.fix)}", width, 3),
    ]


def backbone_choices(entries: tuple[Entry, ...], width: int) -> list[Choice]:
    """A row a backbone: its name, parameters, input size, where its weights are."""
    room = max(width - 5 - 25, 12)
    rows = []
    for each in entries:
        facts = each.facts
        size = f"{facts.n_parameters / 1e6:5.1f} M {facts.input_size:3} px"
        role = WARN if each.place == "absent" else DIM
        spans = (
            Span(fitted(safe(facts.name), room), NORMAL if each.is_chosen else DIM),
            Span(f" {size}  ", DIM),
            Span(_PLACES[each.place], role),  # type: ignore[index]
        )
        rows.append(Choice(facts.name, spans, each.is_chosen))
    return rows


def backbone_panel(entry: Entry | None, width: int) -> list[Line]:
    """All about the backbone under the cursor."""
    if entry is None:
        return []
    facts = entry.facts
    lines = [
        *wrapped(safe(facts.name), width, 1, STRONG),
        *wrapped(f"pre-training: {facts.paradigm} · {facts.shape}", width, 2),
    ]
    if entry.weights:
        lines += wrapped(f"weights: {safe(entry.weights)}", width, 2)
    elif entry.place == "absent" and facts.repository:
        amount = size_of(4 * facts.n_parameters)
        text = f"Its weights (about {amount}) are fetched into the hub cache at the start, which needs the network; or "
        lines += wrapped(
            text + f"name a local file below. They are {facts.repository}/{facts.filename}.", width, 4, WARN
        )
    elif entry.place == "absent":
        lines += wrapped("Its weights are missing: install simtui again.", width, 2, WARN)
    return lines


def takes_panel(form: Form, measuring: str, width: int, height: int) -> list[Line]:
    """What the study takes: runs, disk and time; where there is room, their parts and what the estimates assume."""
    draft = form.draft()
    product = (
        f" = {count(len(draft.backbones), 'backbone')} × {count(len(draft.methods), 'method')} × "
        f"{count(draft.seeds, 'seed') if isinstance(draft.seeds, int) else 'seeds'}"
    )
    head: list[Line] = [line(Span(count(draft.n_runs, "run"), STRONG), product)]
    found = form.forecast()
    if found is None:
        missing = "the images" if form.counted() is None else "backbones, methods and numbers that fit"
        return [*head, *wrapped(f"disk and time are estimated when {missing} are there", width, 2, DIM)]
    head += _disk_lines(found, form.free_bytes(), width)
    head += _time_lines(found, measuring, width)
    parts = ", ".join(f"{part.name} {size_of(part.amount)} ({part.how})" for part in found.disk)
    details = [*wrapped(f"disk: {parts}; while it runs: {found.passing.how}", width, 6, DIM)]
    if found.time:
        times = ", ".join(f"{part.name} {duration(part.amount)} ({part.how})" for part in found.time)
        details = [*wrapped(f"time: {times}", width, 6, DIM), *wrapped(_ASSUMES, width, 4, DIM), *details]
    lines = [*head, *details]
    return lines if len(lines) <= height else _cut(lines, height, width)


def _cut(lines: list[Line], height: int, width: int) -> list[Line]:
    """As many lines as there is room for; an ellipsis says that there is more."""
    last = "".join(span.text for span in lines[height - 1])
    return [*lines[: height - 1], (Span(fitted(last, width - 2).rstrip() + " …", lines[height - 1][0].role),)]


def _disk_lines(found: Forecast, free: int | None, width: int) -> list[Line]:
    is_short = free is not None and found.peak_bytes > free
    room = "" if free is None else f"; {size_of(free)} free there"
    text = f"disk about {size_of(found.kept_bytes)}, and {size_of(found.passing.amount)} more while it runs{room}"
    return list(wrapped(text + (": does not fit" if is_short else ""), width, 2, WARN if is_short else NORMAL))


def _time_lines(found: Forecast, measuring: str, width: int) -> list[Line]:
    if measuring:
        return list(wrapped(measuring, width, 2, ACCENT))
    if found.time_s is None:
        n = len(found.not_measured)
        return list(wrapped(f"time not measured yet: t measures {count(n, 'backbone')} on this machine", width, 2))
    devices = f" on {found.n_devices} devices" if found.n_devices > 1 else ""
    return list(wrapped(f"time about {duration(found.time_s)}{devices}, as measured here", width, 2))


def duration(seconds: float) -> str:
    """A time that is estimated, in two figures at most: `40 s`, `3 min`, `2 h 10 min`, `3 days`."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = seconds / 3600
    if hours < 10:
        whole, tens = divmod(round(seconds / 600), 6)
        return f"{whole} h {tens}0 min" if tens else f"{whole} h"
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


def runs_words(form: Form) -> str:
    """The shortest account of what the study takes, for the title line."""
    found = form.forecast()
    words = [count(form.draft().n_runs, "run")]
    if found is not None:
        words.append(size_of(found.peak_bytes))
        words.append(duration(found.time_s) if found.time_s is not None else "time not measured")
    return " · ".join(words)


def message_lines(form: Form, said: SimtuiError | None, width: int) -> list[Line]:
    """What stands in the way of the start, or where everything goes; an error that has just come is said first."""
    error = said or form.start_problem()
    if error is not None:
        is_missing = said is None and error.problem.startswith(("no folder yet", "none chosen", "still being read"))
        return [
            *wrapped(f"{safe(error.where)}: {safe(error.problem)}", width, 2, WARN if is_missing else ERROR),
            *wrapped(f"fix: {safe(error.fix)}", width, 2),
        ][:3]
    place = form.place()
    return [
        (Span("ready  ", GOOD), Span(fitted(f"study file {safe(place.file_path)}", width - 7))),
        (Span("       "), Span(fitted(f"results in {safe(place.study_path)}", width - 7), DIM)),
    ]


def file_lines(form: Form, width: int) -> list[Line]:
    """The study file exactly as it will be written; comments are dim, an ellipsis says where a line goes on."""
    try:
        text = draft_text(form.draft())
    except SimtuiError as error:
        return [(Span(f"{safe(error.where)}: {safe(error.problem)}", ERROR),), (Span(f"fix: {safe(error.fix)}"),)]
    return [(Span(_within(safe(each), width), DIM if each.startswith("#") else NORMAL),) for each in text.splitlines()]


def _within(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"
