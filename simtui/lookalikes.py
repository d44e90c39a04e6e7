"""Owns what stands in for a character that the terminal's encoding lacks: another one of the same width.

Python's own stand-ins (`\\u2588`) are longer than what they stand for, which tears every line of the app apart.
"""

from __future__ import annotations

import codecs
import sys
from io import TextIOWrapper

from rich.cells import cell_len

_NAME = "simtui-lookalikes"
_SINGLE = {
    "–": "-", "…": ".", "×": "x", "→": ">", "←": "<", "↑": "^", "↓": "v", "✓": "+", "✗": "x", "●": "o", "∙": ".",
    "■": "s", "★": "*", "○": "O", "□": "S", "△": "A", "◇": "D", "▽": "V", "☆": "+", "◐": "(", "◑": ")",
    "✚": "x",
    "·": ".", "▶": ">", "▲": "^", "▼": "v", "±": "~", "≤": "<", "≥": ">", "─": "-", "━": "-", "│": "|", "┃": "|",
    "░": ":",
}  # fmt: skip
_RANGES = ((0x2500, 0x257F, "+"), (0x2580, 0x259F, "#"), (0x2800, 0x28FF, "*"))  # box drawing, blocks, braille


def use_lookalikes() -> None:
    """Makes standard output and standard error write anything in any encoding, each character in its own width."""
    codecs.register_error(_NAME, _replaced)
    for stream in (sys.__stdout__, sys.__stderr__):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=_NAME)


def lookalike(char: str) -> str:
    """ASCII of the same width."""
    ranged = (shown for first, last, shown in _RANGES if first <= ord(char) <= last)
    return _SINGLE.get(char) or next(ranged, "?" * cell_len(char))


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(lookalike, error.object[error.start : error.end])), error.end
