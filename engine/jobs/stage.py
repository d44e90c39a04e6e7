"""Owns the small files by which the processes of a study tell what they are doing; computes nothing, needs no torch.

They are hints for progress bars: written whole but not forced to disk, at most twice a second, and never trusted.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from engine.errors import SimtuiError
from engine.files import read_small, write_hint

_INTERVAL_S = 0.5
PROGRESS_FILE = "progress.json"


@dataclass(frozen=True)
class Failure:
    """Why a study could not start or go on, as its process said it."""

    where: str
    problem: str
    fix: str
    exit_code: int

    @classmethod
    def of(cls, error: SimtuiError) -> Failure:
        """The failure of an expected error."""
        return cls(error.where, error.problem, error.fix, error.exit_code)

    def as_error(self) -> SimtuiError:
        """The error again, for whoever started the process."""
        error = SimtuiError(self.where, self.problem, self.fix)
        error.exit_code = self.exit_code
        return error

    def __str__(self) -> str:
        return str(self.as_error())


@dataclass(frozen=True)
class Stage:
    """What the study does now: `done` of `total` things; `total` 0 where it cannot be counted.

    `need_bytes`: the room on the disk that it waits for.
    """

    name: str
    done: int = 0
    total: int = 0
    n_workers: int = 1
    need_bytes: int = 0
    failure: Failure | None = None


@dataclass(frozen=True)
class RunProgress:
    """Where inside an epoch a run is; `waited_share` is the part of it in which training waited for images.

    `loss` is None where nothing is trained.

    `device` and what follows tell of the device as a whole, whoever uses it: None where it cannot be measured, as on a
    CPU. `utilisation`: the share of the last moment in which it was computing.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_s: float
    loss: float | None
    waited_share: float = 0.0
    device: str = ""
    memory_used_mb: float | None = None
    memory_total_mb: float | None = None
    utilisation: float | None = None


_Hint = TypeVar("_Hint", Stage, RunProgress)


class Throttled:
    """Writes a value to a file at most twice a second; the last of a series (`is_last`) always."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written_s = 0.0

    @property
    def is_due(self) -> bool:
        """Whether a value would be written now; for values that it takes time to find out."""
        return time.monotonic() - self._written_s >= _INTERVAL_S

    def write(self, value: Stage | RunProgress, *, is_last: bool = False) -> None:
        """Writes, unless the last one was written a moment ago."""
        if not is_last and not self.is_due:
            return
        self._written_s = time.monotonic()
        write_hint(self._path, json.dumps(asdict(value)))


def read_stage(path: Path) -> Stage | None:
    """What the study said last; None where it has said nothing that can be read."""
    return _read(path, Stage)


def read_run_progress(path: Path) -> RunProgress | None:
    """What a run said last; None where it has said nothing that can be read."""
    return _read(path, RunProgress)


def _read(path: Path, kind: type[_Hint]) -> _Hint | None:
    try:
        found: _Hint = _adapter(kind.__name__).validate_json(read_small(path))
        return found
    except (OSError, ValueError):
        return None


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter({"Stage": Stage, "RunProgress": RunProgress}[name])
