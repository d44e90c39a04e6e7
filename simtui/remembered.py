"""Remembers between two starts what the user looked at: the theme, and in each study the view and the selection.

What the file says is not trusted: what is of another type, or unknown, is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from platformdirs import user_state_path
from pydantic import TypeAdapter, ValidationError

from engine.errors import SimtuiError
from engine.files import atomic_write
from simtui.actions import ALL, RUNS
from simtui.selection import Selection
from simtui.themes import DARK, THEMES

_MAX_STUDIES = 50
_ADAPTERS = {name: TypeAdapter(kind) for name, kind in get_type_hints(Selection).items()}


@dataclass(frozen=True)
class Place:
    """Where in a study somebody was."""

    view: str = RUNS
    selection: Selection = field(default_factory=Selection)


class Memory:
    """The file of what is remembered; being unable to read or write it is no reason to fail.

    Args:
        path: the file; the user's own state folder unless another is named.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or user_state_path("simtui") / "remembered.json"

    @property
    def theme(self) -> str:
        """The theme that was chosen last, else the dark one."""
        name = self._content().get("theme")
        return name if isinstance(name, str) and name in THEMES else DARK.name

    def place(self, study: Path) -> Place:
        """Where the user was in a study; its start where nothing is known."""
        kept = _dictionary(_dictionary(self._content().get("studies")).get(str(study.resolve())))
        view = kept.get("view")
        return Place(view if view in ALL else RUNS, _selection(_dictionary(kept.get("selection"))))

    def keep(self, theme: str, study: Path, place: Place) -> None:
        """Keeps theme and place, and forgets the study that was not looked at for longest, of too many."""
        studies = _dictionary(self._content().get("studies"))
        name = str(study.resolve())
        studies.pop(name, None)
        studies[name] = {"view": place.view, "selection": _changed(place.selection)}
        kept = dict(list(studies.items())[-_MAX_STUDIES:])
        content = json.dumps({"theme": theme, "studies": kept}, indent=1)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self._path, content.encode("utf-8", "backslashreplace"))
        except (OSError, SimtuiError):
            return

    def _content(self) -> dict[str, Any]:
        try:
            # JSON as Python reads it knows NaN and Infinity, which no setting may be.
            return _dictionary(json.loads(self._path.read_text("utf-8"), parse_constant=lambda _: None))
        except (OSError, ValueError, RecursionError):
            return {}


def _dictionary(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _changed(selection: Selection) -> dict[str, Any]:
    """What is chosen otherwise than at the start, as JSON."""
    return {
        name: adapter.dump_python(value, mode="json")
        for name, adapter in _ADAPTERS.items()
        if (value := getattr(selection, name)) != getattr(Selection(), name)
    }


def _selection(kept: Mapping[str, Any]) -> Selection:
    chosen: dict[str, Any] = {}
    for name in (each.name for each in fields(Selection) if each.name in kept):
        try:
            value = _ADAPTERS[name].validate_python(kept[name])
        except ValidationError:
            continue
        if not isinstance(value, int) or value >= 0:  # numbers of rows, epochs, heads
            chosen[name] = value
    return replace(Selection(), **chosen)
