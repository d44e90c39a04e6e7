"""Draws figure 3: what θ* and one fine-tuned model look at, from the CLS token and from the mean patch ("Feat")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.analysis.attention import AttentionView, attention_view, study_attention
from engine.analysis.options import MEAN_OF_LAYERS, TableOptions, find_run
from engine.errors import StudyError
from engine.figures.drawing import SYNTHETIC, Drawing, Source, go_on
from engine.figures.style import SMALL_PT, TWO_COLUMNS_IN, legible, new_figure
from engine.runs.attention_maps import AttentionMaps
from engine.runs.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_IMAGES = 4
_POOLINGS = ("cls", "feat")
_CLIP_PERCENT = 99.5


@dataclass(frozen=True, eq=False)
class _Subject:
    """One run's maps beside those of θ*, the images chosen, and both poolings of each."""

    record: RunRecord
    before: AttentionMaps
    layer: str
    images: tuple[int, ...]
    views: dict[tuple[int, str], AttentionView]


def draw_attention(source: Source, options: TableOptions) -> Drawing:
    """Rows are images, those of the origin domain first; columns are the image, then θ* and the run by CLS and by Feat.

    Raises:
        StudyError: no run kept maps, or the one that is asked for did not; no such run, layer or head.
        DamagedError: the maps of the run that is asked for are damaged.
    """
    subject = _subject(source, options)
    tops = {pooling: _top(subject, pooling) for pooling in _POOLINGS}
    figure = new_figure(TWO_COLUMNS_IN, 0.75 + 1.3 * len(subject.images))
    _draw(figure, subject, tops)
    return Drawing(figure, _caption(subject, options, tops))


def _subject(source: Source, options: TableOptions) -> _Subject:
    record, before, after = _maps(source, options.run)
    missing = [pooling for pooling in _POOLINGS if pooling not in before.maps]
    if missing:
        raise StudyError(record.run_id, f"has no attention maps of {missing[0]}", "name another run with --run")
    if before.pixels is None:
        raise StudyError(record.run_id, "its attention maps of θ* hold no images", "name another run with --run")
    layer = before.layers[-1] if options.layer == MEAN_OF_LAYERS else options.layer
    ordered = sorted(range(len(before.images)), key=lambda row: before.domains[row] != "origin")
    images = tuple(ordered[:_MAX_IMAGES])
    views = {
        (image, pooling): attention_view(before, after, image, layer, options.head, pooling)
        for image in images
        for pooling in _POOLINGS
    }
    return _Subject(record, before, layer, images, views)


def _maps(source: Source, asked: str | None) -> tuple[RunRecord, AttentionMaps, AttentionMaps]:
    """Those of the run that is asked for, else of the first run by "full" that kept some."""
    records = source.data.records
    if asked is not None:
        record = find_run(records, asked)
        return record, *study_attention(source.folder, record)
    refusal: StudyError | None = None
    for record in (run.record for run in source.data.done if run.record.spec.method == "full"):
        try:
            return record, *study_attention(source.folder, record)
        except StudyError as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal
    problem = "no full run is done, and attention maps are made at its end"
    fix = f"{go_on(source)}, or name a run with --run"
    raise StudyError("attention maps", problem, fix)


def _draw(figure: Figure, subject: _Subject, tops: dict[str, float]) -> None:
    pixels = subject.before.pixels
    assert pixels is not None
    grid = figure.subplots(len(subject.images), 5, squeeze=False)
    run = subject.record.spec.method
    titles = ("image", "θ*, CLS", f"{run}, CLS", "θ*, Feat", f"{run}, Feat")
    drawn: dict[str, Any] = {}
    for row, image in enumerate(subject.images):
        grid[row, 0].imshow(pixels[image], interpolation="nearest")
        for column, (pooling, is_after) in enumerate((("cls", 0), ("cls", 1), ("feat", 0), ("feat", 1)), 1):
            view = subject.views[image, pooling]
            shown = _relative(view.after if is_after else view.before)
            drawn[pooling] = grid[row, column].imshow(
                shown, cmap="viridis", vmin=0, vmax=tops[pooling], interpolation="nearest"
            )
        name = legible(subject.before.images[image].rpartition("/")[2], 20)
        grid[row, 0].set_ylabel(f"{name}\n({subject.before.domains[image]})", fontsize=6.5)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes, letter, title in zip(grid[0], "abcde", titles, strict=True):
        axes.annotate(letter, (0, 1), (0, 3), textcoords="offset points", xycoords="axes fraction",
                      fontweight="bold", fontsize=9)  # fmt: skip
        axes.annotate(title, (0, 1), (11, 3), textcoords="offset points", xycoords="axes fraction", fontsize=SMALL_PT)
    for pooling, label, columns in (("cls", "CLS", slice(1, 3)), ("feat", "Feat", slice(3, 5))):
        bar = figure.colorbar(
            drawn[pooling], ax=list(grid[:, columns].flat), orientation="horizontal", shrink=0.8, aspect=30, pad=0.02,
            extend="max",
        )  # fmt: skip
        bar.set_label(f"{label} attention to a patch (1 = even)")
        bar.outline.set_linewidth(0.4)


def _relative(attention: np.ndarray) -> np.ndarray:
    """Attention in units of what each of P patches would get if all got the same, 1 / P."""
    return attention * attention.size


def _top(subject: _Subject, pooling: str) -> float:
    """The end of a pooling's scale, the same for all its maps: few bright patches do not darken all the others."""
    views = [subject.views[image, pooling] for image in subject.images]
    values = np.concatenate([_relative(each).ravel() for view in views for each in (view.before, view.after)])
    return float(max(np.percentile(values, _CLIP_PERCENT), np.finfo(np.float32).tiny))


def _caption(subject: _Subject, options: TableOptions, tops: dict[str, float]) -> tuple[str, ...]:
    record, before = subject.record, subject.before
    which = f"mean over {before.n_heads} heads" if options.head is None else f"head {options.head} of {before.n_heads}"
    chosen = "as asked with --run" if options.run else "the first full run that kept its maps, not chosen as typical"
    images = ", ".join(f"{before.images[row]} ({before.domains[row]})" for row in subject.images)
    n_more = len(before.images) - len(subject.images)
    n_origin = sum(before.domains[row] == "origin" for row in subject.images)
    notes = [
        f"attention of {subject.layer}, {which}; one run: {record.run_id} ({chosen}), seed {record.spec.seed}",
        f"backbone: {record.spec.backbone.name} ({record.provenance.paradigm}); before: the pre-trained model θ*; "
        f"after: epoch {record.spec.epochs}",
        "CLS: attention that the CLS token pays to each patch; Feat: that the patch tokens pay to it, mean over them",
        f"unit: the even share 1 / P, P = {before.side}² patches; what goes to CLS and register tokens is missing; one "
        f"scale for all maps of CLS (to {tops['cls']:.3g}) and one for Feat (to {tops['feat']:.3g}), cut at the "
        f"{_CLIP_PERCENT:g}th percentile",
        f"images, top to bottom: {images}" + (f"; {n_more} more of the attention set are not shown" if n_more else ""),
    ]
    if not n_origin:
        notes.append("no image of the origin domain is in the attention set of this study")
    if next(iter(subject.views.values())).is_frozen:
        notes.append("this run trains no backbone: its attention is that of θ*")
    if record.is_synthetic:
        notes.append(SYNTHETIC)
    return tuple(notes)
