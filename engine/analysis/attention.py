"""Owns the attention maps of one run beside those of θ*: where they lie, and what one image shows; draws nothing."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.activations.store import remake_activations
from engine.analysis.table import Cell, Table
from engine.errors import DamagedError, StudyError
from engine.finetune.methods import method_of
from engine.jobs.plan import notes_of
from engine.quality.attention import map_correlation, map_overlap
from engine.runs.attention_maps import ATTENTION_FILE, DOMAINS, AttentionMaps, read_attention, refuse_stages
from engine.runs.record import RunRecord, State, is_remade_here, remake_run
from engine.runs.study_folder import StudyFolder

_N_CHOICES = 12
_MAP_NOTES = (
    "before: the pre-trained model θ*; after: this run's model at its last epoch; difference: after − before",
    "cls: attention that the CLS token pays to each patch; feat: that the patch tokens pay to it, mean over them",
    "as it leaves the softmax: what goes to the CLS and register tokens is missing, so maps sum to less than 1",
)


@dataclass(frozen=True, eq=False)
class AttentionView:
    """One image under the attention of one layer.

    Attributes:
        side: patches in a row.
        before, after, difference: `(side, side)` float64: attention in [0, 1] by θ* and by the run's model at its last
            epoch, and after − before; of one head, or the mean over the heads.
        entropy_before, entropy_after: nats, 0 to log P; of one head, or the mean over the heads of theirs.
        distance_before, distance_after: how far from itself a patch token looks, in pixels of the input; None for CLS.
        correlation, overlap: of the two maps as shown; None where undefined. See `engine.quality.attention`.
        patch_share_before, patch_share_after: the attention that goes to patches, in [0, 1]; the rest goes to tokens
            that stand for no place.
        is_frozen: both are θ*'s, because the run's method trains no backbone.
    """

    side: int
    before: np.ndarray
    after: np.ndarray
    difference: np.ndarray
    entropy_before: float
    entropy_after: float
    distance_before: float | None
    distance_after: float | None
    correlation: float | None
    overlap: float | None
    patch_share_before: float
    patch_share_after: float
    is_frozen: bool


def study_attention(folder: StudyFolder, record: RunRecord) -> tuple[AttentionMaps, AttentionMaps]:
    """The maps of θ*, with their pixels, and those of a run's model at its last epoch, of the same images.

    Both are one object where the run's method trains no backbone.

    Raises:
        StudyError: the run is not done, none were kept, they were freed, or its backbone has none.
        DamagedError: a file is damaged, or holds other images than the other.
    """
    refuse_stages(record)
    if record.state is not State.DONE:
        problem = f"is {record.state}: its attention maps are made at its last epoch"
        raise StudyError(record.run_id, problem, f"{_run(folder)} goes on with it")
    before = _maps_of_reference(folder, record)
    if not method_of(record.spec.method).trains_backbone:
        return before, before
    run_path = folder.run_path(record.run_id)
    path = run_path / ATTENTION_FILE
    remake = remake_run(run_path)
    if ATTENTION_FILE not in record.files and not path.exists():
        if is_remade_here(record):
            raise StudyError(record.run_id, "its attention maps were freed", f"{remake} trains it again")
        raise StudyError(record.run_id, "its attention maps are not in this copy of the study", _instead(folder))
    after = read_attention(path, remake)
    if _subject(before) != _subject(after):
        raise DamagedError(str(path), "holds other images, layers or heads than the maps of θ*", remake)
    return before, after


def _instead(folder: StudyFolder) -> str:
    """A run whose maps can be looked at."""
    having = [each for each in folder.listing().records if ATTENTION_FILE in each.files]
    first = min(having, key=lambda each: each.spec.seed, default=None)
    return f"choose a run that has them, such as {first.run_id}" if first else "look at the study where it was run"


def find_image(maps: AttentionMaps, name: str) -> int:
    """The row of the image whose id is, or contains, `name`; `target:` or `origin:` in front names its domain.

    Raises:
        StudyError: none or several.
    """
    domain, _, rest = name.partition(":")
    rows = list(range(len(maps.images)))
    exact = [row for row in rows if name == maps.images[row]]
    if not exact and domain in DOMAINS:
        rows = [row for row in rows if maps.domains[row] == domain]
        name = rest
        exact = [row for row in rows if name == maps.images[row]]
    found = exact or [row for row in rows if name in maps.images[row]]
    if len(found) == 1:
        return found[0]
    if not found:
        problem = "no image of the attention set has this in its name"
        raise StudyError(f"image {name!r}", problem, f"choose one of {_choices(maps, range(len(maps.images)))}")
    fix = "give more of the name" if len({maps.images[row] for row in found}) > 1 else "name its domain too"
    raise StudyError(f"image {name!r}", f"fits {len(found)} images: {_choices(maps, found)}", fix)


def attention_view(
    before: AttentionMaps, after: AttentionMaps, image: int, layer: str, head: int | None, pooling: str
) -> AttentionView:
    """What one image shows.

    Args:
        image: row of the image, as `find_image` gives it.
        head: counted from 0; None for the mean over the heads.
        pooling: "cls" or "feat".
    Raises:
        StudyError: there is no such image, layer, head or pooling.
    """
    row = _checked_layer(before, image, layer, head, pooling)
    heads = slice(None) if head is None else slice(head, head + 1)

    def mean(values: np.ndarray) -> np.ndarray:
        found: np.ndarray = values[image, row, heads].astype(np.float64).mean(0)
        return found

    flat = [mean(maps.maps[pooling]) for maps in (before, after)]
    entropies = [float(mean(maps.entropy[pooling])) for maps in (before, after)]
    distances = [float(mean(maps.distance)) if pooling == "feat" else None for maps in (before, after)]
    side = before.side
    squares = [each.reshape(side, side) for each in flat]
    return AttentionView(
        side,
        squares[0],
        squares[1],
        squares[1] - squares[0],
        entropies[0],
        entropies[1],
        distances[0],
        distances[1],
        _or_none(map_correlation(*flat)),
        _or_none(map_overlap(*flat)),
        float(flat[0].sum()),
        float(flat[1].sum()),
        after is before,
    )


def attention_map_table(
    before: AttentionMaps, after: AttentionMaps, image: int, layer: str, head: int | None, pooling: str
) -> Table:
    """One row a patch, from the upper left, row by row.

    Raises:
        StudyError: as `attention_view`.
    """
    view = attention_view(before, after, image, layer, head, pooling)
    values = (view.before, view.after, view.difference)
    rows: list[tuple[Cell, ...]] = [(*place, *(float(each[place]) for each in values))
                                    for place in np.ndindex(view.side, view.side)]  # fmt: skip
    return Table(
        "attention_map",
        ("row", "column", "before", "after", "difference"),
        tuple(rows),
        (*_subject_notes(before, image, layer, head, pooling), *_figures(view), *_MAP_NOTES),
    )


def _maps_of_reference(folder: StudyFolder, record: RunRecord) -> AttentionMaps:
    key = record.provenance.attention_reference
    if not key:
        raise _none_kept(folder, record)
    path = folder.activations_path / f"{key}.h5"
    if not path.exists():
        raise StudyError(str(path), "the attention maps of θ* are not there", f"{_run(folder)} makes them again")
    return read_attention(path, remake_activations(path))


def _none_kept(folder: StudyFolder, record: RunRecord) -> StudyError:
    where, name = record.run_id, record.spec.backbone.name
    if record.spec.attention_n == 0:
        problem = "this study keeps no attention maps (attention.n = 0)"
        return StudyError(where, problem, "set [attention] n = 6 and run the study in a new folder")
    unreadable = [note for note in notes_of(folder.path) if note.startswith(f'no attention maps: backbone "{name}"')]
    if unreadable:
        return StudyError(where, unreadable[0], "choose a run of another backbone")
    remake = remake_run(folder.run_path(record.run_id))
    return StudyError(where, "was run by a simtui that kept no attention maps", f"{remake} trains it again")


def _run(folder: StudyFolder) -> str:
    return f"simtui run {shlex.quote(str(folder.path))}"


def _subject(maps: AttentionMaps) -> tuple[object, ...]:
    """What two sets of maps must have in common to be laid side by side."""
    return maps.images, maps.domains, maps.layers, maps.n_heads, maps.side, set(maps.maps)


def _choices(maps: AttentionMaps, rows: Sequence[int]) -> str:
    named = [f"{maps.domains[row]}:{maps.images[row]}" for row in rows]
    more = f" and {len(named) - _N_CHOICES} more" if len(named) > _N_CHOICES else ""
    return ", ".join(named[:_N_CHOICES]) + more


def _checked_layer(maps: AttentionMaps, image: int, layer: str, head: int | None, pooling: str) -> int:
    """The row of a layer, once everything that is asked for is there."""
    if not 0 <= image < len(maps.images):
        raise StudyError(f"image {image}", "there is no such row", f"give 0 to {len(maps.images) - 1}")
    if layer not in maps.layers:
        raise StudyError(f"layer {layer!r}", "the maps have no such layer", f"choose one of {', '.join(maps.layers)}")
    if pooling not in maps.maps:
        known = ", ".join(maps.maps)
        raise StudyError(f"pooling {pooling!r}", "the maps have no such pooling", f"choose one of {known}")
    if head is not None and not 0 <= head < maps.n_heads:
        raise StudyError(f"head {head}", "the layer has no such head", f"give 0 to {maps.n_heads - 1}")
    return maps.layers.index(layer)


def _subject_notes(maps: AttentionMaps, image: int, layer: str, head: int | None, pooling: str) -> tuple[str, ...]:
    which = f"mean over {maps.n_heads} heads" if head is None else f"head {head} of {maps.n_heads}"
    return (f"{maps.images[image]} ({maps.domains[image]}), {layer}, {which}, {pooling}",)


def _figures(view: AttentionView) -> tuple[str, ...]:
    def shown(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.4g}"

    found = [
        f"entropy {shown(view.entropy_before)} nats before, {shown(view.entropy_after)} after "
        f"(even: {math.log(view.side**2):.4g})",
        f"correlation of the two maps {shown(view.correlation)}, overlap {shown(view.overlap)}",
        f"share of attention on patches {shown(view.patch_share_before)} before, {shown(view.patch_share_after)} after",
    ]
    if view.distance_before is not None:
        distances = f"{shown(view.distance_before)} pixels before, {shown(view.distance_after)} after"
        found.insert(1, f"mean attention distance {distances}")
    if view.is_frozen:
        found.append("this run trains no backbone: its attention is that of θ*")
    return tuple(found)


def _or_none(value: np.ndarray) -> float | None:
    return None if np.isnan(value) else float(value)
