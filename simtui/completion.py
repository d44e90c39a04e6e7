"""Completes paths as a shell does, and writes them so that a terminal can show them; draws nothing.

A character that is not printable, and the bytes of a name that is not UTF-8, are written as an escape (`\\x1b`), and a
backslash as two, so that what is typed names every file there can be and no escape sequence reaches the terminal.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from simtui.safe_text import safe

_MAX_NAMES = 500
_ESCAPE = re.compile(r"\\(\\|n|r|t|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
_SHORT = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}


def shown(path: str) -> str:
    """How a path is written into a line of text."""
    return safe(path.replace("\\", "\\\\"))


def typed(text: str) -> str:
    """The path that a line of text names."""
    return _ESCAPE.sub(lambda found: _SHORT.get(found[1]) or chr(int(found[1][1:], 16)), text)


def absolute(text: str) -> str:
    """The path that a line of text names, from the root; empty where nothing was typed."""
    path = typed(text).strip()
    try:
        return str(Path(path).expanduser().absolute()) if path else ""
    except (OSError, RuntimeError):  # a home that is not known, a working folder that is gone
        return path


@dataclass(frozen=True)
class Candidates:
    """What may stand where something is being typed: `names` of folders end with a slash; `completed` is the text with
    all that these names share."""

    text: str
    names: tuple[str, ...]
    completed: str


def candidates(text: str, suffixes: tuple[str, ...] = ()) -> Candidates:
    """The folders, and the files with one of these suffixes, that go on as the text begins.

    What cannot be read has no candidates. Hidden names come where a dot was typed.
    """
    path = typed(text)
    if path in ("~", ".", ".."):
        return Candidates(text, (), f"{text}/")
    head, slash, start = path.rpartition("/")
    names = []
    try:
        with os.scandir(Path(f"{head}{slash}" or ".").expanduser()) as entries:
            for entry in entries:
                if not entry.name.startswith(start) or (entry.name.startswith(".") and not start):
                    continue
                if entry.is_dir():
                    names.append(f"{entry.name}/")
                elif entry.name.endswith(suffixes) and suffixes:
                    names.append(entry.name)
                if len(names) == _MAX_NAMES:
                    break
    except (OSError, RuntimeError, ValueError):
        return Candidates(text, (), text)
    names.sort()
    shared = os.path.commonprefix(names) if names else start  # noqa: RUF071 - of characters, as a shell does
    completed = shown(f"{head}{slash}{shared}") if len(shared) > len(start) else text
    return Candidates(text, tuple(safe(name) for name in names), completed)
