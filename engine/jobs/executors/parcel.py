"""What a run takes along to a node that does not see the study folder, and what it brings back; knows no engine.

A node works in a scratch folder that is a study folder in small: the request, the plan, decoded images, what the
pre-trained models made of them, and the folder of the run. What comes back is checked by name, by size and by the
run's own digests before it stands in the study folder; it is written in the order that survives a crash at any point.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import DamagedError
from engine.files import atomic_write, digest, sha256_file, write_hint
from engine.jobs.logs import LOG_FILE
from engine.jobs.plan import PLAN_FILE
from engine.jobs.stage import PROGRESS_FILE
from engine.runs.attention_maps import ATTENTION_FILE
from engine.runs.record import RUN_FILE, RunRecord, State, command_of, read_record, write_record
from engine.runs.results import HISTORY_FILE, RESULTS_FILE
from engine.runs.study_folder import StudyFolder
from engine.study import Study, freeze_study, needs_run

_OF_A_RUN = re.compile(
    rf"{re.escape(RUN_FILE)}|{re.escape(RESULTS_FILE)}|{re.escape(HISTORY_FILE)}|{re.escape(ATTENTION_FILE)}|"
    rf"{re.escape(LOG_FILE)}|checkpoints/epoch-\d+\.safetensors|checkpoints/last/[\w-][\w.-]*"
)
_OF_THE_STORE = re.compile(r"[0-9a-f]{64}\.h5")
_MAX_TRIES = 5
Bytes = Any  # a `(n,)` uint8 array: what Ray shares between processes without copying it


@dataclass(frozen=True)
class Update:
    """What has changed of a run on its node: files by their names in its folder, and in the activation store.

    `names` are all files of the run's folder, so that resume points which are gone go here too. Empty where only
    `progress` (the text of the hint) has changed.
    """

    files: Mapping[str, Bytes] = field(default_factory=dict)
    activations: Mapping[str, Bytes] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    progress: str = ""


def common_files(folder: StudyFolder) -> dict[str, Path]:
    """What every run needs of a prepared study, by its name in the scratch folder; not what other runs have made."""
    records = folder.listing().records
    made = {key for record in records for key, role in record.activations.items() if role != "reference"}
    found = {str(path.relative_to(folder.path)): path for path in sorted(folder.probes_path.glob("*/*"))}
    for path in sorted(folder.activations_path.glob("*.h5")):
        if path.stem not in made:
            found[str(path.relative_to(folder.path))] = path
    found[PLAN_FILE] = folder.path / PLAN_FILE
    for i, section in enumerate(folder.study.backbone):
        if section.weights:
            found[_weights_name(i, section.weights)] = Path(section.weights)
    return {name: path for name, path in found.items() if path.is_file() and ".tmp-" not in path.name}


def key_of(files: Mapping[str, Path]) -> str:
    """Changes with any of the files: the name of a scratch folder, in which a file that is there is the right one."""
    stamps = [(name, status.st_size, status.st_mtime_ns) for name, path in files.items() if (status := path.stat())]
    return digest(stamps)[:24]


def files_of_run(run_path: Path) -> dict[str, Path]:
    """What a run needs to go on from its last epoch."""
    found = {str(path.relative_to(run_path)): path for path in sorted(run_path.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if _OF_A_RUN.fullmatch(name) and name != LOG_FILE}


def files_of_needed(folder: StudyFolder, run_id: str) -> dict[str, Path]:
    """The record and the kept weights of the run that one is made from, by name in the scratch folder; mostly none."""
    needed = needs_run(read_record(folder.run_path(run_id)).spec)
    found = files_of_run(folder.run_path(needed)) if needed else {}
    kept = {name: path for name, path in found.items() if name == RUN_FILE or name.startswith("checkpoints/epoch-")}
    return {str(path.relative_to(folder.path)): path for path in kept.values()}


def as_bytes(path: Path) -> Bytes:
    """The content of a file."""
    return np.fromfile(path, np.uint8)


def scratch_study(study: Study, scratch_path: Path) -> Study:
    """The study as it is on a node: its weights lie in the scratch folder."""
    backbones = tuple(
        replace(each, weights=str(scratch_path / _weights_name(i, each.weights))) if each.weights else each
        for i, each in enumerate(study.backbone)
    )
    return replace(study, backbone=backbones)


def unpack_run(study: Study, scratch_path: Path, run_id: str, files: Mapping[str, Bytes]) -> Path:
    """Makes the folder of one run in a scratch folder whose common files are there; returns it."""
    local = scratch_study(study, scratch_path)
    atomic_write(scratch_path / "study.toml", freeze_study(local))
    run_path = scratch_path / "runs" / run_id
    shutil.rmtree(run_path, ignore_errors=True)
    for name, content in files.items():
        atomic_write(run_path / name, content.tobytes())
    record = read_record(run_path)
    here = next(each for each in local.backbone if each.name == record.spec.backbone.name)
    write_record(run_path, record.with_(spec=replace(record.spec, backbone=here)))
    return run_path


class Sender:
    """On the node: finds what has changed of a run since the last time."""

    def __init__(self, scratch_path: Path, run_path: Path) -> None:
        self._scratch_path, self._run_path = scratch_path, run_path
        self._sent: dict[str, tuple[int, int, int]] = {
            name: _stamp(path) for name, path in files_of_run(run_path).items() if name != RUN_FILE
        }
        self._progress = ""

    def changes(self, *, is_last: bool = False) -> Update | None:
        """The files of a new epoch, or of a new state; else the progress; None where nothing is new."""
        with contextlib.suppress(FileNotFoundError):
            if is_last or self._sent.get(RUN_FILE) != _stamp(self._run_path / RUN_FILE):
                return self._snapshot()
        try:
            text = (self._run_path / PROGRESS_FILE).read_text("utf-8")
        except OSError:
            return None
        if text == self._progress:
            return None
        self._progress = text
        return Update(progress=text)

    def _snapshot(self) -> Update:
        for _ in range(_MAX_TRIES):
            with contextlib.suppress(FileNotFoundError):  # a resume point that was replaced as it was read
                return self._try_snapshot()
        return self._try_snapshot()

    def _try_snapshot(self) -> Update:
        """Reads against the order of writing: nothing that is read later is older than what was read before."""
        record = read_record(self._run_path)
        stamps: dict[str, tuple[int, int, int]] = {}
        files: dict[str, Bytes] = {}
        paths = files_of_run(self._run_path) | {LOG_FILE: self._run_path / LOG_FILE}
        for name in sorted(paths, key=_written_at, reverse=True):
            if name == LOG_FILE and not paths[name].exists():
                continue
            stamps[name] = _stamp(paths[name])
            if self._sent.get(name) != stamps[name]:
                files[name] = as_bytes(paths[name])
        activations = {}
        for key, role in record.activations.items():
            path = self._scratch_path / "activations" / f"{key}.h5"
            if role != "reference" and path.name not in self._sent and path.is_file():
                activations[path.name] = as_bytes(path)
                stamps[path.name] = _stamp(path)
        self._sent |= stamps
        return Update(files, activations, tuple(paths))


class Receiver:
    """At the study folder: writes what comes from the node of one run. The caller holds the lock of the run."""

    def __init__(self, folder: StudyFolder, run_id: str) -> None:
        self._folder, self._path = folder, folder.run_path(run_id)
        self._mine = read_record(self._path)

    def take(self, update: Update) -> None:
        """Writes an update, its record last.

        Raises:
            DamagedError: it holds what no run has, or not what its record says.
            NoSpaceError: no space is left.
        """
        if update.progress:
            write_hint(self._path / PROGRESS_FILE, update.progress)
        if not update.names:
            return
        wrong = [name for name in update.files if not _OF_A_RUN.fullmatch(name)]
        wrong += [name for name in update.activations if not _OF_THE_STORE.fullmatch(name)]
        if wrong:
            raise self._damaged(f"holds {wrong[0]!r}, which is no file of a run")
        record = self._record_in(update)
        for name, content in update.activations.items():
            path = self._folder.activations_path / name
            if not path.exists():
                atomic_write(path, content.tobytes())
        for name in sorted(update.files, key=_written_at):
            if name != RUN_FILE:
                atomic_write(self._path / name, update.files[name].tobytes())
        if record:
            self._check(record)
            write_record(self._path, record)
        for path in (self._path / "checkpoints").rglob("*"):
            if path.is_file() and str(path.relative_to(self._path)) not in update.names:
                path.unlink()
        if record and record.state is State.DONE:
            shutil.rmtree(self._path / "checkpoints" / "last", ignore_errors=True)

    def close(self) -> None:
        """Nobody works on the run any more."""
        (self._path / PROGRESS_FILE).unlink(missing_ok=True)

    def _record_in(self, update: Update) -> RunRecord | None:
        """The node's record, with what is true here: where the weights lie, and the command that does it again."""
        if RUN_FILE not in update.files:
            return None
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / self._mine.run_id
            path.mkdir()
            (path / RUN_FILE).write_bytes(update.files[RUN_FILE].tobytes())
            found = read_record(path)
        if found.run_id != self._mine.run_id or found.spec.spec_hash != self._mine.spec.spec_hash:
            raise self._damaged(f"is the run {found.run_id!r}")
        here, there = self._mine.spec.backbone.weights, found.spec.backbone.weights
        source = found.provenance.weights_source
        provenance = replace(
            found.provenance,
            weights_source=source.replace(there, here) if here and there else source,
            command=command_of(self._folder.study_file_path),
        )
        return found.with_(spec=self._mine.spec, provenance=provenance)

    def _check(self, record: RunRecord) -> None:
        for name, sha256 in record.files.items():
            path = self._path / name
            if not _OF_A_RUN.fullmatch(name) or not path.is_file() or sha256_file(path) != sha256:
                raise self._damaged(f"{name} is not what the run ended with")

    def _damaged(self, problem: str) -> DamagedError:
        return DamagedError(f"what came back of {self._mine.run_id}", problem, "run the study again")


def _written_at(name: str) -> tuple[int, str]:
    """Where a file stands in the order of writing: results, then the resume point, then the record."""
    if name == RUN_FILE:
        return 3, name
    return (2, name) if name.startswith("checkpoints/last/") else (0 if name == RESULTS_FILE else 1, name)


def _stamp(path: Path) -> tuple[int, int, int]:
    status = os.stat(path)  # noqa: PTH116 - as `file_stamp`, but a missing file is the caller's to see
    return status.st_mtime_ns, status.st_size, status.st_ino


def _weights_name(number: int, path: str) -> str:
    return f"weights/{number}{Path(path).suffix}"
