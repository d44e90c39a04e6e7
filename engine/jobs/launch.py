"""Makes a study folder from a request and starts its scheduler away from the terminal; needs no torch."""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import DamagedError, LockedError, MachineError, StudyError
from engine.files import as_machine_error, atomic_write
from engine.finetune.methods import method_of
from engine.runs.record import State
from engine.runs.study_folder import StudyFolder
from engine.study import Study, freeze_study, load_study
from engine.study_changes import extended_study

_SYSTEMD_S = 10.0
_BEGIN_S = 5.0
# Processes that are meant to outlive this one: Python would warn of each as forgotten.
_left_alone: list[subprocess.Popen[bytes]] = []


def make_study_folder(study: Study, path: Path) -> StudyFolder:
    """Freezes the request into a folder; a folder that holds the same study goes on, with more runs if asked for.

    Raises:
        StudyError: the folder holds a study with other settings, or something else.
        MachineError: the folder cannot be written.
    """
    frozen_path = path / "study.toml"
    if frozen_path.exists():
        # A damaged request is frozen anew: runs of other settings have other names, so nothing can be mixed.
        with contextlib.suppress(DamagedError):
            records = StudyFolder(path).listing().records if (path / "runs").is_dir() else ()
            has_begun = any(record.provenance.manifest_digest for record in records)
            study = extended_study(load_study(frozen_path), study, has_begun=has_begun)
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StudyError(str(path), "exists and is not a study folder", "give another folder with --out")
    atomic_write(frozen_path, freeze_study(study))
    folder = StudyFolder(path)
    folder.runs_path.mkdir(exist_ok=True)  # tells a study folder from the folder of a study file
    return folder


def start_study(folder: StudyFolder) -> subprocess.Popen[bytes]:
    """Starts the scheduler of a study in a session of its own, so that it outlives the terminal.

    Raises:
        LockedError: the study is running already.
        MachineError: the folder cannot be written, or a method needs a package that is not installed.
    """
    _make_ready(folder)
    try:
        with folder.log_path.open("ab") as log:
            return subprocess.Popen(
                _command(folder), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
    except OSError as error:
        raise as_machine_error(error, folder.log_path) from error


def detach_study(folder: StudyFolder) -> None:
    """Starts the scheduler where nothing that happens to this terminal reaches it; returns when it has begun.

    Under systemd where the user's services go on after logging out ("lingering"), because there a machine may end all
    other processes of a session; else in a session of its own.

    Raises:
        LockedError: the study is running already.
        MachineError: the folder cannot be written, or a method needs a package that is not installed.
    """
    if survives_as_service():
        _make_ready(folder)
        if _as_service(folder):
            _wait_until_begun(folder, lambda: True)
            return
    process = start_study(folder)
    _wait_until_begun(folder, lambda: process.poll() is None)
    _left_alone.append(process)


def survives_as_service() -> bool:
    """Whether systemd runs this user's services, and keeps them when the user logs out."""
    if shutil.which("systemd-run") is None or shutil.which("loginctl") is None:
        return False
    command = ["loginctl", "show-user", getpass.getuser(), "--property=Linger", "--value"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SYSTEMD_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == "yes"


def _as_service(folder: StudyFolder) -> bool:
    """Asks systemd to run the scheduler, with this environment; False where it does not."""
    kept = [
        f"--setenv={name}={value}" for name, value in os.environ.items() if name.isidentifier() and "\n" not in value
    ]
    log_path = folder.log_path.resolve()
    command = ["systemd-run", "--user", "--quiet", "--collect", f"--working-directory={Path.cwd()}"]
    command += [f"--property=StandardOutput=append:{log_path}", f"--property=StandardError=append:{log_path}"]
    try:
        done = subprocess.run(
            [*command, *kept, "--", *_command(folder)], capture_output=True, timeout=_SYSTEMD_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _command(folder: StudyFolder) -> list[str]:
    return [sys.executable, "-m", "engine.jobs.scheduler", str(folder.path.resolve())]


def _make_ready(folder: StudyFolder) -> None:
    """Refuses what cannot be started, and forgets what was asked of, and said by, the process before.

    Raises:
        LockedError, MachineError: as `start_study`.
        StudyError, DamagedError: the request cannot be read.
    """
    if folder.study.study.kind == "comparison":
        problem = "holds a comparison of two checkpoints: there is nothing to run"
        raise StudyError(str(folder.path), problem, "compare others with simtui compare A B")
    holder = folder.running_by()
    if holder is not None:
        raise LockedError(
            str(folder.path),
            f"is being run by {holder}",
            f'see "simtui status {folder.path}", or stop it with "simtui stop"',
        )
    _check_packages(folder.study)
    if not os.access(folder.path, os.W_OK):
        raise MachineError(str(folder.path), "is read-only", "copy the study to a folder that you can write")
    try:
        folder.stop_path.unlink(missing_ok=True)
        folder.stage_path.unlink(missing_ok=True)
        folder.log_path.touch()
    except OSError as error:
        raise as_machine_error(error, folder.log_path) from error


def _check_packages(study: Study) -> None:
    """Refuses a method whose package this machine lacks, before anything is decoded; what a cluster has, its nodes say.

    Raises:
        MachineError: it is not installed.
    """
    if study.executor.kind != "local":
        return
    for method in dict.fromkeys(map(method_of, study.finetune.methods)):
        if method.package and importlib.util.find_spec(method.package) is None:
            fix = f'pip install "simtui[{method.name}]", or take {method.name} out of finetune.methods'
            raise MachineError(method.name, f"needs {method.package}, which is not installed", fix)


def _wait_until_begun(folder: StudyFolder, is_alive: Callable[[], bool]) -> None:
    """Until the scheduler has said something or has ended; a slow machine is not waited for."""
    end_s = time.monotonic() + _BEGIN_S
    while time.monotonic() < end_s and is_alive() and not folder.stage_path.exists():
        time.sleep(0.05)


@dataclass(frozen=True)
class Stopping:
    """Whether somebody was there to hear the request to stop."""

    was_running: bool


def stop_study(folder: StudyFolder, *, now: bool = False) -> Stopping:
    """Asks a running study to stop: at the next epoch of each run, or at once, losing the epoch that has begun.

    Runs on a cluster whose scheduler has died hear it too, at their next epoch.
    """
    if folder.running_by() is None and not _has_running(folder):
        return Stopping(False)
    atomic_write(folder.stop_path, "now\n" if now else "at the next epoch\n")
    return Stopping(True)


def _has_running(folder: StudyFolder) -> bool:
    return any(record.state is State.RUNNING for record in folder.listing().records)


def end_study(process: subprocess.Popen[bytes]) -> None:
    """Ends a scheduler that this process started, and its workers, at once; what they finished is kept."""
    process.send_signal(signal.SIGTERM)
    process.wait()
