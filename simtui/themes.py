"""Owns what the app looks like in general: dark, light, and one that does without telling red from green.

Every colour is one of the 256 that terminals have over SSH, or has a near neighbour there.
"""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="dark",
    primary="#56b4e9",
    accent="#56b4e9",
    success="#5fbf8f",
    warning="#e6a23c",
    error="#ef6b6b",
    foreground="#d7dce5",
    # Nearly grey: a bluish dark has no neighbour among 256 colours but black.
    background="#121417",
    surface="#1f2227",
    panel="#2a2e35",
    dark=True,
)
LIGHT = Theme(
    name="light",
    primary="#005f87",
    accent="#005f87",
    success="#005f00",
    warning="#875f00",
    error="#af0000",
    foreground="#1c1c1c",
    background="#ffffff",
    surface="#eeeeee",
    panel="#dadada",
    dark=False,
)
# Good is blue, a warning yellow, an error orange: three that every kind of colour blindness keeps apart.
COLOR_BLIND_SAFE = Theme(
    name="colour-blind safe",
    primary="#ffffff",
    accent="#ffffff",
    success="#5fafff",
    warning="#ffff5f",
    error="#ff8700",
    foreground="#d7dce5",
    background="#121212",
    surface="#262626",
    panel="#303030",
    dark=True,
)
THEMES = {theme.name: theme for theme in (DARK, LIGHT, COLOR_BLIND_SAFE)}


def next_theme(name: str) -> str:
    """The theme after this one, around the end."""
    names = list(THEMES)
    return names[(names.index(name) + 1) % len(names)] if name in THEMES else names[0]
