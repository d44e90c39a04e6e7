"""Where the weights that ship with simtui may lie; knows nothing of what is in them, and imports no torch."""

from __future__ import annotations

from pathlib import Path


def bundled_places(weights_file: str) -> list[Path]:
    """The places of a file: in a source checkout, and beside the installed app."""
    top = Path(__file__).resolve().parents[2]
    return [top / folder / "weights" / weights_file for folder in ("sample_runs", "simtui/sample_runs")]
