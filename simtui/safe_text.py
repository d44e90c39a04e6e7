"""The one gate for every string from outside: names of files, classes, layers, backbones; knows nothing of screens.

Such a name may hold escape sequences, line breaks, bidirectional overrides or bytes that are not text. What leaves
here is one line of printable characters; markup such as `[/]` needs no escaping, because nothing in simtui parses it.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

ELLIPSIS = "…"


def safe(text: object) -> str:
    """The text with every character that is not printable shown as its escape, so `ESC` becomes `\\x1b`."""
    string = str(text)
    if string.isprintable():
        return string
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in string)


def fitted(text: str, width: int, align: str = "left") -> str:
    """Exactly `width` terminal cells: padded, or elided in the middle, where names of a kind differ least."""
    width = max(width, 0)
    spare = width - cell_len(text)
    if spare < 0:
        return _elided(text, width)
    if align == "right":
        return " " * spare + text
    if align == "center":
        return " " * (spare // 2) + text + " " * (spare - spare // 2)
    return text + " " * spare


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Each name without what comes before the first colon, where all stay different without it."""
    unique = list(dict.fromkeys(names))
    tails = [name.partition(":")[2] or name for name in unique]
    return dict(zip(unique, tails if len(set(tails)) == len(unique) else unique, strict=True))


def _elided(text: str, width: int) -> str:
    if width <= 1:
        return ELLIPSIS[:width]
    head = (width - 1) // 2
    tail = width - 1 - head
    end = text
    while cell_len(end) > tail:
        end = end[1:]
    return set_cell_size(set_cell_size(text, head) + ELLIPSIS + end, width)
