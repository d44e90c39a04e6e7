"""What the layer profile says: how far each layer moved from θ*, when, and in which runs, as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.analysis.layer_profile import LayerMove, LayerProfile
from engine.analysis.trajectory import Curve
from engine.finetune.methods import is_method, method_of
from simtui.palette import digit, scale_color
from simtui.safe_text import fitted, safe, short_names
from simtui.views.parts import DIM, KEY, NO_VALUE, NORMAL, STRONG, WARN, Line, Span, figure, line, spread

_LAYER_WIDTH = 12


@dataclass(frozen=True)
class ProfileRow:
    """One layer of one group."""

    profile: LayerProfile
    move: LayerMove
    curve: Curve
    name: str


def profile_rows(profiles: Sequence[LayerProfile]) -> tuple[ProfileRow, ...]:
    """All layers of all groups, one after the other."""
    short = short_names([each.group[0] for each in profiles])
    return tuple(
        ProfileRow(each, move, curve, " ".join([safe(short[each.group[0]]), *map(safe, each.group[1:])]))
        for each in profiles
        for move, curve in zip(each.moves, each.curves, strict=True)
    )


def profile_lines(
    rows: Sequence[ProfileRow], cursor: int, width: int, height: int, is_colorless: bool, is_256: bool
) -> tuple[Line, ...]:
    """The rows around the cursor: a strip of similarity over the epochs, then the figures; a title a group."""
    if not rows:
        return ()
    n_epochs = max(len(row.curve.epochs) for row in rows)
    step = max(1, -(-n_epochs // max(width - 62, 8)))
    shown_epochs = range(0, n_epochs, step)
    strip_title = f"epochs 0–{n_epochs - 1}"
    strip_width = max(len(shown_epochs), len(strip_title))
    head = (
        f"  {'layer':<{_LAYER_WIDTH}}  {strip_title:<{strip_width}}  {'last ± sd':<15}  {'drop':>6}  half at  most in"
    )
    lines: list[Line] = []
    at = 0
    for i, row in enumerate(rows):
        if i == 0 or rows[i - 1].profile is not row.profile:
            lines.append(line(Span(f" {row.name}", STRONG), Span(f"  n = {len(row.profile.run_ids)} runs", DIM)))
        if i == cursor:
            at = len(lines)
        strip = _strip(row.curve, shown_epochs, strip_width, is_colorless, is_256)
        lines.append(_row_line(row, strip, is_cursor=i == cursor))
    room = max(height - 1, 1)
    first = min(max(at - room // 2, 0), max(len(lines) - room, 0))
    return (line(Span(head, DIM)), *lines[first : first + room])


def readout(row: ProfileRow) -> Line:
    """All about the layer under the cursor, in words."""
    move = row.move
    if move.drop.mean is None:
        return line(Span(f"{safe(move.layer)} of {row.name}: undefined in every run", DIM))
    bounds = f" [{figure(move.drop.low)}, {figure(move.drop.high)}]" if move.drop.low is not None else ""
    when = ""
    if move.half_epoch is not None:
        when = f", half of it by epoch {figure(move.half_epoch, 1)}, most in epoch {move.steepest_epoch}"
    most = f"; farthest in {safe(move.run)}" if move.run else ""
    return line(
        Span(f"{safe(move.layer)} of {row.name}", STRONG),
        f" fell by {spread(move.drop)}{bounds}{when}{most}",
    )


def summary(profiles: Sequence[LayerProfile]) -> str:
    """Which layer moved most in each group that moved."""
    short = short_names([each.group[0] for each in profiles])
    said = []
    for each in profiles:
        move = each.moved_most
        starts_pretrained = not is_method(each.group[-1]) or method_of(each.group[-1]).starts_pretrained
        if starts_pretrained and move is not None and (move.drop.mean or 0.0) > 1e-3:
            name = " ".join([safe(short[each.group[0]]), *map(safe, each.group[1:])])
            n = f"{move.n_moved_most} of {len(each.run_ids)} runs"
            said.append(f"{name}: {safe(move.layer)} by {figure(move.drop.mean)} (most in {n})")
    if not said:
        return "No layer moved away from the pre-trained model in any group that started from it."
    return "Moved most from epoch 0 to the last: " + "; ".join(said) + "."


def _strip(curve: Curve, epochs: range, width: int, is_colorless: bool, is_256: bool) -> Line:
    """One cell an epoch: its mean similarity as a colour, or as a digit."""
    cells: list[Span] = []
    for epoch in epochs:
        mean = curve.spreads[epoch].mean if epoch < len(curve.spreads) else None
        value = float("nan") if mean is None else mean
        cells.append(Span(digit(value), DIM) if is_colorless else Span("█", color=scale_color(value, is_256)))
    return (*cells, Span(" " * (width - len(cells))))


def _row_line(row: ProfileRow, strip: Line, is_cursor: bool) -> Line:
    move, n = row.move, len(row.profile.run_ids)
    is_most = move.n_moved_most > 0 and move.n_moved_most * 2 > n
    half = NO_VALUE if move.half_epoch is None else figure(move.half_epoch, 1)
    drop = NO_VALUE if move.drop.mean is None else figure(move.drop.mean)
    return (
        Span("▌ " if is_cursor else "  ", KEY if is_cursor else DIM),
        Span(fitted(safe(move.layer), _LAYER_WIDTH), KEY if is_cursor else NORMAL),
        Span("  "),
        *strip,
        Span(f"  {spread(move.last):<15}  "),
        Span(f"{drop:>6}", WARN if is_most else STRONG),
        Span(f"  {half:>7}  {move.n_moved_most:>4}/{n}", DIM),
    )
