"""What the processes of a run on several devices leave each other in the folder where they meet; needs no torch."""

from __future__ import annotations

from pathlib import Path

_MAX_CHARS = 400


def say_ready(folder: Path, rank: int) -> None:
    """This process has loaded all that it needs, and comes to where they connect."""
    _ready_path(folder, rank).touch()


def is_ready(folder: Path, rank: int) -> bool:
    """Whether it has said so."""
    return _ready_path(folder, rank).exists()


def say_failure(folder: Path, rank: int, words: str) -> None:
    """Why this process ends."""
    _failure_path(folder, rank).write_text(words[:_MAX_CHARS], "utf-8", "surrogateescape")


def failure_of(folder: Path, rank: int) -> str:
    """Why it has ended, as it said; empty where it said nothing."""
    try:
        return _failure_path(folder, rank).read_text("utf-8", "replace")[:_MAX_CHARS]
    except OSError:
        return ""


def _ready_path(folder: Path, rank: int) -> Path:
    return folder / f"ready-{rank}"


def _failure_path(folder: Path, rank: int) -> Path:
    return folder / f"failure-{rank}"
