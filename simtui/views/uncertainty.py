"""What the map view says of how sure a cell is: its interval over images, and what unrelated layers would score."""

from __future__ import annotations

import math

from engine.errors import SimtuiError
from engine.runs.uncertainty import CellUncertainty
from simtui.safe_text import safe
from simtui.views.parts import DIM, WARN, Line, Span, figure, fitting, line, wrapped

COMPUTING = "computing the interval and the null level of these cells …"
UNKNOWN = "i: compute the interval and the null level of these cells"
_SEPARATOR = " · "


def uncertainty_words(
    found: CellUncertainty | SimtuiError | None, row: int, column: int, *, has_settings: bool = False
) -> str:
    """`95 % 0.41–0.46 over images · unrelated 0.02 (95 % below 0.03)`; why there is none; empty for None.

    Args:
        has_settings: with how many images there are and how often they were resampled and put into another order.
    """
    if found is None:
        return ""
    if isinstance(found, SimtuiError):
        return f"no interval: {safe(found.problem)}; {safe(found.fix)}"
    if math.isnan(found.value[row, column]):
        return "an undefined cell has no interval"
    return _SEPARATOR.join((_interval(found, row, column, has_settings), _unrelated(found, row, column, has_settings)))


def uncertainty_lines(
    found: CellUncertainty | SimtuiError | str | None, row: int, column: int, width: int, whose: str = ""
) -> tuple[Line, ...]:
    """The words below the readout, on as many lines as they need; none for None.

    Args:
        found: a text is shown as it is.
        whose: what stands in front where several runs are in sight.
    """
    if found is None:
        return ()
    if isinstance(found, str):
        return (line(" ", Span(found, DIM)),)
    if isinstance(found, SimtuiError):
        return tuple((Span(" "), *each) for each in wrapped(uncertainty_words(found, row, column), width - 2, 3, WARN))
    texts = [uncertainty_words(found, row, column, has_settings=each) for each in (True, False)]
    shown = fitting([line(" ", Span(whose + text, DIM)) for text in texts], width - 1)
    return tuple((Span(" "), *each) for each in wrapped(shown[1].text, width - 2, 2, DIM))


def _interval(found: CellUncertainty, row: int, column: int, has_settings: bool) -> str:
    if found.no_interval:
        return safe(found.no_interval) if has_settings else "no interval for this measure"
    low, high = float(found.low[row, column]), float(found.high[row, column])
    between = "–" if low >= 0 else " to "
    over = f"{found.n_images:,} images, {found.n_resamples:,} resamples" if has_settings else "images"
    return f"{_share(found)} {figure(low)}{between}{figure(high)} over {over}"


def _unrelated(found: CellUncertainty, row: int, column: int, has_settings: bool) -> str:
    mean, high = float(found.null_mean[row, column]), float(found.null_high[row, column])
    share = _share(found) if found.n_orders else f"at least {_share(found)}"
    orders = f", {found.n_orders:,} orders" if has_settings and found.n_orders else ""
    return f"unrelated {figure(mean)} ({share} below {figure(high)}{orders})"


def _share(found: CellUncertainty) -> str:
    return f"{found.level * 100:g} %"
