"""Runs a small study in forks of this process, which has torch loaded already: a thousand studies in minutes.

A fork does all that `simtui run` does in its processes (queue the runs, prepare, work), with the same code, and is
killed, starved of disk space or left alone.
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from engine import fault_points
from engine.backbones import bundled
from engine.errors import NoSpaceError
from engine.files import sweep_temporary
from engine.integrity import verify
from engine.jobs import prepare, worker
from engine.jobs.executors.executor import EXIT_PAUSED
from engine.jobs.launch import make_study_folder
from engine.jobs.plan import PLAN_FILE
from engine.jobs.scheduler import queue_runs
from engine.lock import locked
from engine.runs.record import State
from engine.runs.study_folder import StudyFolder
from engine.study import load_study

LASTING = ("results.h5", "history.csv", "attention.h5", "checkpoints/*.safetensors", "../../activations/*.h5")


def make_backbone_tiny() -> None:
    """In this process: a bundled backbone of 2 blocks of 32 features, so that an epoch takes milliseconds."""
    bundled.WIDTH, bundled.N_BLOCKS, bundled.N_HEADS = 32, 2, 2


def new_folder(request_path: Path, path: Path) -> StudyFolder:
    """A study folder in which nothing has been computed yet."""
    return make_study_folder(load_study(request_path), path)


def work(folder: StudyFolder, before: Callable[[], None] = lambda: None, kill_after_s: float | None = None) -> int:
    """Runs the study in a fork; returns its exit code, negative for the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = _as_processes_do(folder, before)
        except NoSpaceError as error:  # before the worker began: the scheduler's to say
            print(error)
            code = EXIT_PAUSED
        finally:
            os._exit(code)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kills_at(point: str, number: int) -> Callable[[], None]:
    """Ends the fork when it reaches the point for the n-th time."""

    def arm() -> None:
        fault_points._WANTED, fault_points._NUMBER = point, str(number)

    return arm


def writes_at_most(n_bytes: int) -> Callable[[], None]:
    """No file of the fork may become larger."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def lasting_files(folder: StudyFolder) -> dict[str, bytes]:
    """The content of everything that does not tell the time, by its place in the study."""
    found = {}
    for run_path in sorted(folder.runs_path.iterdir()):
        for pattern in LASTING:
            for path in run_path.glob(pattern):
                found[os.path.relpath(path, folder.path)] = path.read_bytes()
    return found


def assert_sound(folder: StudyFolder) -> None:
    """Every file that has its final name is what was written, however the process ended."""
    findings = verify(folder).findings
    assert not findings, findings


def assert_ends_as(folder: StudyFolder, undisturbed: dict[str, bytes]) -> None:
    """Goes on to the end, and is then byte for byte what it would have been."""
    assert work(folder) == 0
    found = lasting_files(folder)
    assert found.keys() == undisturbed.keys()
    different = [name for name in found if found[name] != undisturbed[name]]
    assert not different, different
    listing = StudyFolder(folder.path).listing()
    assert {record.state for record in listing.records} == {State.DONE} and listing.damaged == ()
    assert not [path for path in folder.path.rglob("*") if ".tmp-" in path.name or path.name.endswith(".lock")]
    assert_sound(folder)
    shutil.rmtree(folder.path)


def _as_processes_do(folder: StudyFolder, before: Callable[[], None]) -> int:
    log = os.open(folder.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    logging.basicConfig(level=logging.INFO, force=True)
    prepare.n_cpus = lambda: 1  # several studies run at a time
    make_backbone_tiny()
    before()
    with locked(folder.lock_path):
        sweep_temporary(folder.path)
        queue_runs(folder)
        (folder.path / PLAN_FILE).unlink(missing_ok=True)
        return worker.main([str(folder.path), "--prepare"])
