"""Remembers which study was open last, and knows where the sample study lies."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_state_path

from engine.errors import MachineError

_HERE = Path(__file__).resolve().parent


def sample_study() -> Path:
    """The bundled sample study.

    Raises:
        MachineError: it is neither in the installed package nor in a source checkout.
    """
    found = _sample()
    if found is None:
        raise MachineError("sample study", f"is missing under {_HERE}", "install simtui again, or name a study to open")
    return found


def last_or_sample() -> Path:
    """The study that was open last, if it is still there, else the sample."""
    try:
        path = Path(_file().read_text("utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return sample_study()
    return path if (path / "study.toml").is_file() and (path / "runs").is_dir() else sample_study()


def remember(study: Path) -> None:
    """Keeps the name of a study for the next start; not being able to is no reason to fail."""
    if study.resolve() == _sample():
        return
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        _file().write_text(f"{study.resolve()}\n", "utf-8")
    except (OSError, UnicodeEncodeError):
        return


def _sample() -> Path | None:
    places = (top / "sample_runs" / "sample_study" for top in (_HERE, _HERE.parent))
    return next((path for path in places if (path / "study.toml").is_file()), None)


def _file() -> Path:
    return user_state_path("simtui") / "last_study"
