"""What the forgetting view says: how much of the origin domain each backbone and method loses, over the seeds."""

from __future__ import annotations

from engine.analysis.estimators import caution, label_of, short_of
from engine.analysis.forgetting import NO_ORIGIN, PROTOCOL, SCRATCH, forgetting_of_records
from engine.analysis.score import Score, score_in
from engine.analysis.table import Cell, Table
from simtui.reader import Snapshot
from simtui.safe_text import safe, short_names
from simtui.views.parts import DIM, NO_VALUE, STRONG, WARN, Column, Line, Row, Sheet, Span, figure, line, wrapped

EXPLANATION = (
    "k-NN accuracy on the origin domain, which the backbone was pre-trained on, before and after fine-tuning: mean ± "
    "sd over the n seeds of each backbone and method. A drop above 0 is forgetting. A dash as sd: one seed only."
)


def table(snapshot: Snapshot) -> Table:
    """The engine's table, as it is exported."""
    return forgetting_of_records(snapshot.records)


def sheet(found: Table) -> Sheet:
    """One row a backbone and method."""
    short = short_names([str(name) for name in found.column("backbone")])
    similarity, score = similarity_of(found), score_in(found.columns)
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    return Sheet(_columns(similarity, score), tuple(_row(row, short, similarity, score) for row in rows))


def similarity_of(found: Table) -> str:
    """The similarity that stands for all: the study's first measure, of the CLS token, such as `linear_cka_cls`."""
    names = (name.removesuffix("_mean") for name in found.columns if name.endswith("_cls_mean"))
    return next(names, "linear_cka_cls")


def summary(found: Table, snapshot: Snapshot) -> str:
    """Where most and least is forgotten, among what was fine-tuned from pre-trained weights."""
    if not found.rows:
        return "No run is done yet; forgetting is measured when a run ends."
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    measured = [row for row in rows if row["drop_mean"] is not None and row["method"] != "scratch"]
    if not measured:
        return "Origin k-NN has not been measured." if snapshot.has_origin else "This study has no origin set."
    measured.sort(key=lambda row: float(row["drop_mean"] or 0.0))
    most, least = measured[-1], measured[0]
    if most is least:
        return f"Origin k-NN of {_phrase(most)}."
    return f"Origin k-NN drops most for {_phrase(most)}; least for {_phrase(least)}."


def notes(found: Table, snapshot: Snapshot, width: int) -> tuple[Line, ...]:
    """What must be known so that no figure misleads."""
    said = tuple(note for note in found.notes if note in (PROTOCOL, NO_ORIGIN, SCRATCH))
    measure = similarity_of(found).removesuffix("_cls")
    said += tuple(dict.fromkeys(each for record in snapshot.records if (each := caution(record, measure))))[:1]
    if any(record.provenance.origin_is_synthetic for record in snapshot.records):
        said += ("the images of the origin domain are synthetic",)
    role = WARN if found.rows and all(cell is None for cell in found.column("drop_mean")) else DIM
    return tuple(each for note in said for each in wrapped(safe(note), width, 2, role))


def detail(found: Table, key: str | None, width: int) -> tuple[Line, ...]:
    """All figures of one row, whatever the table had to leave out."""
    row = next((dict(zip(found.columns, row, strict=True)) for row in found.rows if _key(row) == key), None)
    if row is None:
        return ()
    measure, score = similarity_of(found).removesuffix("_cls"), score_in(found.columns)
    return (
        line(
            Span(safe(row["backbone"]), STRONG),
            f" ({safe(row['paradigm'])}) · {row['method']} · n = {row['n_seeds']}",
        ),
        line(
            Span("drop ", DIM), f"{_pair(row, 'drop')} ({_percent(row)} %)",
            Span(f" · {score.label} ", DIM), _pair(row, score.metric),
        ),
        line(
            Span(f"{label_of(measure)} CLS ", DIM), _pair(row, f"{measure}_cls"),
            Span(" · Feat ", DIM), _pair(row, f"{measure}_feat"),
        ),
    )  # fmt: skip


def _columns(similarity: str, score: Score) -> tuple[Column, ...]:
    return (
        Column("backbone", shrinks_to=12),
        Column("paradigm", rank=2),
        Column("method"),
        Column("n", "right"),
        Column("k-NN before", "right"),
        Column("k-NN after", "right"),
        Column("drop", "right"),
        Column("drop in %", "right", rank=5),
        Column(score.label, "right", rank=3),
        Column(short_of(similarity.removesuffix("_cls")), "right", rank=4),
    )


def _row(row: dict[str, Cell], short: dict[str, str], similarity: str, score: Score) -> Row:
    drop = row["drop_mean"]
    is_forgetting = isinstance(drop, float) and drop > 0.005 and row["method"] != "scratch"
    return Row(
        _key((row["backbone"], row["paradigm"], row["method"])),
        (
            Span(safe(short[str(row["backbone"])])),
            Span(safe(row["paradigm"]), DIM),
            Span(safe(row["method"])),
            Span(str(row["n_seeds"]), DIM),
            Span(_pair(row, "origin_knn_before"), DIM),
            Span(_pair(row, "origin_knn_after")),
            Span(_pair(row, "drop"), WARN if is_forgetting else STRONG),
            Span(_percent(row)),
            Span(_pair(row, score.metric)),
            Span(_pair(row, similarity)),
        ),
    )


def _key(row: tuple[Cell, ...]) -> str:
    return "\n".join(str(cell) for cell in row[:3])


def _pair(row: dict[str, Cell], name: str) -> str:
    mean = row.get(f"{name}_mean")
    return NO_VALUE if mean is None else f"{figure(mean)} ± {figure(row[f'{name}_sd'])}"


def _percent(row: dict[str, Cell]) -> str:
    mean, sd = row["drop_relative_mean"], row["drop_relative_sd"]
    if not isinstance(mean, int | float):
        return NO_VALUE
    return f"{100 * mean:.1f} ± " + (f"{100 * sd:.1f}" if isinstance(sd, int | float) else NO_VALUE)


def _phrase(row: dict[str, Cell]) -> str:
    before, after = figure(row["origin_knn_before_mean"]), figure(row["origin_knn_after_mean"])
    who = f"{row['method']}, {safe(row['backbone'])}"
    return f"{who} ({before} → {after}, drop {_pair(row, 'drop')}, n = {row['n_seeds']})"
