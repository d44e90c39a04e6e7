"""How attention changes from θ* to the end of the runs, layer by layer: mean, spread and interval over the seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from engine.analysis import bootstrap
from engine.analysis.estimators import POOLINGS
from engine.analysis.options import TableOptions
from engine.analysis.study_data import RunData, StudyData, group_columns, grouped
from engine.analysis.table import Cell, Table
from engine.analysis.trajectory import spread_cells, spread_columns
from engine.runs.attention_maps import DOMAINS, NONE_IN_STAGES, metric_name

NO_MAPS = "this study keeps no attention maps: set attention.n"
_NO_METRICS = (
    "no run that is done has attention: they were run by an earlier simtui, or the attention of their backbones cannot "
    "be read"
)
# Column, statistic in `layer_quality`, and whether it is taken before training or at the last epoch.
_QUANTITIES = (
    ("attention_entropy_before_nats", "entropy", 0),
    ("attention_entropy_after_nats", "entropy", -1),
    ("attention_distance_before_pixels", "distance", 0),
    ("attention_distance_after_pixels", "distance", -1),
    ("attention_correlation", "correlation", -1),
    ("attention_overlap", "overlap", -1),
)
STATISTICS = {
    "entropy": "of the attention over the patches, made to sum to 1, in nats: 0 where one patch has all, log of their "
    "number where all have alike; feat: of each patch token, mean over them; mean over heads and images",
    "distance": "how far from itself a patch token looks, weighted by its attention over the patches, in pixels of the "
    "input; mean over patch tokens, heads and images; Dosovitskiy et al. 2021, fig. 7",
    "correlation": "Pearson, over the patches, of a map with that of θ* (CC of Bylinskii et al. 2019); maps are means "
    "over the heads, because heads need not keep their places; mean over images",
    "overlap": "histogram intersection of a map with that of θ*, each made to sum to 1 (SIM of Bylinskii et al. 2019), "
    "0 to 1; of the same maps as the correlation",
}
_NOTES = (
    "before: epoch 0, which is θ*, but for scratch the random network that it starts from; after: the last epoch; over "
    "the runs that are done",
    *(f"{name}: {meaning}" for name, meaning in STATISTICS.items()),
    "cls: attention of the CLS token; feat: of the patch tokens, mean over them; both over the patches alone",
    bootstrap.NOTE,
)


def attention_table(data: StudyData, options: TableOptions) -> Table:
    """One row a group of `options.by`, layer, domain and pooling, over its finished runs.

    Runs of backbones with other numbers of layers are not put together.
    """
    rows: list[tuple[Cell, ...]] = []
    for names, members in grouped(data.done, options.by).items():
        for layers in dict.fromkeys(run.layers for run in members):
            rows += _rows(names, [run for run in members if run.layers == layers])
    columns = (
        *group_columns(options.by), "layer", "domain", "pooling", "n_runs",
        *spread_columns([column for column, _, _ in _QUANTITIES]),
    )  # fmt: skip
    notes = (*_NOTES, *_images(data), *_without(data)) if rows else _why_none(data)
    return Table("attention", columns, tuple(rows), (*notes, *data.notes(finals_only=True)))


def _rows(names: tuple[str, ...], runs: Sequence[RunData]) -> Iterator[tuple[Cell, ...]]:
    """Of runs with the same layers: first all layers of one domain and pooling, then of the next."""
    for domain in DOMAINS:
        for pooling in POOLINGS:
            having = [run for run in runs if metric_name("entropy", domain, pooling) in run.layer_quality]
            if not having:
                continue
            # `(n_runs, n_quantities · n_layers)`: one call for all of them.
            values = np.hstack(
                [
                    np.array([_values(run, metric_name(statistic, domain, pooling), epoch) for run in having])
                    for _, statistic, epoch in _QUANTITIES
                ]
            )
            spreads, n_layers = bootstrap.spreads(values), len(runs[0].layers)
            for i, layer in enumerate(runs[0].layers):
                cells = (cell for quantity in spreads[i::n_layers] for cell in spread_cells(quantity))
                yield (*names, layer, domain, pooling, len(having), *cells)


def _values(run: RunData, name: str, epoch: int) -> np.ndarray:
    """`(n_layers,)` float64 of one epoch; NaN where the run has no such metric."""
    values = run.layer_quality.get(name)
    return np.full(len(run.layers), np.nan) if values is None else values[epoch].astype(np.float64)


def _images(data: StudyData) -> tuple[str, ...]:
    """How many images of each domain were looked at; a domain that has fewer than were asked for gives all it has."""
    sizes: dict[tuple[int, int], None] = {}
    for record in (run.record for run in data.done if any(name.startswith("attention_") for name in run.layer_quality)):
        n, provenance = record.spec.attention_n, record.provenance
        sizes[min(n, provenance.n_test), min(n, provenance.n_origin)] = None
    return tuple(
        f"images: {n_target} of the target domain" + (f", {n_origin} of the origin domain" if n_origin else "")
        for n_target, n_origin in sizes
        if n_target
    )


def _without(data: StudyData) -> tuple[str, ...]:
    """The backbones that have no attention."""
    done = [run.record for run in data.done]
    names = dict.fromkeys(each.spec.backbone.name for each in done if each.provenance.layer_kind == "stages")
    return tuple(f"left out: {name}: {NONE_IN_STAGES}" for name in names)


def _why_none(data: StudyData) -> tuple[str, ...]:
    if not data.done:
        return ()
    if all(run.record.provenance.layer_kind == "stages" for run in data.done):
        return _without(data)
    why = _NO_METRICS if any(run.record.spec.attention_n for run in data.done) else NO_MAPS
    return (why, *_without(data))
