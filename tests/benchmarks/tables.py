"""How long every table of a large study takes, once its results have been read: the limit is half a second.

python -m tests.benchmarks.tables                    # 1,000 runs of 21 epochs, 12 layers, 8 similarities
python -m tests.benchmarks.tables --runs 300 --disk  # also writes such a study, and times the first and second read
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.analysis.options import TableOptions
from engine.analysis.study_data import RunData, StudyData, StudyDataCache
from engine.analysis.tables import DATA_TABLES, data_table
from engine.runs.record import Provenance, RunRecord, State
from engine.runs.results import SimilarityKey
from engine.runs.study_folder import StudyFolder
from engine.study import run_specs
from tests.simtui.studies import study_of, write_study

LIMIT_S = 0.5
_REPEATS = 5
_LAYERS = tuple(f"blocks.{i}" for i in range(12))
_KEYS = [
    SimilarityKey(probe, pooling, measure)
    for probe in ("target", "origin")
    for pooling in ("cls", "feat")
    for measure in ("linear_cka", "debiased_cka")
]
_ATTENTION = ("entropy", "correlation", "overlap", "distance")


def made_study(n_runs: int, n_epochs: int = 21) -> StudyData:
    """Runs of 17 backbones and 3 methods with random figures, all of them done."""
    rng = np.random.default_rng(0)
    backbones = tuple(f"bundled:b{i}" for i in range(17))
    n_seeds = -(-n_runs // (len(backbones) * 3))
    specs = run_specs(study_of(backbones, seeds=n_seeds, epochs=n_epochs - 1))[:n_runs]
    return StudyData(tuple(_made_run(rng, spec, n_epochs) for spec in specs))


def _made_run(rng: np.random.Generator, spec: object, n_epochs: int) -> RunData:
    name = f"{spec.backbone.name}-{spec.method}-{spec.seed}"  # type: ignore[attr-defined]
    record = RunRecord(name, spec, State.DONE, epochs_done=n_epochs - 1, provenance=Provenance(paradigm="supervised"))  # type: ignore[arg-type]
    diagonal = {key: rng.random((n_epochs, len(_LAYERS)), np.float32) for key in _KEYS}
    quality = {name: rng.random(n_epochs, np.float32) for name in ("test_accuracy", "test_ece", "origin_knn")}
    layers = {
        f"attention_{what}_{domain}_{pooling}": rng.random((n_epochs, len(_LAYERS)), np.float32)
        for what in _ATTENTION
        for domain in ("target", "origin")
        for pooling in ("cls", "feat")
    }
    return RunData(record, _LAYERS, diagonal, quality, layers)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU time, the median of a few calls after a first one; on a busy machine only the second means much."""
    work()
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, cpu = np.median(times, axis=0)
    return float(wall), float(cpu)


def report_tables(n_runs: int) -> None:
    """Every table, and correlation over epochs, beside the limit."""
    data = made_study(n_runs)
    choices = {name: TableOptions() for name in DATA_TABLES}
    choices["correlation"] = replace(TableOptions(), over="runs and epochs")
    print(f"{n_runs} runs × 21 epochs × {len(_LAYERS)} layers; the limit of a table is {LIMIT_S} s")
    for name, options in choices.items():
        wall, cpu = seconds(lambda name=name, options=options: data_table(data, name, options))  # type: ignore[misc]
        print(f"  {name:<24}{wall:8.3f} s   {wall / LIMIT_S:5.2f} of the limit   {cpu:8.3f} CPU s")


def report_disk(n_runs: int) -> None:
    """The first read of a study, and the second, which looks only at times of files."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = -(-n_runs // 9)
        path = write_study(Path(folder) / "s", study_of(seeds=seeds, epochs=20), n_layers=12)
        cache = StudyDataCache(StudyFolder(path))
        for which in ("first", "second"):
            start = time.perf_counter()
            n = len(cache.read().runs)
            print(f"  {which} read of {n} runs: {time.perf_counter() - start:.2f} s")


def main() -> None:
    """Prints what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--disk", action="store_true")
    options = parser.parse_args()
    report_tables(options.runs)
    if options.disk:
        report_disk(options.runs)


if __name__ == "__main__":
    main()
