"""Owns how every figure looks: sizes, fonts, colours, marks, and how names from outside are written; draws no data.

Colours are Okabe and Ito's, each with a marker and a line of its own, so that a figure reads in grey as well. Names of
backbones and images come from outside: `text.parse_math` is off, so that no `$` or `_` of theirs is obeyed, and what
the font cannot show is replaced.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import MachineError
from engine.finetune.methods import HALF, METHODS, is_method, mixing_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.text import Text

ONE_COLUMN_IN, TWO_COLUMNS_IN = 3.3, 6.9
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, BLACK = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#000000",
)  # fmt: skip
GREY, PALE = "#6e6e6e", "#b4b4b4"
FONT = "DejaVu Sans"  # comes with matplotlib: the same on every machine, and it has θ, η, ε and ±
SMALL_PT = 7
_HANDLE_IN, _CHAR_IN, _LEGEND_LINE_IN = 0.5, 0.055, 0.15  # of a legend at SMALL_PT
_LONG_LINE = 38  # characters of 6.5 points above a panel a third as wide as a page
_SETTINGS: Any = {
    "font.family": FONT, "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": SMALL_PT,
    "ytick.labelsize": SMALL_PT, "legend.fontsize": SMALL_PT, "legend.frameon": False, "text.parse_math": False,
    "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5, "lines.linewidth": 1.2,
    "lines.markersize": 4, "pdf.fonttype": 42, "ps.fonttype": 42, "hatch.linewidth": 0.4, "path.simplify": True,
    "figure.constrained_layout.h_pad": 0.03, "figure.constrained_layout.w_pad": 0.03,
}  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """How one method looks: a colour, and a marker and a line that tell it apart without colour."""

    color: str
    marker: str
    line: Any  # as matplotlib writes it: "-", or lengths of dashes and gaps in points


_MARKS = (
    Mark(BLUE, "o", "-"), Mark(ORANGE, "s", (0, (4.0, 1.5))), Mark(GREEN, "^", (0, (1.0, 1.2))),
    Mark(PURPLE, "D", (0, (4.0, 1.2, 1.0, 1.2))), Mark(SKY, "v", (0, (6.0, 2.0))), Mark(GREY, "P", (0, (2.0, 1.0))),
    Mark(VERMILION, "X", (0, (5.0, 1.0, 1.0, 1.0, 1.0, 1.0))), Mark(BLACK, "*", (0, (1.0, 2.5))),
    Mark(SKY, "<", (0, (8.0, 1.5))), Mark(ORANGE, ">", (0, (3.0, 3.0))), Mark(GREEN, "p", (0, (6.0, 1.0, 2.0, 1.0))),
    Mark(PURPLE, "h", (0, (1.5, 1.5, 4.0, 1.5))),
)  # fmt: skip
_LITTLE, _MUCH = Mark(BLACK, "d", (0, (1.0, 4.0))), Mark(BLACK, "8", (0, (2.0, 2.0)))  # mixtures below one half, above
_UNKNOWN = Mark(VERMILION, "v", (0, (9.0, 2.0)))


def mark_of(method: str) -> Mark:
    """The same for a method in every figure; mixtures share one on either side of one half, unknown methods one."""
    if method in METHODS:
        return _MARKS[list(METHODS).index(method) % len(_MARKS)]
    if not is_method(method):
        return _UNKNOWN
    return _LITTLE if mixing_of(method) < HALF else _MUCH


def require_matplotlib() -> None:
    """Refuses to begin without it.

    Raises:
        MachineError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MachineError("figures", "needs matplotlib", 'pip install "simtui[figures]"') from error


@contextmanager
def styled() -> Iterator[None]:
    """Everything drawn and saved inside looks alike, whatever the user's own matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure that leaves room for its labels; no pyplot, so nothing is kept when it goes."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def on_one_line(text: str) -> str:
    """The text with a space for each character that a terminal or an editor would obey: no name splits a line."""
    return "".join(" " if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") else char for char in text)


def legible(name: str, n_chars: int = 28) -> str:
    """A name from outside on one line: without control characters, what the font lacks as `\ufffd`, its middle cut."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont(FONT))
    kept = "".join(char if font.get_char_index(ord(char)) else "\ufffd" for char in on_one_line(name))
    kept = " ".join(kept.split()) or "(no name)"
    if len(kept) <= n_chars:
        return kept
    head = n_chars // 2
    return f"{kept[:head]}…{kept[len(kept) - (n_chars - head - 1) :]}"


def labels_of(names: Sequence[str], n_chars: int = 28) -> dict[str, str]:
    """A label for each name, without the source before its colon; what then looks alike is numbered."""
    labels: dict[str, str] = {}
    for name in dict.fromkeys(names):
        label = legible(name.partition(":")[2] or name, n_chars)
        number = 1
        while (numbered := f"{label} ({number})" if number > 1 else label) in labels.values():
            number += 1
        labels[name] = numbered
    return labels


def in_two_lines(label: str, n_chars: int) -> str:
    """A label cut once, where it is longer than a line: after a separator that leaves two lines, else at the end."""
    if len(label) <= n_chars:
        return label
    at = max((label.rfind(each, 0, n_chars) + 1 for each in " ._-/"), default=0)
    at = at if at > n_chars // 3 and len(label) - at <= n_chars else n_chars
    return f"{label[:at].rstrip()}\n{label[at:].lstrip()}"


def with_math(text: Text, label: str, plain: str = "") -> None:
    """Sets a text whose `label` is our own and may hold `$…$`; `plain` comes from outside and is not obeyed."""
    text.set_parse_math(True)
    text.set_text(label + plain.replace("$", r"\$"))


def heading(axes: Axes, letter: str, text: str, below: str = "") -> None:
    """The letter of a panel in bold, what the panel shows, and a smaller line below it, all above the axes."""
    offset = 12 if below else 3
    options: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    if letter:
        axes.annotate(letter, (0, 1), (0, offset), fontweight="bold", fontsize=9, ha="left", va="bottom", **options)
    axes.annotate(text, (0, 1), (11 if letter else 0, offset), ha="left", va="bottom", fontsize=SMALL_PT, **options)
    if below:
        size = 6.5 if len(below) <= _LONG_LINE else 5.5
        axes.annotate(below, (0, 1), (0, 3), ha="left", va="bottom", fontsize=size, color=GREY, **options)


def percent(axis: Axis) -> None:
    """Ticks in percent for values that are shares of 1; the sign belongs in the label of the axis."""
    axis.set_major_formatter(lambda value, _: f"{round(100 * value, 6):g}".replace("-", "−"))


def legend_above(figure: Figure, handles: Sequence[Any], n_columns: int = 0, room_for: int = 1) -> Legend:
    """A legend of the whole figure, above all panels and outside the data.

    Args:
        n_columns: at most; 0 for as many as fit.
        room_for: how many lines the figure has room for; it grows by those beyond.
    """
    fit = _columns([str(each.get_label()) for each in handles], figure.get_figwidth())
    columns = min(n_columns, max(fit, 1)) if n_columns else fit
    n_lines = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + max(n_lines - room_for, 0) * _LEGEND_LINE_IN)
    return figure.legend(handles=handles, loc="outside upper center", ncols=columns, handlelength=2.6)


def _columns(labels: Sequence[str], width_in: float) -> int:
    """As many as there are labels where these fit on one line, else as many as of the longest."""
    widths = [_HANDLE_IN + _CHAR_IN * len(label) for label in labels]
    if sum(widths) <= width_in or not widths:
        return max(len(labels), 1)
    return max(1, int(width_in / max(widths)))


def method_handles(methods: Sequence[str]) -> list[Any]:
    """What a legend shows for each method: its line with its marker."""
    from matplotlib.lines import Line2D

    marks = {method: mark_of(method) for method in dict.fromkeys(methods)}
    return [
        Line2D([], [], color=mark.color, marker=mark.marker, linestyle=mark.line, label=method)
        for method, mark in marks.items()
    ]
