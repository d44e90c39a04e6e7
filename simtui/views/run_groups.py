"""What the runs view says of groups: mean ± sd over the seeds of a backbone and method, of the runs that are done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.analysis.bootstrap import spreads
from engine.analysis.estimators import caution, short_of
from engine.analysis.score import scores_of
from engine.analysis.study_data import RunData, group_columns, grouped, pooled_note
from engine.analysis.table import Spread
from engine.runs.record import RunRecord, State
from simtui.safe_text import safe, short_names
from simtui.selection import RunsBy, Selection
from simtui.views.parts import (
    DIM,
    NORMAL,
    STRONG,
    WARN,
    Column,
    Line,
    Row,
    Sheet,
    Span,
    count,
    line,
    line_width,
    spread,
    wrapped,
)
from simtui.views.run_facts import BACKBONE, METHOD, ORIGIN_KNN, Facts, KnownRuns
from simtui.views.run_filter import exactly
from simtui.views.run_order import ECE
from simtui.views.runs import chosen, matching
from simtui.views.sorting import Value, in_order, marked

DONE, KNN_AFTER = "done", "k-NN after"
_ECE = "test_ece"


@dataclass(frozen=True)
class Group:
    """Some runs of one backbone, one method or both.

    Attributes:
        names: by `group_columns`, as the study writes them.
        runs: all of them, done or not.
        figures: metric -> its mean and sd over those that are done and have it.
    """

    names: Mapping[str, str]
    runs: tuple[RunRecord, ...]
    figures: Mapping[str, Spread]

    @property
    def key(self) -> str:
        """What tells it from the other groups."""
        return "\n".join(self.names.values())

    @property
    def n_done(self) -> int:
        """How many runs the means are of."""
        return sum(run.state is State.DONE for run in self.runs)

    @property
    def words(self) -> str:
        """The words of a filter that leaves these runs."""
        return " ".join(exactly(field, name) for field, name in self.names.items())


def groups_of(runs: Sequence[Facts], known: KnownRuns, selection: Selection) -> tuple[Group, ...]:
    """The groups of these runs by `selection.runs_by`, as they are sorted; damaged runs are in none."""
    records = [run.record for run in runs if run.record is not None]
    by = selection.runs_by
    found = grouped([RunData(record, record.provenance.layers) for record in records], by)
    groups = tuple(
        _group(dict(zip(group_columns(by), names, strict=True)), [run.record for run in members], known)
        for names, members in found.items()
    )
    value = _sort_values(known).get(selection.runs_order.column)
    return in_order(groups, value, selection.runs_order.is_descending) if value else groups


def sheet(groups: Sequence[Group], known: KnownRuns, selection: Selection) -> Sheet:
    """One row a group."""
    short = short_names([group.names[BACKBONE] for group in groups if BACKBONE in group.names])
    titles = (
        *(Column(name, shrinks_to=14 if name == BACKBONE else None) for name in group_columns(selection.runs_by)),
        Column(DONE, "right"),
        Column(known.score.label, "right"),
        Column(known.similarity_title, "right"),
        Column(ECE, "right", rank=2),
        Column(KNN_AFTER, "right", rank=1),
    )
    rows = tuple(_row(group, short, known, selection.marked) for group in groups)
    return Sheet(marked(titles, selection.runs_order), rows)


def summary(shown: Sequence[Facts], known: KnownRuns, selection: Selection, filter_text: str) -> str:
    """Of which runs the means are."""
    records = [run.record for run in shown if run.record is not None]
    n_done = sum(record.state is State.DONE for record in records)
    head = matching(len(shown), len(known.runs), filter_text) if filter_text else count(len(records), "run")
    left_out = f", {len(records) - n_done} not done are left out" if n_done < len(records) else ""
    damaged = f", {len(shown) - len(records)} damaged" if len(records) < len(shown) else ""
    means = f"mean ± sd over the {count(n_done, 'run')} that are done{left_out}{damaged}"
    return f"{head}, by {selection.runs_by}: {means}{chosen(selection)}."


def detail(group: Group | None, known: KnownRuns, by: RunsBy, width: int) -> tuple[Line, ...]:
    """All figures of a group with their n, and what its runs differ in besides the seed."""
    if group is None:
        return ()
    names = [safe(name) for name in group.names.values()]
    head = line(
        Span(names[0], STRONG), *(f" · {name}" for name in names[1:]),
        f" · {group.n_done} of {count(len(group.runs), 'run')} done", Span(" · enter shows them", DIM),
    )  # fmt: skip
    shown = {
        **{score.label: score.metric for score in scores_of(group.runs)},
        ECE: _ECE,
        f"{short_of(known.measure)} CLS": f"{known.measure}_cls",
        f"{short_of(known.measure)} Feat": f"{known.measure}_feat",
        f"origin {KNN_AFTER}": ORIGIN_KNN,
    }
    figures: list[Line] = [
        (Span(f"{name} ", DIM), Span(_mean_and_sd(group.figures[metric], group.n_done)))
        for name, metric in shown.items()
    ]
    if any(caution(run, known.measure) for run in group.runs):
        figures.append((Span(f"{short_of(known.measure)} inflated", WARN),))
    notes = tuple(each for note in pooled_note(by) for each in wrapped(note, width, 2, WARN))
    return (head, *_beside(figures, width), *notes)


def _group(names: Mapping[str, str], runs: Sequence[RunRecord], known: KnownRuns) -> Group:
    metrics = dict.fromkeys((
        *(score.metric for score in scores_of(runs)), known.score.metric, _ECE, ORIGIN_KNN,
        f"{known.measure}_cls", f"{known.measure}_feat",
    ))  # fmt: skip
    done = [run for run in runs if run.state is State.DONE]
    values = np.array([[run.last.get(metric) for metric in metrics] for run in done], np.float64)
    found = spreads(values.reshape(len(done), len(metrics)), with_interval=False)
    return Group(names, tuple(runs), dict(zip(metrics, found, strict=True)))


def _beside(figures: Sequence[Line], width: int) -> tuple[Line, ...]:
    """As many figures on a line as fit; none is broken."""
    lines: list[Line] = []
    for each in figures:
        joined = (*lines[-1], Span(" · ", DIM), *each) if lines else each
        if lines and line_width(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(each)
    return tuple(lines)


def _sort_values(known: KnownRuns) -> Mapping[str, Callable[[Group], Value]]:
    """By the title of each column, what it is sorted by: means, not their text."""
    figures = {
        known.score.label: known.score.metric, known.similarity_title: known.similarity, ECE: _ECE,
        KNN_AFTER: ORIGIN_KNN,
    }  # fmt: skip
    return {
        BACKBONE: lambda group: safe(group.names.get(BACKBONE, "")).casefold(),
        METHOD: lambda group: group.names.get(METHOD),
        DONE: lambda group: group.n_done,
        **{title: _mean(metric) for title, metric in figures.items()},
    }


def _mean(metric: str) -> Callable[[Group], Value]:
    return lambda group: group.figures[metric].mean


def _row(group: Group, short: Mapping[str, str], known: KnownRuns, marked_ids: frozenset[str]) -> Row:
    names = [safe(short[name]) if field == BACKBONE else name for field, name in group.names.items()]
    metrics = known.score.metric, known.similarity, _ECE, ORIGIN_KNN
    figures = [_mean_and_sd(group.figures[metric], group.n_done) for metric in metrics]
    return Row(
        group.key,
        (
            *(Span(name) for name in names),
            Span(f"{group.n_done}/{len(group.runs)}", DIM),
            Span(figures[0], STRONG),
            *(Span(text, NORMAL) for text in figures[1:]),
        ),
        marked_ids.issuperset(run.run_id for run in group.runs),
    )


def _mean_and_sd(value: Spread, n_done: int) -> str:
    """With its n where it is not that of the row."""
    text = spread(value)
    return f"{text} ({value.n})" if 0 < value.n < n_done else text
