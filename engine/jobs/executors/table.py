"""Which executor a study asks for: a new one is one file beside this and one line here."""

from __future__ import annotations

from collections.abc import Callable

from engine.executor_options import ExecutorKind
from engine.jobs.executors.executor import Executor
from engine.jobs.executors.local import LocalExecutor
from engine.jobs.executors.placed import PlacedExecutor
from engine.jobs.executors.ray import RayEngine
from engine.jobs.executors.slurm import SlurmEngine
from engine.runs.study_folder import StudyFolder
from engine.study import needs_run

# What a cluster's package costs is paid only as an executor begins.
EXECUTORS: dict[ExecutorKind, Callable[[StudyFolder], Executor]] = {
    "local": LocalExecutor,
    "ray": lambda folder: PlacedExecutor(folder, RayEngine(folder), needs_run),
    "slurm": lambda folder: PlacedExecutor(folder, SlurmEngine(folder), needs_run),
}


def executor_of(folder: StudyFolder) -> Executor:
    """The executor of a study."""
    return EXECUTORS[folder.study.executor.kind](folder)
