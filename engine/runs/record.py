"""Owns `run.json`: what a run is, how far it is and where its numbers come from; knows nothing of arrays."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from engine.errors import DamagedError
from engine.files import read_json, write_json
from engine.study import RunSpec

RUN_FILE = "run.json"
SCHEMA = 1


class State(StrEnum):
    """Where a run is in its life; `interrupted` is never written, but seen: running, with nobody who runs it."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True)
class Provenance:
    """What a reader needs years later to know, and to make again, what was computed."""

    paradigm: str = "unknown"
    input_size: int = 0
    layers: tuple[str, ...] = ()
    poolings: tuple[str, ...] = ()
    n_features: int = 0
    weights_source: str = ""
    weights_sha256: str = ""
    manifest_digest: str = ""
    probe_digest: str = ""
    origin_digest: str = ""
    n_train: int = 0
    n_val: int = 0
    n_test: int = 0
    n_probe: int = 0
    n_origin: int = 0
    n_classes: int = 0
    dataset_is_synthetic: bool = False
    origin_is_synthetic: bool = False
    device: str = ""
    precision: str = ""
    threads: int = 0
    learning_rate: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRecord:
    """One run as it stands on disk. `first` and `last` hold the metrics of epoch 0 and of the last finished epoch."""

    run_id: str
    spec: RunSpec
    state: State = State.QUEUED
    reason: str = ""
    epochs_done: int = -1
    first: dict[str, float | None] = field(default_factory=dict)
    last: dict[str, float | None] = field(default_factory=dict)
    epoch_seconds: tuple[float, ...] = ()
    results_sha256: str = ""
    provenance: Provenance = Provenance()
    schema: int = SCHEMA

    def with_(self, **changes: Any) -> RunRecord:
        """The record with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def is_synthetic(self) -> bool:
        """Whether the images are generated, so that nothing medical follows from the numbers."""
        return self.provenance.dataset_is_synthetic


_ADAPTER: TypeAdapter[RunRecord] | None = None


def read_record(run_path: Path) -> RunRecord:
    """Reads the record of a run folder.

    Raises:
        DamagedError: unreadable, of a newer schema, or not what it claims to be.
    """
    path = run_path / RUN_FILE
    remake = f'remove the folder "{run_path.name}" and run the study again; only this run is computed anew'
    raw = read_json(path, remake)
    if isinstance(raw, dict) and isinstance(raw.get("schema"), int) and raw["schema"] > SCHEMA:
        raise DamagedError(
            str(path), f"written by schema {raw['schema']}; this simtui reads up to {SCHEMA}", "upgrade simtui"
        )
    try:
        return _adapter().validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise DamagedError(str(path), f"{where}: {first['msg']}", remake) from error


def write_record(run_path: Path, record: RunRecord) -> None:
    """Writes the record of a run folder, whole."""
    raw = _adapter().dump_python(record, mode="json")
    for metrics in (raw["first"], raw["last"]):
        metrics.update(
            {name: None for name, value in metrics.items() if value is not None and not math.isfinite(value)}
        )
    write_json(run_path / RUN_FILE, raw)


def _adapter() -> TypeAdapter[RunRecord]:
    global _ADAPTER
    if _ADAPTER is None:
        _ADAPTER = TypeAdapter(RunRecord)
    return _ADAPTER
