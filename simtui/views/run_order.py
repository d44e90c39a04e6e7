"""Owns which runs are shown and in which order, for every view that steps through runs; pure, and draws nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.runs.record import State
from simtui.reader import Snapshot
from simtui.selection import Selection
from simtui.views.run_facts import (
    BACKBONE,
    DATASET,
    EPOCH,
    METHOD,
    ORIGIN_KNN,
    PARADIGM,
    SEED,
    STATE,
    Facts,
    KnownRuns,
)
from simtui.views.run_filter import Filter, read_filter
from simtui.views.sorting import Value, in_order

ECE, KNN = "ECE", "origin k-NN"
_ALL = Filter()


def run_ids_in_order(snapshot: Snapshot, selection: Selection) -> tuple[str, ...]:
    """The runs to step through: those that are marked, else those that the filter leaves, as they are sorted.

    Marked runs count whether the filter leaves them or not. Damaged runs have nothing to show, and are left out.
    """
    known = KnownRuns.of(snapshot)
    marked = tuple(run.run_id for run in sorted_runs(known, selection) if run.run_id in selection.marked)
    shown = sorted_runs(known, selection, filter_of(known, selection))
    return marked or tuple(run.run_id for run in shown if run.record is not None)


def filter_of(known: KnownRuns, selection: Selection) -> Filter:
    """The filter in force; none where the study has changed so much that it cannot be read any more."""
    found = read_filter(selection.run_filter, known)
    return found if isinstance(found, Filter) else Filter()


def sorted_runs(known: KnownRuns, selection: Selection, wanted: Filter = _ALL) -> tuple[Facts, ...]:
    """The runs that a filter leaves, by their full values; in the order of the study where no column sorts them."""
    runs = tuple(run for run in known.runs if wanted.holds(run))
    value = sort_values(known).get(selection.runs_order.column)
    return in_order(runs, value, selection.runs_order.is_descending) if value else runs


def sort_values(known: KnownRuns) -> Mapping[str, Callable[[Facts], Value]]:
    """By the title of each column of runs, what it is sorted by; damaged runs have no value, and come last."""
    states = {str(state): place for place, state in enumerate(State)}
    words = {name: _word(name) for name in (BACKBONE, PARADIGM, DATASET, METHOD)}
    figures = {
        SEED: SEED, EPOCH: EPOCH, known.score.label: known.score.metric,
        known.similarity_title: known.similarity, ECE: "test_ece", KNN: ORIGIN_KNN,
    }  # fmt: skip
    return {
        **words,
        **{title: _figure(metric) for title, metric in figures.items()},
        STATE: lambda run: states.get(run.words[STATE]),
    }


def _word(name: str) -> Callable[[Facts], Value]:
    return lambda run: run.words.get(name)


def _figure(metric: str) -> Callable[[Facts], Value]:
    return lambda run: run.figure(metric)
