"""Checks every file of a study against its digest, and names what makes each damaged one again; changes nothing."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine.activations.store import remake_activations
from engine.checkpoint_seal import CheckpointError, check_checkpoint, header_facts
from engine.data.manifest import read_manifest
from engine.data.pixels import check_pixels
from engine.errors import DamagedError, SimtuiError
from engine.files import read_small, sha256_file
from engine.hdf5 import check_arrays
from engine.runs.record import RUN_FILE, RunRecord, State, read_record, remake_run
from engine.runs.results import HISTORY_FILE, RESULTS_FILE, history_csv, read_results
from engine.runs.study_folder import StudyFolder
from engine.study import load_study

_N_THREADS = 4
Check = Callable[[], None]


@dataclass(frozen=True)
class Finding:
    """A file that is not what was written: what is wrong, and the command that makes it again."""

    path: Path
    problem: str
    command: str


@dataclass(frozen=True)
class Report:
    """What was looked at, and what was found."""

    n_files: int
    n_bytes: int
    findings: tuple[Finding, ...]


def verify(folder: StudyFolder, progress: Callable[[int, int], None] | None = None) -> Report:
    """Reads every file of a study that is to last; hints, logs and the catalog are not.

    Args:
        progress: is told `(bytes read, bytes in all)` after every file.
    """
    checks = checks_of(folder)
    sizes = [_size(path) for path, _ in checks]
    findings: list[Finding] = []
    done = 0
    with ThreadPoolExecutor(_N_THREADS) as pool:  # reading and hashing both leave the interpreter free
        for (path, _), size, finding in zip(checks, sizes, pool.map(_found, checks), strict=True):
            if finding is not None and all(known.path != path for known in findings):
                findings.append(finding)
            done += size
            if progress:
                progress(done, sum(sizes))
    return Report(len({path for path, _ in checks}), sum(sizes), tuple(findings))


def checks_of(folder: StudyFolder) -> list[tuple[Path, Check]]:
    """Every file that is to last, with what reads it and raises `DamagedError`; a file may have several."""
    return [*_study_checks(folder), *_run_checks(folder), *_activation_checks(folder), *_probe_checks(folder)]


def _found(check: tuple[Path, Check]) -> Finding | None:
    path, run = check
    try:
        run()
    except SimtuiError as error:
        return Finding(path, error.problem, error.fix)
    return None


def _study_checks(folder: StudyFolder) -> Iterator[tuple[Path, Check]]:
    path = folder.study_file_path
    yield path, partial(_read_study, path)


def _run_checks(folder: StudyFolder) -> Iterator[tuple[Path, Check]]:
    for path in sorted(folder.runs_path.glob("*")):
        record_path, results_path = path / RUN_FILE, path / RESULTS_FILE
        if not (record_path.exists() or results_path.exists()):
            continue  # its process was killed before anything was computed
        record: RunRecord | None = None
        try:
            record = read_record(path)
            yield record_path, partial(_check_name, path, record)
        except DamagedError as error:
            yield record_path, partial(_raise, error)
        if record is not None and record.epochs_done >= 0 and not results_path.exists():
            yield results_path, partial(_raise, DamagedError("", "is missing", remake_run(path)))
        if results_path.exists():
            yield results_path, partial(_check_results, path, record)
            yield path / HISTORY_FILE, partial(_check_history, path, record)
        named = record.files if record and record.state is State.DONE else {}
        yield from _checkpoint_checks(folder, path, named)
        for name, sha256 in named.items():
            yield path / name, partial(_check_sha256, path / name, sha256, remake_run(path))


def _checkpoint_checks(folder: StudyFolder, run_path: Path, named: Collection[str]) -> Iterator[tuple[Path, Check]]:
    for path in sorted((run_path / "checkpoints").rglob("*.safetensors")):
        if str(path.relative_to(run_path)) in named:
            continue  # its digest stands in the record
        is_resume_point = path.parent.name == "last"
        again = f"simtui run {shlex.quote(str(folder.path))}"  # goes on from the one before
        yield path, partial(_check_checkpoint, path, again if is_resume_point else remake_run(run_path))


def _activation_checks(folder: StudyFolder) -> Iterator[tuple[Path, Check]]:
    owners: dict[str, tuple[str, str]] = {}
    for record in folder.listing().records:
        for key, role in record.activations.items():
            owners.setdefault(key, (role, record.run_id))
    paths = {path.stem: path for path in sorted(folder.activations_path.glob("*.h5"))}
    for key, path in paths.items():
        role, run_id = owners.get(key, ("nobody", ""))
        if role == "reference":
            command = remake_activations(path)
        else:
            command = remake_run(folder.run_path(run_id)) if run_id else f"rm {shlex.quote(str(path))}"
        yield path, partial(check_arrays, path, command)
    for key, (role, run_id) in owners.items():
        path = folder.activations_path / f"{key}.h5"
        if key not in paths:
            again = f"simtui run {shlex.quote(str(folder.path))}"
            command = again if role == "reference" else remake_run(folder.run_path(run_id))
            yield path, partial(_raise, DamagedError("", "is missing", command))


def _probe_checks(folder: StudyFolder) -> Iterator[tuple[Path, Check]]:
    again = f"simtui run {shlex.quote(str(folder.path))}"
    for path in sorted(folder.probes_path.glob("*/*.json")):
        command = f"rm {shlex.quote(str(path))} && {again}"
        if path.name == "manifest.json":
            yield path, partial(_with_command, partial(_read_manifest, path), command)
        else:
            yield path.with_suffix(".npy"), partial(_with_command, partial(check_pixels, path), command)
            yield path, lambda: None  # read by the check above


def _read_study(path: Path) -> None:
    load_study(path)


def _read_manifest(path: Path) -> None:
    read_manifest(path)


def _check_name(path: Path, record: RunRecord) -> None:
    # The settings of a run decide its name; a comparison is of two checkpoints, of which they name one.
    own = record.run_id if record.is_comparison else record.spec.run_id
    if record.run_id != path.name or own != path.name:
        raise DamagedError("", f"holds the run {own!r}", "give the folder its own name back")


def _check_results(path: Path, record: RunRecord | None) -> None:
    results = read_results(path)
    need = record.spec.epochs + 1 if record and record.state is State.DONE else 0
    if record is not None and results.n_epochs < max(need, record.epochs_done + 1):
        seen = f"holds {results.n_epochs} epochs, the run has done {record.epochs_done + 1}"
        raise DamagedError("", seen, remake_run(path))


def _check_history(path: Path, record: RunRecord | None) -> None:
    """It is written after the results: of a run that is not done, it may be one epoch behind until the run goes on."""
    try:
        results = read_results(path)
    except DamagedError:
        return  # named already; what follows from it cannot be checked
    n_epochs = [results.n_epochs] if record and record.state is State.DONE else [results.n_epochs, results.n_epochs - 1]
    try:
        content = read_small(path / HISTORY_FILE)
    except OSError:
        content = history_csv(results.first_epochs(0)).encode()
    if content not in [history_csv(results.first_epochs(n)).encode() for n in n_epochs]:
        raise DamagedError("", f"is not what follows from {RESULTS_FILE}", remake_run(path))


def _check_checkpoint(path: Path, command: str) -> None:
    try:
        if "seal" in header_facts(path):
            check_checkpoint(path)
    except (CheckpointError, OSError) as error:
        raise DamagedError("", str(error), command) from error


def _check_sha256(path: Path, sha256: str, command: str) -> None:
    try:
        if sha256_file(path) != sha256:
            raise DamagedError("", "is another file than the run ended with", command)
    except OSError as error:
        raise DamagedError("", "is missing" if isinstance(error, FileNotFoundError) else str(error), command) from error


def _with_command(check: Check, command: str) -> None:
    try:
        check()
    except DamagedError as error:
        raise DamagedError(error.where, error.problem, command) from error


def _raise(error: SimtuiError) -> None:
    raise error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
