"""Makes a made-up study look as if it ran: locks held by the test's process, hints written by the engine's writers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engine.jobs.stage import PROGRESS_FILE, RunProgress, Stage, Throttled
from engine.lock import locked
from engine.runs.record import State
from engine.runs.study_folder import StudyFolder
from engine.study import RunSpec, Study, run_specs
from tests.simtui.studies import write_run


@contextmanager
def running(path: Path, study: Study, n_running: int = 2, epoch: int = 2, stage: Stage | None = None) -> Iterator[None]:
    """The first `n_running` runs are inside an epoch, the others wait, for as long as the block lasts."""
    folder = StudyFolder(path)
    specs = run_specs(study)
    for spec in specs[n_running:]:
        write_run(path, spec, epochs_done=-1)
    with ExitStack() as stack:
        stack.enter_context(locked(folder.lock_path))
        for spec in specs[:n_running]:
            folder.run_path(spec.run_id).mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder.run_lock_path(spec.run_id)))
            go_on(path, spec, epoch, 3, 10)
        say(path, stage or Stage("running", n_workers=n_running))
        yield


def go_on(path: Path, spec: RunSpec, epoch: int, step: int, steps: int, **hint: object) -> None:
    """A run is at a step of an epoch; the epochs before are finished."""
    write_run(path, spec, epochs_done=epoch - 1, state=State.RUNNING)
    progress = RunProgress(epoch, spec.epochs, step, steps, 100.0, 1.0 / epoch, 0.25, **hint)  # type: ignore[arg-type]
    Throttled(path / "runs" / spec.run_id / PROGRESS_FILE).write(progress, is_last=True)


def say(path: Path, stage: Stage) -> None:
    """What the scheduler says."""
    Throttled(StudyFolder(path).stage_path).write(stage, is_last=True)
