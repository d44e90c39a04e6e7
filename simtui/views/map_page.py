"""What stands where in the map view: the maps that there is room for, and all the words around them, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simtui.selection import Selection
from simtui.views import layer_map, map_compare, map_panel
from simtui.views.layer_map import LayerMap
from simtui.views.map_cells import SIMILARITY, MapPicture, change_scale, ramp, unit_of
from simtui.views.map_compare import Comparison, Run
from simtui.views.map_layout import MAX_LABEL_WIDTH
from simtui.views.parts import ACCENT, DIM, WARN, Line, Span, fitting, wrapped

SIDE_WIDTH = 34
_SIDE_PADDING, _LINES_AROUND, _MAX_WARNING_LINES = 4, 8, 3
# How wide cells stay beside a side panel: enough to write numbers into them; of several maps, to be more than that.
_LEAST_CELL, _LEAST_COMPARED_CELL = 5, 8


@dataclass(frozen=True)
class Look:
    """The screen that a page is for, and whether the epochs go by."""

    width: int
    height: int
    is_colorless: bool
    is_256: bool
    is_playing: bool


@dataclass(frozen=True)
class MapPage:
    """All that the view writes; `side` only where `has_side`, `warnings` and `likeness` may be empty."""

    maps: tuple[MapPicture, ...]
    epochs: Line
    legend: Line
    warnings: tuple[Line, ...]
    likeness: tuple[Line, ...]
    readout: Line
    has_side: bool
    side: tuple[Line, ...]


def map_page(
    shown: LayerMap, run: Run, found: Comparison | None, problem: str, selection: Selection, look: Look
) -> MapPage:
    """The page of a run, compared with the pinned one where there is a comparison.

    Args:
        problem: why there is none though a run is pinned; empty where that is not so.
    """
    width, is_crossed = look.width, selection.is_row_and_column
    alone = (layer_map.picture(shown),)
    maps = map_compare.pictures(found, width, selection.is_difference) if found else alone
    has_side = _has_side(maps, width)
    said = [problem] if problem else []
    said += found.warnings if found else [shown.warning] if shown.warning else []
    said += run.record.provenance.notes
    warnings = _indented([each for text in said for each in wrapped(f"! {text}", width - 2, 2, WARN)])
    likeness = _indented(wrapped(map_panel.likeness(shown)[0], width - 2, 1)) if is_crossed and not has_side else ()
    height = look.height - _LINES_AROUND - len(warnings)
    is_pinned = selection.pinned == run.record.run_id
    return MapPage(
        maps,
        _epochs(shown, found, is_pinned, selection.is_difference, look),
        _legend(shown, maps, found, look),
        warnings,
        likeness,
        map_compare.compared_readout(found, width, look.is_colorless, look.is_256)
        if found
        else layer_map.readout(shown, width, look.is_256),
        has_side,
        _side(shown, run, found, is_crossed, height, look.is_256) if has_side else (),
    )


def _has_side(maps: Sequence[MapPicture], width: int) -> bool:
    """Whether the side panel stands there: it takes what the maps do not need to write numbers into their cells."""
    layers = maps[-1].layers
    label_width = min(max(map(len, maps[-1].row_layers)), MAX_LABEL_WIDTH) + 3
    is_wide = len(maps) == 1 and width >= 120 and len(layers) <= 24
    least = _LEAST_CELL if len(maps) == 1 else _LEAST_COMPARED_CELL
    return is_wide or width - SIDE_WIDTH >= len(maps) * (label_width + least * len(layers))


def _side(
    shown: LayerMap, run: Run, found: Comparison | None, is_crossed: bool, height: int, is_256: bool
) -> tuple[Line, ...]:
    width = SIDE_WIDTH - _SIDE_PADDING
    if is_crossed:
        return map_panel.cross_panel(shown, width, height, is_256)
    if found and found.difference is not None:
        return map_compare.compare_panel(found, width, height)
    return map_panel.side_panel(shown, run.results, width, height, is_256)


def _epochs(shown: LayerMap, found: Comparison | None, is_pinned: bool, is_difference: bool, look: Look) -> Line:
    if shown.is_comparison:
        return (Span(" two checkpoints, compared as they are: nothing was trained, there are no epochs", DIM),)
    clock = (found.epoch, found.n_epochs) if found else (shown.epoch, shown.n_epochs)
    line = layer_map.epoch_line(*clock, look.is_playing)
    if is_pinned:
        hints = "  pinned; n: the run to compare it with", "  pinned"
        return fitting([(*line, Span(hint, DIM)) for hint in hints], look.width)
    if found is None:
        return line
    ends = Span(f"  {text}", WARN) if (text := map_compare.shorter_run(found)) else Span("")
    toggle = "the run's own map" if is_difference else "difference"
    is_toggled = found.difference is not None and not map_compare.has_room_for_three(found, look.width)
    hint = Span(f"  x: {toggle}" if is_toggled else "", DIM)
    return fitting([(*line, ends, hint), (*line, ends)], look.width)


def _legend(shown: LayerMap, maps: Sequence[MapPicture], found: Comparison | None, look: Look) -> Line:
    """What the colours or the digits of the maps in sight mean."""
    name, undefined = Span(f"  {layer_map.measure_name(shown.key)}", ACCENT), Span("  – undefined", DIM)
    limit = found.limit if found and any(each.scale.is_signed for each in maps) else None
    if look.is_colorless:
        if limit is None:
            return Span(" one digit means tenths (7 is 0.70 to 0.79)", DIM), name
        return Span(f" one digit: 7 is 0.70 to 0.79, +2 is {2 * unit_of(limit):g} more", DIM), name
    similarity = {n: (Span(" 0 ", DIM), *ramp(SIMILARITY, 0, 1, n, look.is_256), Span(" 1", DIM)) for n in (25, 13, 9)}
    if limit is None:
        lines = (*similarity[25], name, undefined), (*similarity[25], name), (*similarity[13], name)
        return fitting(lines, look.width)
    scale = change_scale(limit)
    both = {
        n: (
            *similarity[n], Span(f"   -{limit:g} ", DIM), *ramp(scale, -limit, limit, n, look.is_256),
            Span(f" +{limit:g} difference", DIM),
        )
        for n in (13, 9)
    }  # fmt: skip
    return fitting([(*both[13], name, undefined), (*both[13], name), (*both[9], name), both[9]], look.width)


def _indented(lines: Sequence[Line]) -> tuple[Line, ...]:
    return tuple((Span(" "), *each) for each in lines[:_MAX_WARNING_LINES])
