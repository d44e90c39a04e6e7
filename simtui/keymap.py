"""Owns the keys that a user has chosen: reads them from a file and lays them over the table of actions."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from platformdirs import user_config_path
from textual.binding import Binding
from textual.keys import Keys, format_key

from engine.errors import StudyError
from simtui.actions import ACTIONS, ALL, VIEWS, Action

Keymap = Mapping[str, tuple[str, ...]]
EXAMPLE = """[keys]
step-epoch-on = ["]", "f6"]
step-epoch-back = ["[", "f5"]
"""
_MODIFIERS = ("ctrl", "shift", "alt")
_NAMED = {key.value for key in Keys}


def keys_path() -> Path:
    """Where a user's keys are looked for."""
    return user_config_path("simtui") / "keys.toml"


def read_keys(path: Path) -> Keymap:
    """The keys of a file, by the id of their action; none where there is no file.

    Raises:
        StudyError: it is no TOML, names what is no action or no key, or gives two actions of a view one key.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StudyError(
            str(path), f"cannot be read ({error})", "mend it, or remove it for the default keys"
        ) from error
    given = content.get("keys")
    if not isinstance(given, dict) or len(content) != 1:
        raise StudyError(str(path), "needs one section [keys] and nothing else", f"write it like this: {EXAMPLE!r}")
    keymap = {name: _keys_of(path, name, value) for name, value in given.items()}
    _refuse_clashes(path, keymap)
    return keymap


def rekeyed(keymap: Keymap, actions: Sequence[Action] = ACTIONS) -> tuple[Action, ...]:
    """The actions with the keys of the user in place of their own."""
    return tuple(
        replace(action, keys=keymap[action.id], shown=" ".join(map(format_key, keymap[action.id])))
        if action.id in keymap
        else action
        for action in actions
    )


def _keys_of(path: Path, name: str, value: object) -> tuple[str, ...]:
    known = sorted({action.id for action in ACTIONS})
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        guess = f'did you mean "{near[0]}"?' if near else "see them all: simtui keys"
        raise StudyError(f"{path}: {name}", "is no action", guess)
    keys = [value] if isinstance(value, str) else value
    if not isinstance(keys, list) or not keys or not all(isinstance(key, str) and _is_key(key) for key in keys):
        raise StudyError(
            f"{path}: {name}",
            f"is no key ({value!r})",
            'give one such as "x", "]", "f5", "ctrl+n" or "pageup", or a list',
        )
    return tuple(_named(key) for key in keys)


def _is_key(key: str) -> bool:
    *modifiers, last = key.split("+") if len(key) > 1 else [key]
    return all(each in _MODIFIERS for each in modifiers) and ((len(last) == 1 and last.isprintable()) or last in _NAMED)


def _named(key: str) -> str:
    """A character by the name that Textual has for it; `,` divides keys there."""
    return "comma" if key == "," else next(iter(Binding.make_bindings([Binding(key, "")]))).key


def _refuse_clashes(path: Path, keymap: Keymap) -> None:
    for view in ALL:
        taken: dict[str, Action] = {}
        for action in rekeyed(keymap):
            if view not in action.views:
                continue
            for key in action.keys:
                other = taken.setdefault(key, action)
                if other.id != action.id:
                    mine, others = sorted((other, action), key=lambda each: each.id not in keymap)
                    raise StudyError(
                        f"{path}: {mine.id}",
                        f'"{format_key(key)}" is also {others.id} in {VIEWS[view]}',
                        "give one of them another key",
                    )
