"""What grows with the number of runs: `python -m tests.benchmarks.scale [RUNS]` (10,000 where none is given).

A study of real files by the engine's own writers, with small results (6 layers, 3 epochs). Each figure is of a process
of its own; times are of the wall. "cold" has no catalog, as for a study folder that was copied; files are in memory.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.files import atomic_write
from engine.jobs.executors.command import PREPARATION, Outcome
from engine.jobs.executors.placed import Ended, PlacedExecutor
from engine.jobs.plan import PLAN_FILE, Plan, write_plan
from engine.jobs.progress import study_progress
from engine.jobs.scheduler import queue_runs
from engine.runs.catalog import CATALOG_FILE
from engine.runs.record import State, read_record, write_record
from engine.runs.results import write_results
from engine.runs.study_folder import StudyFolder
from engine.study import freeze_study, run_specs
from tests.simtui.studies import made_record, made_results, study_of

_N_BACKBONES, _N_METHODS, _N_LAYERS, _N_EPOCHS = 10, 3, 6, 3
_N_POLLS = 20
_AT_A_TIME = 1000


def main(arguments: list[str]) -> None:
    """Without a part, all of them, each in a process of its own."""
    if len(arguments) > 1:
        PARTS[arguments[1]](Path(arguments[0]))
        return
    n_runs = int(arguments[0]) if arguments else 10_000
    with tempfile.TemporaryDirectory(dir=os.environ.get("SIMTUI_SCALE_DIR")) as temporary:
        path = Path(temporary) / "study"
        seeds = -(-n_runs // (_N_BACKBONES * _N_METHODS))
        study = study_of(tuple(f"bundled:backbone {i}" for i in range(_N_BACKBONES)), seeds, _N_EPOCHS, "scale")
        atomic_write(path / "study.toml", freeze_study(study))
        print(f"{len(run_specs(study))} runs")
        for name in PARTS:
            subprocess.run([sys.executable, "-m", "tests.benchmarks.scale", str(path), name], check=True)


def queue(path: Path) -> None:
    """What `simtui run` does before anything is placed: the first time, and when it goes on."""
    print(f"queue_runs, no run is there yet: {_seconds(lambda: queue_runs(StudyFolder(path))):.2f} s")
    print(f"queue_runs again: {_seconds(lambda: queue_runs(StudyFolder(path))):.2f} s")


class _Cluster:
    """An engine in which jobs end when they are told to."""

    name, poll_s = "a cluster", 0.0

    def __init__(self) -> None:
        self.placed: list[str] = []
        self.ends: list[Ended] = []

    def begin(self) -> None:
        """Nothing to connect."""

    def room(self) -> int:
        """As that of the real ones."""
        return _AT_A_TIME - len(self.placed)

    def n_running(self) -> int:
        """All of them."""
        return len(self.placed)

    def submit(self, run_ids: Sequence[str]) -> Sequence[str]:
        """Takes them."""
        self.placed += run_ids
        return run_ids

    def ended(self) -> Sequence[Ended]:
        """What was told."""
        found, self.ends = self.ends, []
        gone = {each.run_id for each in found}
        self.placed = [run_id for run_id in self.placed if run_id not in gone]
        return found

    def withdraw(self) -> None:
        """Nothing waits."""

    def end(self) -> None:
        """Nothing runs."""


def scheduler(path: Path) -> None:
    """The scheduler of a cluster by itself: its polls while nothing ends, and all runs taken in one after another."""
    folder, engine = StudyFolder(path), _Cluster()
    executor = PlacedExecutor(folder, engine)
    executor.begin(queue_runs(folder))
    write_plan(path / PLAN_FILE, Plan(("cpu",), 1, 1, "float32", "m", None))
    engine.ends = [Ended(PREPARATION, Outcome(0))]
    executor.step()
    cpu_s = time.process_time()
    for _ in range(_N_POLLS):
        executor.step()
    print(
        f"scheduler, a poll in which nothing ends: {1e3 * (time.process_time() - cpu_s) / _N_POLLS:.2f} ms of processor"
    )
    n_taken, taking_s = 0, 0.0
    for spec in run_specs(folder.study):
        run_path = folder.run_path(spec.run_id)
        results = made_results(spec, _N_LAYERS, _N_EPOCHS + 1)
        write_results(run_path, results)
        write_record(run_path, made_record(spec, results, _N_EPOCHS, _N_LAYERS))
        engine.ends = [Ended(spec.run_id, Outcome(0))]
        taking_s += _seconds(executor.step)
        n_taken += 1
    assert not executor.step() and all(
        read_record(folder.run_path(spec.run_id)).state is State.DONE for spec in run_specs(folder.study)[::997]
    )
    print(f"scheduler, a run that ends: {1e3 * taking_s / n_taken:.2f} ms")
    print(f"scheduler, memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB at most")


def files(path: Path) -> None:
    """What lies on the disk."""
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for each in path.rglob("*"):
        if each.is_file():
            counts[each.name] += 1
            sizes[each.name] += each.stat().st_size
    for name, n in counts.most_common():
        print(f"files: {n:>6} {name:<16} {sizes[name] / 1e6:8.1f} MB")


def listing(path: Path) -> None:
    """Cold writes the catalog, warm reads it; then what a view pays at each look."""
    (path / CATALOG_FILE).unlink(missing_ok=True)
    print(f"listing, cold: {_seconds(lambda: StudyFolder(path).listing()):.2f} s")
    print(f"catalog: {(path / CATALOG_FILE).stat().st_size / 1e6:.1f} MB")
    folder = StudyFolder(path)
    print(f"listing, warm: {_seconds(lambda: folder.listing()):.2f} s")
    print(f"listing, again: {1e3 * min(_seconds(lambda: folder.listing()) for _ in range(5)):.0f} ms")
    print(f"progress: {1e3 * min(_seconds(lambda: study_progress(folder, folder.listing())) for _ in range(5)):.0f} ms")


def status(path: Path) -> None:
    """As a command, printed to a file."""
    command = [sys.executable, "-m", "simtui", "status", str(path)]
    seconds = _seconds(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))
    print(f"simtui status: {seconds:.2f} s")


def app(path: Path) -> None:
    """From the start of the process to figures on the screen, then left alone."""
    from tests.benchmarks.app import _PAINTED, opened, started

    for name in ("cold", "warm"):
        if name == "cold":
            (path / CATALOG_FILE).unlink()
        with started(path) as session:
            print(f"app, first figures, {name}: {session.wait_for(_PAINTED)[1]:.2f} s")
            session.send(b"q")
            session.wait()
    with opened(path) as session:
        session.settle(6.0, limit_s=60.0)
        before_s = session.cpu_s()
        session.drain(10.0)
        print(f"app, idle: {10 * (session.cpu_s() - before_s):.1f} % of a processor, {session.resident_mb():.0f} MB")
    shutil.rmtree(path / "runs")


def _seconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


PARTS: dict[str, Callable[[Path], None]] = {
    each.__name__: each for each in (queue, scheduler, files, listing, status, app)
}

if __name__ == "__main__":
    main(sys.argv[1:])
