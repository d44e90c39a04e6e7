"""What the forgetting view says: how much of the origin domain each backbone and method loses, over the seeds."""

from __future__ import annotations

from dataclasses import replace

from engine.analysis.estimators import POOLINGS, caution, short_of
from engine.analysis.forgetting import NO_ORIGIN, NO_ORIGIN_PROBE, PROTOCOL, SCRATCH
from engine.analysis.score import Score, score_in
from engine.analysis.table import Cell, Table
from simtui.reader import Snapshot
from simtui.safe_text import safe, short_names
from simtui.views.parts import (
    DIM,
    NO_VALUE,
    NORMAL,
    STRONG,
    WARN,
    Column,
    Line,
    Row,
    Sheet,
    Span,
    and_others,
    figure,
    line,
    wrapped,
)
from simtui.views.run_facts import similarity_title
from simtui.views.sorting import STUDY_ORDER, Order, Value, in_order, marked

EXPLANATION = (
    "k-NN accuracy on the origin domain, which the backbone was pre-trained on, before and after fine-tuning: mean ± "
    "sd over the n seeds of each group; b groups by backbone, method or paradigm. A drop above 0 is forgetting. A dash "
    "as sd: one seed only."
)
_NO_CLS = "similarity is of Feat, which all groups have: some have no CLS token"


def in_sight(found: Table, order: Order) -> Table:
    """The table in the order that is chosen, by the full means."""
    index = _sort_columns(found).get(order.column)
    if index is None:
        return found
    return replace(found, rows=in_order(found.rows, lambda row: _sort_value(row[index]), order.is_descending))


def sheet(found: Table, order: Order = STUDY_ORDER) -> Sheet:
    """One row a group; the columns that name it are those of the table."""
    short = short_names([str(name) for name in found.column("backbone")]) if "backbone" in found.columns else {}
    similarity, score, named = similarity_of(found), score_in(found.columns), names_of(found)
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    shown = tuple(_row(row, named, short, similarity, score) for row in rows)
    return Sheet(marked(_columns(named, similarity, score), order), shown)


def names_of(found: Table) -> tuple[str, ...]:
    """The columns that name a group."""
    return found.columns[: found.columns.index("n_seeds")]


def similarity_of(found: Table) -> str:
    """The similarity that stands for all: the study's first measure, such as `linear_cka_cls`.

    Of the CLS token, or of Feat where a group has no other.
    """
    measure = next((name.removesuffix("_cls_mean") for name in found.columns if name.endswith("_cls_mean")), "")
    if not measure:
        return "linear_cka_cls"
    both = zip(*(found.column(f"{measure}_{pooling}_mean") for pooling in POOLINGS), strict=True)
    return f"{measure}_feat" if any(cls is None and feat is not None for cls, feat in both) else f"{measure}_cls"


def _measure_of(similarity: str) -> tuple[str, str]:
    """The measure and the pooling."""
    measure, _, pooling = similarity.rpartition("_")
    return measure, pooling


def summary(found: Table, snapshot: Snapshot) -> str:
    """Where most and least is forgotten, among what was fine-tuned from pre-trained weights."""
    if not found.rows:
        return "No run is done yet; forgetting is measured when a run ends."
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    measured = [row for row in rows if row["drop_mean"] is not None and row.get("method") != "scratch"]
    if not measured:
        return "Origin k-NN has not been measured." if snapshot.has_origin else "This study has no origin set."
    measured.sort(key=lambda row: float(row["drop_mean"] or 0.0))
    most, least, named = measured[-1], measured[0], names_of(found)
    if most is least:
        return f"Origin k-NN of {_phrase(most, named)}."
    drops = [row["drop_mean"] for row in measured]
    highest, lowest = (_phrase(row, named) + and_others(drops, row["drop_mean"]) for row in (most, least))
    return f"Origin k-NN drops most for {highest}; least for {lowest}."


def notes(found: Table, snapshot: Snapshot, width: int) -> tuple[Line, ...]:
    """What must be known so that no figure misleads."""
    known = (PROTOCOL, NO_ORIGIN, NO_ORIGIN_PROBE, SCRATCH)
    said = tuple(note for note in found.notes if note in known or note.startswith(("by ", "left out")))
    measure, pooling = _measure_of(similarity_of(found))
    said += (_NO_CLS,) if pooling != "cls" else ()
    said += tuple(dict.fromkeys(each for record in snapshot.records if (each := caution(record, measure))))[:1]
    if any(record.provenance.origin_is_synthetic for record in snapshot.records):
        said += ("the images of the origin domain are synthetic",)
    role = WARN if found.rows and all(cell is None for cell in found.column("drop_mean")) else DIM
    return tuple(each for note in said for each in wrapped(safe(note), width, 2, role))


def detail(found: Table, key: str | None, width: int) -> tuple[Line, ...]:
    """All figures of one row, whatever the table had to leave out."""
    named = names_of(found)
    row = next(
        (dict(zip(found.columns, row, strict=True)) for row in found.rows if _key(row[: len(named)]) == key), None
    )
    if row is None:
        return ()
    (measure, pooling), score = _measure_of(similarity_of(found)), score_in(found.columns)
    interval = f" [{figure(row['drop_low'])}, {figure(row['drop_high'])}]" if row["drop_low"] is not None else ""
    return (
        line(
            Span(safe(row[named[0]]), STRONG),
            "".join(f" · {safe(row[name])}" for name in named[1:]),
            f" · n = {row['n_seeds']}",
        ),
        line(
            Span("drop ", DIM), f"{_pair(row, 'drop')}{interval} ({_percent(row)} %)",
            Span(f" · {score.label} ", DIM), _pair(row, score.metric),
        ),
        line(
            Span(f"{short_of(measure)} CLS ", DIM), _pair(row, f"{measure}_cls"),
            Span(" Feat ", DIM), _pair(row, f"{measure}_feat"),
            Span(" · origin ", DIM), _pair(row, f"{measure}_{pooling}_origin"),
        ),
    )  # fmt: skip


def _columns(named: tuple[str, ...], similarity: str, score: Score) -> tuple[Column, ...]:
    names = {
        "backbone": Column("backbone", shrinks_to=12),
        "paradigm": Column("paradigm", rank=0 if named == ("paradigm",) else 2),
        "method": Column("method"),
    }
    short = similarity_title(*_measure_of(similarity))
    return (
        *(names[name] for name in named),
        Column("n", "right"),
        Column("k-NN before", "right"),
        Column("k-NN after", "right"),
        Column("drop", "right"),
        Column("drop in %", "right", rank=5),
        Column(score.label, "right", rank=3),
        Column(short, "right", rank=4),
        Column(f"{short}, origin", "right", rank=6),
    )


def _sort_columns(found: Table) -> dict[str, int]:
    """By the title on screen, the column of the table that it is sorted by."""
    similarity, score, named = similarity_of(found), score_in(found.columns), names_of(found)
    figures = (
        "n_seeds", "origin_knn_before_mean", "origin_knn_after_mean", "drop_mean", "drop_relative_mean",
        f"{score.metric}_mean", f"{similarity}_mean", f"{similarity}_origin_mean",
    )  # fmt: skip
    titles = (column.title for column in _columns(named, similarity, score))
    pairs = zip(titles, (*named, *figures), strict=True)
    return {title: found.columns.index(name) for title, name in pairs if name in found.columns}


def _sort_value(cell: Cell) -> Value:
    return safe(cell).casefold() if isinstance(cell, str) else cell


def _row(row: dict[str, Cell], named: tuple[str, ...], short: dict[str, str], similarity: str, score: Score) -> Row:
    drop = row["drop_mean"]
    is_forgetting = isinstance(drop, float) and drop > 0.005 and row.get("method") != "scratch"
    names = {name: safe(short.get(str(row[name]), row[name])) for name in named}
    return Row(
        _key(tuple(row[name] for name in named)),
        (
            *(Span(names[name], DIM if name == "paradigm" and len(named) > 1 else NORMAL) for name in named),
            Span(str(row["n_seeds"]), DIM),
            Span(_pair(row, "origin_knn_before"), DIM),
            Span(_pair(row, "origin_knn_after")),
            Span(_pair(row, "drop"), WARN if is_forgetting else STRONG),
            Span(_percent(row)),
            Span(_pair(row, score.metric)),
            Span(_pair(row, similarity)),
            Span(_pair(row, f"{similarity}_origin")),
        ),
    )


def _key(names: tuple[Cell, ...]) -> str:
    return "\n".join(str(cell) for cell in names)


def _pair(row: dict[str, Cell], name: str) -> str:
    mean = row.get(f"{name}_mean")
    return NO_VALUE if mean is None else f"{figure(mean)} ± {figure(row[f'{name}_sd'])}"


def _percent(row: dict[str, Cell]) -> str:
    mean, sd = row["drop_relative_mean"], row["drop_relative_sd"]
    if not isinstance(mean, int | float):
        return NO_VALUE
    return f"{100 * mean:.1f} ± " + (f"{100 * sd:.1f}" if isinstance(sd, int | float) else NO_VALUE)


def _phrase(row: dict[str, Cell], named: tuple[str, ...]) -> str:
    before, after = figure(row["origin_knn_before_mean"]), figure(row["origin_knn_after_mean"])
    who = ", ".join(safe(row[name]) for name in ("method", "backbone", "paradigm") if name in named)
    who = who if named != ("backbone", "paradigm", "method") else f"{row['method']}, {safe(row['backbone'])}"
    return f"{who} ({before} → {after}, drop {_pair(row, 'drop')}, n = {row['n_seeds']})"
