"""What the attention view says: where the heads of one layer look, before and after fine-tuning, on one image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from engine.analysis.attention import AttentionView, attention_view
from engine.finetune.methods import method_of
from engine.runs.attention_maps import AttentionMaps
from engine.runs.record import RunRecord
from simtui.palette import change_color, scale_color
from simtui.safe_text import fitted, safe
from simtui.selection import Selection
from simtui.views.parts import ACCENT, DIM, KEY, NO_VALUE, NORMAL, STRONG, Line, Span, figure, line
from simtui.widgets.pictures import Picture

EXPLANATION = (
    "Where the heads of one layer look on one image: in the pre-trained model θ*, in this run's model at its last "
    "epoch, and the difference (orange: more than before, blue: less). CLS is the attention of the class token, Feat "
    "the mean over the patch tokens. Both maps share one scale. i takes any image file, where the run's weights were "
    "kept. H J K L read out a patch: its share of all attention, that to no patch included. Entropy is in nats, "
    "distance in pixels."
)
POOLINGS = ("cls", "feat")
_GREY_SHARE = 0.25  # of the image below the colours of a map; mixed colours are not among 256


@dataclass(frozen=True)
class AttentionScreenData:
    """One image's maps of a run, and where the cursor stands among layers, heads and images."""

    before: AttentionMaps
    after: AttentionMaps
    image: int
    layer: int
    head: int | None
    pooling: str
    patch: tuple[int, int] | None
    views: tuple[AttentionView, ...]

    @property
    def view(self) -> AttentionView:
        """The layer under the cursor."""
        return self.views[self.layer]


def screen_data(before: AttentionMaps, after: AttentionMaps, selection: Selection) -> AttentionScreenData:
    """What the selection asks for, or the nearest that there is."""
    pooling = selection.pooling if selection.pooling in before.maps else next(iter(before.maps))
    named = image_names(before)
    image = named.index(selection.image) if selection.image in named else 0
    layer = before.layers.index(selection.layer) if selection.layer in before.layers else len(before.layers) - 1
    head = selection.head if selection.head is not None and selection.head < before.n_heads else None
    views = tuple(attention_view(before, after, image, name, head, pooling) for name in before.layers)
    last, wanted = before.side - 1, selection.patch
    patch = (min(max(wanted[0], 0), last), min(max(wanted[1], 0), last)) if wanted else None
    return AttentionScreenData(before, after, image, layer, head, pooling, patch, views)


_STEPS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def next_patch(data: AttentionScreenData, where: str) -> tuple[int, int]:
    """The patch beside the cursor; where there is none yet, the one that this run looks at most."""
    values = data.view.after
    if data.patch is None:
        row, column = np.unravel_index(int(values.argmax()), values.shape)
        return int(row), int(column)
    last, (down, right) = len(values) - 1, _STEPS[where]
    return min(max(data.patch[0] + down, 0), last), min(max(data.patch[1] + right, 0), last)


def patch_at(data: AttentionScreenData, row: float, column: float) -> tuple[int, int]:
    """The patch at a place of a picture, given as shares of its height and width."""
    k = len(data.view.before)
    return min(int(row * k), k - 1), min(int(column * k), k - 1)


def readout(data: AttentionScreenData) -> Line:
    """The attention that the patch under the cursor gets, before and after; of all that goes to patches."""
    if data.patch is None:
        return (Span(" H J K L read out a patch", DIM),)
    view, (row, column) = data.view, data.patch
    before, after = float(view.before[data.patch]), float(view.after[data.patch])
    return line(
        Span(f" patch row {row + 1}, column {column + 1}   share θ* ", DIM),
        Span(f"{before:.4f}", STRONG),
        Span("  run ", DIM), Span(f"{after:.4f}", STRONG),
        Span("  difference ", DIM), Span(f"{after - before:+.4f}", STRONG),
    )  # fmt: skip


def image_names(maps: AttentionMaps) -> list[str]:
    """The images with their domain: both may have one of the same name."""
    return [f"{domain}:{name}" for domain, name in zip(maps.domains, maps.images, strict=True)]


def pictures(data: AttentionScreenData, side: int, is_256: bool = False) -> tuple[Picture, ...]:
    """The image and its three maps, each `side` pixels wide.

    Args:
        is_256: only take colours that a terminal of 256 colours has, so that the image is not seen below the maps.
    """
    view = data.view
    top = max(float(view.before.max()), float(view.after.max())) or 1.0
    change = float(np.abs(view.difference).max()) or 1.0
    image = None if data.before.pixels is None else _resized(data.before.pixels[data.image], side)
    grey = np.full((side, side), 96.0) if image is None else image.mean(axis=2)
    share = 0.0 if is_256 else _GREY_SHARE
    before, after, moved = view.before / top, view.after / top, view.difference / change
    scales = (
        ("pre-trained θ*", f"0 to {top:.3g}", before, scale_color, before),
        ("this run", f"0 to {top:.3g}", after, scale_color, after),
        ("difference", f"−{change:.2g} to {change:.2g}", moved, change_color, (moved + 1) / 2),
    )
    shown = []
    for title, note, values, scale, brightness in scales:
        picture = Picture(title, note, _coloured(values, side, scale, is_256), _enlarged(brightness, side))
        shown.append(_with_cursor(_overlay(picture, grey, share), data.patch, len(values)))
    if image is None:
        return tuple(shown)
    original = Picture("image", safe(data.before.images[data.image]), image.astype(np.uint8), grey / 255)
    return (original, *shown)


def layer_lines(data: AttentionScreenData, width: int, height: int) -> tuple[Line, ...]:
    """A line a layer around the cursor: entropy, distance and likeness."""
    before_after = f"{'entropy θ*':>10} {'run':>7}  {'distance θ*':>11} {'run':>7}"
    head = f"  {'layer':<12}  {before_after}  {'correlation':>11} {'overlap':>8}"
    room = max(height - 1, 1)
    first = min(max(data.layer - room // 2, 0), max(len(data.views) - room, 0))
    lines = [line(Span(head, DIM))]
    for i, (name, view) in list(enumerate(zip(data.before.layers, data.views, strict=True)))[first : first + room]:
        figures = (
            f"  {_number(view.entropy_before, 2):>10} {_number(view.entropy_after, 2):>7}"
            f"  {_number(view.distance_before, 1):>11} {_number(view.distance_after, 1):>7}"
            f"  {_number(view.correlation):>11} {_number(view.overlap):>8}"
        )
        is_here = i == data.layer
        lines.append(
            line(
                Span("▌ " if is_here else "  ", ACCENT),
                Span(fitted(safe(name), 12), KEY if is_here else NORMAL),
                figures,
            )
        )
    return tuple(lines)


def control(data: AttentionScreenData, record: RunRecord) -> Line:
    """What is shown."""
    n = len(data.before.images)
    head = "mean of heads" if data.head is None else f"{data.head + 1} of {data.before.n_heads}"
    return line(
        Span(" image ", DIM), Span(f"{data.image + 1} of {n}", ACCENT),
        Span(f" ({data.before.domains[data.image]})", DIM),
        Span("   layer ", DIM), Span(safe(data.before.layers[data.layer]), ACCENT),
        Span("   head ", DIM), Span(head, ACCENT),
        Span("   from ", DIM), Span("CLS" if data.pooling == "cls" else "Feat", ACCENT),
    )  # fmt: skip


def summary(data: AttentionScreenData, record: RunRecord) -> str:
    """How far attention has moved, in words."""
    view = data.view
    run = f"{record.spec.method} of {safe(record.spec.backbone.name)}, seed {record.spec.seed}"
    if not method_of(record.spec.method).trains_backbone:
        return f"{run}: the backbone is frozen, so its attention is that of θ*."
    what = f"{safe(data.before.layers[data.layer])} of {run}"
    likeness = f"correlates {_number(view.correlation)} with θ*'s and shares {_number(view.overlap)} of its attention"
    moved = f"entropy {_number(view.entropy_before, 2)} → {_number(view.entropy_after, 2)} nats"
    return f"{what}: its map {likeness}; {moved}."


def _number(value: float | None, digits: int = 3) -> str:
    return NO_VALUE if value is None or math.isnan(value) else figure(float(value), digits)


def _resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """`(s, s, 3)` -> `(side, side, 3)` float64, each pixel the mean of what it covers."""
    edges = np.linspace(0, len(pixels), side + 1)
    starts = np.minimum(edges[:-1].astype(int), len(pixels) - 1)
    ends = np.maximum(edges[1:].astype(int), starts + 1)
    sums = np.pad(pixels.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))
    boxes = sums[ends][:, ends] - sums[starts][:, ends] - sums[ends][:, starts] + sums[starts][:, starts]
    areas = np.outer(ends - starts, ends - starts)
    resized: np.ndarray = boxes / areas[..., None]
    return resized


def _enlarged(values: np.ndarray, side: int) -> np.ndarray:
    """`(k, k)` -> `(side, side)`, each patch a block."""
    at = np.minimum(np.arange(side) * len(values) // side, len(values) - 1)
    return values[np.ix_(at, at)]


def _coloured(values: np.ndarray, side: int, scale: Callable[[float, bool], str], is_256: bool) -> np.ndarray:
    """`(k, k)` -> `(side, side, 3)` uint8: each patch in the colour of its value."""
    hexes = [scale(float(value), is_256) for value in values.ravel()]
    colors = np.array([[int(each[i : i + 2], 16) for i in (1, 3, 5)] for each in hexes], np.uint8)
    at = np.minimum(np.arange(side) * len(values) // side, len(values) - 1)
    return colors.reshape(*values.shape, 3)[np.ix_(at, at)]


def _with_cursor(picture: Picture, patch: tuple[int, int] | None, k: int) -> Picture:
    """The picture with the patch under the cursor in white: `k` patches along a side."""
    if patch is None:
        return picture
    at = np.minimum(np.arange(len(picture.pixels)) * k // len(picture.pixels), k - 1)
    is_patch = np.ix_(at == patch[0], at == patch[1])
    pixels, brightness = picture.pixels.copy(), picture.brightness.copy()
    pixels[is_patch], brightness[is_patch] = 255, 1.0
    return replace(picture, pixels=pixels, brightness=brightness)


def _overlay(picture: Picture, grey: np.ndarray, share: float) -> Picture:
    """The picture with some of the grey image, `(side, side)`, below it."""
    mixed = (1 - share) * picture.pixels + share * grey[..., None]
    return replace(picture, pixels=mixed.astype(np.uint8), brightness=picture.brightness.clip(0, 1))
