"""What the store costs: `python -m tests.benchmarks.store [write] [catalog] [memory]`.

`write`: an activation file with its seal against `numpy.save` and fsync of the same bytes, in turn, each into a new
file (limit 1.3). `catalog`: 1,000 runs of 21 epochs, listed from the catalog (limit 100 ms) and without one (limit
10 s). `memory`: the peak of a worker that takes 1 run and of one that takes 50.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from engine.activations.store import Activations, ActivationStore
from engine.jobs.launch import make_study_folder
from engine.jobs.scheduler import queue_runs
from engine.runs.catalog import CATALOG_FILE
from engine.runs.record import Provenance, RunRecord, Session, State, write_record
from engine.runs.study_folder import StudyFolder
from engine.study import freeze_study, load_study, run_specs
from tests.studies import write_study

N_ROUNDS = 15


def main(names: list[str]) -> None:
    """Prints one line a figure."""
    for name in names or list(BENCHMARKS):
        with tempfile.TemporaryDirectory() as folder:
            BENCHMARKS[name](Path(folder))


def write(folder: Path) -> None:
    """12 blocks of a ViT-B, both poolings, 2,048 images."""
    rng = np.random.default_rng(0)
    pooled = {name: rng.normal(size=(12, 2048, 768)).astype(np.float16) for name in ("cls", "feat")}
    ids = tuple(f"ISIC_{i:07d}" for i in range(2048))
    embedding = rng.normal(size=(2048, 768)).astype(np.float32)
    activations = Activations(ids, embedding, tuple(f"blocks.{i}" for i in range(12)), pooled)
    store = ActivationStore(folder)
    plain = np.concatenate(
        [*(each.reshape(-1).view(np.uint8) for each in pooled.values()), embedding.view(np.uint8).ravel()]
    )
    ratios, times = [], []
    for i in range(N_ROUNDS):
        ours_s = _seconds(partial(store.save, f"{i:064x}", activations))
        theirs_s = _seconds(partial(_save_plain, folder / f"{i}.npy", plain))
        times.append((ours_s, theirs_s))
        ratios.append(ours_s / theirs_s)
        for path in folder.iterdir():
            path.unlink()
    ours_ms, theirs_ms = (1000 * statistics.median(each) for each in zip(*times, strict=True))
    print(
        f"write {plain.nbytes / 1e6:.0f} MB of activations: {ours_ms:.0f} ms, numpy.save and fsync {theirs_ms:.0f} ms, "
        f"median ratio {statistics.median(ratios):.2f} (limit 1.3)"
    )


def catalog(folder: Path) -> None:
    """1,000 runs of 21 epochs."""
    study_path = folder / "study.toml"
    study_path.write_text(
        '[study]\nname="s"\n[data]\npath="d"\n[[backbone]]\nname="bundled:supervised"\n[[backbone]]\n'
        'name="bundled:image-text"\n[finetune]\nseeds = 167\n'
    )
    study_path.write_text(freeze_study(load_study(study_path)))
    study = StudyFolder(folder)
    metrics = {
        f"{split}_{name}": 0.123456789 for split in ("val", "test") for name in ("loss", "accuracy", "auroc", "ece")
    }
    session = Session(0, "box", "cuda:0", "bfloat16", 8, {f"package{i}": "1.2.3" for i in range(9)}, "2026-01-01", 9.0)
    for spec in run_specs(study.study)[:1000]:
        record = RunRecord(
            spec.run_id, spec, State.DONE, "", 20, metrics, metrics, (61.25,) * 20, 0, {"0" * 64: "reference"},
            {"results.h5": "0" * 64, "history.csv": "1" * 64}, (session,),
            Provenance(layers=tuple(f"blocks.{i}" for i in range(12)), weights_sha256="2" * 64),
        )  # fmt: skip
        write_record(study.run_path(spec.run_id), replace(record, last=metrics | {"seed": float(spec.seed)}))
    rebuilt_s = _seconds(lambda: StudyFolder(folder).listing())
    listed_s = statistics.median(_seconds(lambda: StudyFolder(folder).listing()) for _ in range(N_ROUNDS))
    again_s = statistics.median(_seconds(study.listing) for _ in range(N_ROUNDS))
    n_bytes = (folder / CATALOG_FILE).stat().st_size
    command = [sys.executable, "-m", "simtui", "status", str(folder)]
    status_s = _seconds(lambda: subprocess.run(command, check=True, capture_output=True))
    print(
        f"1,000 runs: {1000 * listed_s:.0f} ms from the catalog of {n_bytes / 1e6:.1f} MB (limit 100), "
        f"{1000 * again_s:.0f} ms when nothing has changed since the last look, {rebuilt_s:.2f} s without a catalog "
        f"(limit 10); the whole `simtui status` {status_s:.2f} s"
    )


def memory(folder: Path) -> None:
    """One epoch of `full` a run, on tiny images: what is left behind by each run would add up."""
    peaks = {}
    for n_runs in (1, 50):
        path = folder / str(n_runs)
        path.mkdir()
        study = make_study_folder(load_study(write_study(path, methods=["full"], seeds=n_runs, epochs=1)), path / "out")
        queue_runs(study)
        log = (path / "log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "engine.jobs.worker", str(study.path), "--prepare"], stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        n_done = sum(record.state is State.DONE for record in study.listing().records)
        assert (process.returncode, n_done) == (0, n_runs), (path / "log").read_text()
        peaks[n_runs] = usage.ru_maxrss * 1024
    words = ", ".join(f"{n_runs} runs {peak / 1e6:.0f} MB" for n_runs, peak in peaks.items())
    print(f"peak memory of a worker: {words} (ratio {peaks[50] / peaks[1]:.2f})")


def _save_plain(path: Path, values: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, values)
        file.flush()
        os.fsync(file.fileno())


def _seconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


BENCHMARKS: dict[str, Callable[[Path], None]] = {"write": write, "catalog": catalog, "memory": memory}


if __name__ == "__main__":
    main(sys.argv[1:])
