"""Owns `run.json`: what a run is, how far it is and where its numbers come from; knows nothing of arrays."""

from __future__ import annotations

import dataclasses
import math
import shlex
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from engine.errors import DamagedError
from engine.sealed import read_sealed_json, write_sealed_json
from engine.study import RunSpec

RUN_FILE = "run.json"
# 1: device, precision, threads and versions under provenance, no digest. 2: a session for each process that worked on
# the run, digests of its files and of this one.
SCHEMA = 2
_SEALED_SINCE = 2


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
    """What a reader needs years later to know, and to make again, what was computed.

    `layers` are "blocks" of tokens or "stages" of maps, as `layer_kind` says; `n_features` is the width of the widest.
    `weights_checkpoint` is what was asked for in a comparison of two checkpoints.
    `notes` say of a comparison of two checkpoints which images it is not of, and that these had no labels.
    `attention_reference` is the key of θ*'s attention maps in the activation store; empty where there are none.
    """

    paradigm: str = "unknown"
    input_size: int = 0
    layers: tuple[str, ...] = ()
    layer_kind: str = "blocks"
    poolings: tuple[str, ...] = ()
    n_features: int = 0
    weights_source: str = ""
    weights_sha256: str = ""
    weights_checkpoint: str = ""
    manifest_digest: str = ""
    probe_digest: str = ""
    origin_digest: str = ""
    n_train: int = 0
    n_val: int = 0
    n_test: int = 0
    n_probe: int = 0
    n_origin: int = 0
    n_origin_probe: int = 0
    attention_reference: str = ""
    n_classes: int = 0
    task: str = "single"
    dataset_is_synthetic: bool = False
    origin_is_synthetic: bool = False
    dataset_path: str = ""
    origin_path: str = ""
    learning_rate: float = 0.0
    command: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reference:
    """The first of two checkpoints that are compared, in the place of a run's pre-trained model.

    `checkpoint` is what was asked for, `name` its backbone; the others are as in `Provenance`.
    """

    checkpoint: str
    name: str
    paradigm: str = "unknown"
    input_size: int = 0
    layers: tuple[str, ...] = ()
    layer_kind: str = "blocks"
    poolings: tuple[str, ...] = ()
    n_features: int = 0
    weights_source: str = ""
    weights_sha256: str = ""


@dataclass(frozen=True)
class Session:
    """One process that worked on a run: where it ran, with what, and for how long (by a clock that is never set)."""

    first_epoch: int
    host: str
    device: str
    precision: str
    threads: int
    versions: dict[str, str]
    started_at: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class ImportedCheckpoint:
    """What was measured of a training that simtui has not done: which file, and what of it.

    `stamp` changes whenever a file is replaced: (modified, bytes), for each of its files. `head` says how the
    classifier was taken, or why there are no figures of one; `notes` what else there is to know of the weights.
    """

    sha256: str
    stamp: tuple[tuple[int, int], ...]
    has_head: bool
    head: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunRecord:
    """One run as it stands on disk.

    `first` and `last` hold the metrics of epoch 0 and of the last finished epoch. `activations` are the
    activation files that belong to the run, by key: "reference" for those of the pre-trained model, else its epoch.
    `waited_seconds` are those of `epoch_seconds` in which training waited for images.
    `reference` is set in a comparison of two checkpoints alone: nothing was trained, the method is "compared", `spec`
    and `provenance` are of the second, and what they say of training, splits and classes means nothing.
    `checkpoints` are those of an imported training that are measured, by epoch.
    `files` are the SHA-256 of what lies in its own folder once it is done. `attempts` counts the failures that may
    pass since the run was last asked for.
    """

    run_id: str
    spec: RunSpec
    state: State = State.QUEUED
    reason: str = ""
    epochs_done: int = -1
    first: dict[str, float | None] = field(default_factory=dict)
    last: dict[str, float | None] = field(default_factory=dict)
    epoch_seconds: tuple[float, ...] = ()
    waited_seconds: tuple[float, ...] = ()
    attempts: int = 0
    activations: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    sessions: tuple[Session, ...] = ()
    provenance: Provenance = Provenance()
    reference: Reference | None = None
    checkpoints: dict[str, ImportedCheckpoint] = field(default_factory=dict)
    schema: int = SCHEMA

    def with_(self, **changes: Any) -> RunRecord:
        """The record with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def is_imported(self) -> bool:
        """Whether it is of checkpoints that simtui has not trained; epochs without one are NaN in its results."""
        return bool(self.spec.checkpoints)

    @property
    def n_epochs_done(self) -> int:
        """How many epochs of training are done, or how many checkpoints are measured."""
        return len(self.checkpoints) if self.is_imported else max(self.epochs_done, 0)

    @property
    def n_epochs_all(self) -> int:
        """How many epochs, or checkpoints, there are in all."""
        return len(set(map(str, self.spec.checkpoints)) | set(self.checkpoints)) or self.spec.epochs

    @property
    def is_comparison(self) -> bool:
        """Whether it is two checkpoints held against each other, and no run of training."""
        return self.reference is not None

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
    remake = remake_run(run_path)
    raw = read_sealed_json(path, remake, sealed_since=_SEALED_SINCE)
    schema = raw.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise DamagedError(
            str(path), f"written by schema {schema}; this simtui reads up to {SCHEMA}; upgrade", "upgrade simtui"
        )
    if schema == 1:
        _upgrade_from_1(raw)
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
    write_sealed_json(run_path / RUN_FILE, raw)


def remake_run(run_path: Path) -> str:
    """What computes one run anew and leaves all others as they are."""
    return f"rm -r {shlex.quote(str(run_path))} && simtui run {shlex.quote(str(run_path.parent.parent))}"


def is_remade_here(record: RunRecord) -> bool:
    """Whether what is missing of a run can be computed on this machine; a copy of a study comes without its images."""
    path = Path(record.provenance.dataset_path)
    return path.is_absolute() and path.exists()


def command_of(study_file_path: Path) -> str:
    """What does a whole study again, in another folder."""
    return f"simtui run {shlex.quote(str(study_file_path.resolve()))} --out NEW_FOLDER"


def weights_name(epoch: int) -> str:
    """The name in a run's folder, and in `RunRecord.files`, of the weights after an epoch."""
    return f"checkpoints/epoch-{epoch:03d}.safetensors"


def _upgrade_from_1(raw: dict[str, Any]) -> None:
    provenance = raw.get("provenance")
    if isinstance(provenance, dict):
        moved = {name: provenance.pop(name, "") for name in ("device", "precision")}
        moved |= {"threads": provenance.pop("threads", 0), "versions": provenance.pop("versions", {})}
        if moved["device"]:  # else no process has worked on it yet
            raw["sessions"] = [{"first_epoch": 0, "host": "", **moved}]
    sha256 = raw.pop("results_sha256", "")
    raw["files"] = {"results.h5": sha256} if sha256 else {}
    raw["schema"] = SCHEMA


def _adapter() -> TypeAdapter[RunRecord]:
    global _ADAPTER
    if _ADAPTER is None:
        _ADAPTER = TypeAdapter(RunRecord)
    return _ADAPTER
