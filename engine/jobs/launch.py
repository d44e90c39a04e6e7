"""Makes a study folder from a request and starts its scheduler away from the terminal; needs no torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from engine.errors import LockedError, MachineError, StudyError
from engine.files import as_machine_error, atomic_write
from engine.runs.study_folder import StudyFolder
from engine.study import Study, extended_study, freeze_study, load_study


def make_study_folder(study: Study, path: Path) -> StudyFolder:
    """Freezes the request into a folder; a folder that holds the same study goes on, with more runs if asked for.

    Raises:
        StudyError: the folder holds a study with other settings, or something else.
        MachineError: the folder cannot be written.
    """
    frozen_path = path / "study.toml"
    if frozen_path.exists():
        study = extended_study(load_study(frozen_path), study)
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StudyError(str(path), "exists and is not a study folder", "give another folder with --out")
    atomic_write(frozen_path, freeze_study(study))
    return StudyFolder(path)


def start_study(folder: StudyFolder) -> subprocess.Popen[bytes]:
    """Starts the scheduler of a study in a session of its own, so that it outlives the terminal.

    Raises:
        LockedError: the study is running already.
        MachineError: the folder cannot be written.
    """
    holder = folder.running_by()
    if holder is not None:
        raise LockedError(
            str(folder.path),
            f"is being run by {holder}",
            f'see "simtui status {folder.path}", or stop it with "simtui stop"',
        )
    if not os.access(folder.path, os.W_OK):
        raise MachineError(str(folder.path), "is read-only", "copy the study to a folder that you can write")
    try:
        folder.stop_path.unlink(missing_ok=True)
        folder.stage_path.unlink(missing_ok=True)
        with folder.log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "engine.jobs.scheduler", str(folder.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    except OSError as error:
        raise as_machine_error(error, folder.log_path) from error


@dataclass(frozen=True)
class Stopping:
    """Whether somebody was there to hear the request to stop."""

    was_running: bool


def stop_study(folder: StudyFolder) -> Stopping:
    """Asks a running study to stop at the next epoch of each run."""
    if folder.running_by() is None:
        return Stopping(False)
    atomic_write(folder.stop_path, "stop\n")
    return Stopping(True)


def end_study(process: subprocess.Popen[bytes]) -> None:
    """Ends a scheduler that this process started, and its workers, at once; what they finished is kept."""
    process.send_signal(signal.SIGTERM)
    process.wait()
