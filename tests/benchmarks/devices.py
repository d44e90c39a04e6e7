"""A run on one device beside the same run on several: `python -m tests.benchmarks.devices [--devices 2 --n …]`.

Without GPUs they are processes of the CPU, which share its processors; so does one process by its threads. The parts
are of the process that leads: for what is not training or evaluation the others wait.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from engine.jobs.launch import make_study_folder
from engine.jobs.prepare import Preparation
from engine.jobs.scheduler import queue_runs
from engine.jobs.worker import Worker
from engine.study import placed
from tests.benchmarks.training import _TIMED, _study, _timed


def run(options: argparse.Namespace, work: Path, n_devices: int) -> None:
    """Runs and prints one."""
    study = _study(options, work)
    study = replace(study, machine=replace(study.machine, workers=1))
    folder = make_study_folder(placed(study, devices_per_run=n_devices), work / "study")
    Preparation(folder, reports=False).prepare()
    queue_runs(folder)
    parts: dict[str, list[float]] = {}
    with ExitStack() as stack:
        for owner, name, part in _TIMED:
            stack.enter_context(_timed(parts, owner, name, part))
        Worker(folder, 0).run()
    (record,) = folder.listing().records
    seconds = record.epoch_seconds[1:]
    n_train = record.provenance.n_train
    rounds = ", ".join(f"{each:.2f}" for each in seconds)
    session, per_s = record.sessions[0], n_train / statistics.median(seconds)
    print(f"{session.device}, threads of each {session.threads}: {per_s:.1f} images/s (epochs {rounds} s)")
    n_epochs = len(seconds)
    for part, each in parts.items():
        a_round = len(each) // (n_epochs + (1 if part == "training" else 2))  # before training all but it is done, too
        print(f"  {part}: {sum(each[-a_round * n_epochs :]) / sum(seconds):.1%}")


def main() -> None:
    """Reads the options; everything is made in a folder of its own, and removed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2, help="of the second run")
    parser.add_argument("--model", default="vit_tiny_patch16_224.augreg_in21k", help="of timm, by its pre-trained name")
    parser.add_argument("--size", type=int, help="side of the images in pixels, instead of the model's own")
    parser.add_argument("--n", type=int, default=640, help="images, of which 70 %% train")
    parser.add_argument("--probe", type=int, default=2048, help="test images that are compared, at most")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    options = parser.parse_args()
    for n_devices in (1, options.devices):
        work = Path(tempfile.mkdtemp())
        try:
            run(options, work, n_devices)
        finally:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
