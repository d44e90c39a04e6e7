"""Studies of any size for the benchmark of the app: real files by the engine's own writers.

Figures at random, so that no two cells and no two epochs are alike: what then changes on the screen is the most that
can. Those of a study that goes on move as training moves them: by some hundredths an epoch, and less and less.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from engine.files import atomic_write
from engine.jobs.stage import PROGRESS_FILE, RunProgress, Stage, Throttled
from engine.lock import locked
from engine.runs.record import State, write_record
from engine.runs.results import Results, SimilarityKey, write_results
from engine.runs.study_folder import StudyFolder
from engine.study import RunSpec, freeze_study, run_specs
from tests.simtui.studies import made_record, made_results, study_of, write_attention_maps

_N_BACKBONES, _N_METHODS = 10, 3
_METRICS = ("test_accuracy", "test_balanced_accuracy", "test_auroc", "test_ece", "origin_knn")
_START_S = 1.0


def write_random_study(
    path: Path, n_runs: int, n_layers: int, epochs: int, has_attention: bool = False, done: int | None = None
) -> Path:
    """A study of `n_runs` runs, `epochs` long; all are done, or have reached epoch `done` with lifelike figures."""
    seeds = -(-n_runs // (_N_BACKBONES * _N_METHODS))
    backbones = tuple(f"bundled:backbone {i}" for i in range(_N_BACKBONES))
    study = study_of(backbones, seeds=seeds, epochs=epochs, name=path.name)
    atomic_write(path / "study.toml", freeze_study(study))
    rng = np.random.default_rng(0)
    reached = epochs if done is None else done
    for spec in run_specs(study)[:n_runs]:
        results = _drawn(rng, spec, n_layers, epochs + 1) if done is None else made_results(spec, n_layers, done + 1)
        write_results(path / "runs" / spec.run_id, results)
        write_record(path / "runs" / spec.run_id, made_record(spec, results, reached, n_layers))
    if has_attention:
        write_attention_maps(path, side=8)
    return path


def _drawn(rng: np.random.Generator, spec: RunSpec, n_layers: int, n_epochs: int) -> Results:
    layers = tuple(f"blocks.{i}" for i in range(n_layers))
    similarity = {
        SimilarityKey("target", pooling, measure): rng.random((n_epochs, n_layers, n_layers))
        for pooling in ("cls", "feat")
        for measure in spec.measure.similarity
    }
    return Results(layers, similarity, {name: rng.random(n_epochs) for name in _METRICS})


@contextmanager
def going_on(path: Path, epoch_s: float = 1.0) -> Iterator[None]:
    """While the block runs, another process runs the study: it writes as a worker does, an epoch each `epoch_s`."""
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(path, epoch_s), daemon=True)
    process.start()
    try:
        while StudyFolder(path).running_by() is None:
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.join()


def _work(path: Path, epoch_s: float) -> None:
    folder = StudyFolder(path)
    with locked(folder.lock_path):
        Throttled(folder.stage_path).write(Stage("running"), is_last=True)
        for spec in run_specs(folder.study):
            with locked(folder.run_lock_path(spec.run_id)):
                _run(folder, spec, epoch_s)


def _run(folder: StudyFolder, spec: RunSpec, epoch_s: float) -> None:
    """The order of a worker: hints within the epoch, then the results, then the record that counts them."""
    run_path = folder.run_path(spec.run_id)
    before, hints = folder.results(spec.run_id), Throttled(run_path / PROGRESS_FILE)
    every_epoch = made_results(spec, len(before.layers), spec.epochs + 1)
    due_s = time.monotonic() + _START_S
    for epoch in range(before.n_epochs, spec.epochs + 1):
        while time.monotonic() < due_s:
            step = round(100 * (1 - (due_s - time.monotonic()) / epoch_s))
            hints.write(RunProgress(epoch, spec.epochs, max(step, 0), 100, 812.5, 0.5))
            time.sleep(0.05)
        due_s += epoch_s
        results = every_epoch.first_epochs(epoch + 1)
        write_results(run_path, results)
        state = State.DONE if epoch == spec.epochs else State.RUNNING
        write_record(run_path, made_record(spec, results, epoch, len(results.layers)).with_(state=state))
