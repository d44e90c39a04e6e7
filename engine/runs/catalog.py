"""Owns the catalog of a study: all run records in one file, so that a thousand runs list at once.

It is derived: a run is read again where its `run.json` has changed, and without a catalog every run is. It lies in the
study folder, or in the user's cache where that cannot be written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TypeVar

from platformdirs import user_cache_path
from pydantic import TypeAdapter, ValidationError

from engine.errors import DamagedError, SimtuiError
from engine.files import digest, read_small, write_hint
from engine.runs.record import (
    RUN_FILE,
    ImportedCheckpoint,
    Provenance,
    Reference,
    RunRecord,
    Session,
    State,
    read_record,
)
from engine.sealed import is_changed, sealed_comment
from engine.study import RunSpec

CATALOG_FILE = "catalog.json"
_SCHEMA = 2
# Below so many runs read anew, the catalog on disk is left as it is.
_MIN_READ = 20
Stamp = tuple[int, int, int]
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class DamagedRun:
    """A run folder that cannot be read, and why."""

    run_id: str
    error: SimtuiError


class Catalog:
    """The records of one study, kept in memory and read again where they have changed."""

    def __init__(self, study_path: Path) -> None:
        self._study_path = study_path
        self._entries: dict[str, tuple[Stamp, RunRecord | DamagedRun]] | None = None

    def entries(self) -> Mapping[str, tuple[Stamp, RunRecord | DamagedRun]]:
        """Every run folder as it is on disk now, in the order of their names, with the stamp of its `run.json`.

        The same object as the last time where nothing has changed.
        """
        known = self._load() if self._entries is None else self._entries
        runs_path = self._study_path / "runs"
        found: dict[str, tuple[Stamp, RunRecord | DamagedRun]] = {}
        n_read = 0
        for run_id, stamp in _stamps(runs_path):
            entry = known.get(run_id)
            if entry is None or entry[0] != stamp:
                entry = (stamp, _read(runs_path / run_id))
                n_read += 1
            found[run_id] = entry
        if n_read >= _MIN_READ:
            self._save(found)
        if self._entries is None or n_read or len(found) != len(self._entries):
            self._entries = found
        return self._entries

    def _load(self) -> dict[str, tuple[Stamp, RunRecord | DamagedRun]]:
        for path in self._paths():
            try:
                content = read_small(path)
                if not is_changed(content):
                    return dict(_unpacked(content.partition(b"\n")[2]))
            except (OSError, ValidationError, IndexError, TypeError):
                continue
        return {}

    def _save(self, entries: Mapping[str, tuple[Stamp, RunRecord | DamagedRun]]) -> None:
        """Damaged runs are not kept: what is wrong with them is found out each time."""
        sound = [(stamp, record) for stamp, record in entries.values() if isinstance(record, RunRecord)]
        content = sealed_comment(_packed(sound))
        for path in self._paths():
            if write_hint(path, content):
                return

    def _paths(self) -> tuple[Path, Path]:
        name = digest(str(self._study_path.resolve()))
        return self._study_path / CATALOG_FILE, user_cache_path("simtui") / "catalogs" / f"{name[:32]}.json"


def file_stamp(path: Path | str) -> Stamp | None:
    """What changes whenever a file is replaced; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a thousand at a time, and paths take longer to make than to look at
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def wrong_folder(path: Path, record: RunRecord) -> DamagedError:
    """The error for a run folder that has been renamed or copied."""
    return DamagedError(str(path), f"holds the run {record.run_id!r}", "give the folder its own name back")


@dataclass(frozen=True)
class _Entry:
    """A record whose parts that runs have in common are numbers of a list."""

    stamp: Stamp
    run_id: str
    spec: int
    seed: int
    provenance: int
    sessions: tuple[int, ...]
    seconds: tuple[tuple[str, int, float], ...]
    state: State
    reason: str
    epochs_done: int
    first: dict[str, float | None]
    last: dict[str, float | None]
    epoch_seconds: tuple[float, ...]
    waited_seconds: tuple[float, ...]
    attempts: int
    activations: dict[str, str]
    files: dict[str, str]
    reference: Reference | None = None
    checkpoints: dict[str, ImportedCheckpoint] = field(default_factory=dict)


@dataclass(frozen=True)
class _Packed:
    schema: int
    specs: tuple[RunSpec, ...]
    provenances: tuple[Provenance, ...]
    sessions: tuple[Session, ...]
    entries: tuple[_Entry, ...]


_PLAIN = ("run_id", "state", "reason", "epochs_done", "first", "last", "epoch_seconds", "waited_seconds", "attempts",
          "activations", "files", "reference", "checkpoints")  # fmt: skip


def _packed(entries: Iterable[tuple[Stamp, RunRecord]]) -> str:
    specs: dict[str, tuple[int, RunSpec]] = {}
    provenances: dict[str, tuple[int, Provenance]] = {}
    sessions: dict[str, tuple[int, Session]] = {}
    packed = tuple(
        _Entry(
            stamp,
            spec=_number(specs, _changed(record.spec, seed=0)),
            seed=record.spec.seed,
            provenance=_number(provenances, record.provenance),
            sessions=tuple(
                _number(sessions, _changed(each, started_at="", first_epoch=0, seconds=0.0)) for each in record.sessions
            ),
            seconds=tuple((each.started_at, each.first_epoch, each.seconds) for each in record.sessions),
            **{name: getattr(record, name) for name in _PLAIN},
        )
        for stamp, record in entries
    )
    value = _Packed(_SCHEMA, _values(specs), _values(provenances), _values(sessions), packed)
    return _adapter().dump_json(value).decode()


def _unpacked(content: bytes) -> Iterable[tuple[str, tuple[Stamp, RunRecord]]]:
    packed = _adapter().validate_json(content)
    if packed.schema != _SCHEMA:
        return
    for entry in packed.entries:
        record = RunRecord(
            spec=_changed(packed.specs[entry.spec], seed=entry.seed),
            provenance=packed.provenances[entry.provenance],
            sessions=tuple(
                _changed(packed.sessions[number], started_at=at, first_epoch=first, seconds=seconds)
                for number, (at, first, seconds) in zip(entry.sessions, entry.seconds, strict=True)
            ),
            **{name: getattr(entry, name) for name in _PLAIN},
        )
        yield entry.run_id, (entry.stamp, record)


def _number(pool: dict[str, tuple[int, _Value]], value: _Value) -> int:
    return pool.setdefault(repr(value), (len(pool), value))[0]


def _values(pool: dict[str, tuple[int, _Value]]) -> tuple[_Value, ...]:
    return tuple(value for _, value in pool.values())


def _changed(value: _Value, **changes: object) -> _Value:
    """`dataclasses.replace` without checking every unchanged part of it again: there are thousands."""
    kept = {each.name: getattr(value, each.name) for each in fields(value)}  # type: ignore[arg-type]
    return type(value)(**{**kept, **changes})


def _stamps(runs_path: Path) -> list[tuple[str, Stamp]]:
    try:
        names = sorted(os.listdir(runs_path))  # noqa: PTH208 - ten thousand at a time
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = ((name, file_stamp(f"{runs_path}/{name}/{RUN_FILE}")) for name in names)
    return [(name, stamp) for name, stamp in found if stamp is not None]


def _read(path: Path) -> RunRecord | DamagedRun:
    try:
        record = read_record(path)
        if record.run_id != path.name:
            raise wrong_folder(path, record)
        return record
    except SimtuiError as error:
        return DamagedRun(path.name, error)


@cache
def _adapter() -> TypeAdapter[_Packed]:
    return TypeAdapter(_Packed)
