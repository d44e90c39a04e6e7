"""Takes the runs of a study one after another on one device: `python -m engine.jobs.worker STUDY --slot N [--prepare]`.

A run is claimed by its lock, so any number of workers share the queue without a server.
"""

from __future__ import annotations

import argparse
import logging
import platform
import signal
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import FrameType

import torch

from engine.activations.store import ActivationStore
from engine.errors import LockedError, MachineError, SimtuiError
from engine.finetune.inputs import Inputs
from engine.finetune.learner import learning_rate
from engine.finetune.reference import load_reference_backbone
from engine.finetune.run import Bench, execute_run
from engine.jobs.plan import PLAN_FILE, Plan, read_plan
from engine.jobs.prepare import Preparation
from engine.jobs.stage import PROGRESS_FILE, Failure, RunProgress, Stage, Throttled
from engine.lock import locked
from engine.runs.record import Provenance, RunRecord, State, read_record, write_record
from engine.runs.study_folder import StudyFolder
from engine.study import run_specs

_PACKAGES = ("simtui", "torch", "timm", "open_clip_torch", "numpy", "h5py", "scikit-learn", "pillow")
_log = logging.getLogger("simtui.worker")


class Stopped(BaseException):
    """A signal asked this process to end; not an `Exception`, so that nothing takes it for a failed run."""


class _Watcher:
    """Writes where a run is, and looks whether the study is asked to stop."""

    def __init__(self, folder: StudyFolder, run_path: Path, epochs: int) -> None:
        self._folder, self._epochs = folder, epochs
        self._file = Throttled(run_path / PROGRESS_FILE)

    def step(self, epoch: int, step: int, n_steps: int, images_per_s: float, loss: float) -> None:
        self._file.write(RunProgress(epoch, self._epochs, step, n_steps, images_per_s, loss), is_last=step == n_steps)

    def should_stop(self) -> bool:
        return self._folder.stop_path.exists()


class Worker:
    """One process on one device."""

    def __init__(self, folder: StudyFolder, slot: int) -> None:
        self._folder = folder
        self._plan: Plan = read_plan(folder.path / PLAN_FILE)
        self._device = torch.device(self._plan.devices[slot % len(self._plan.devices)])
        self._preparation = Preparation(folder, reports=False)
        torch.set_num_threads(self._plan.threads)
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)

    def run(self) -> None:
        """Takes every run that nobody has taken, in the order of the study."""
        for spec in run_specs(self._folder.study):
            if self._folder.stop_path.exists():
                return
            path = self._folder.run_path(spec.run_id)
            try:
                with locked(path / "run.lock"):
                    record = read_record(path)
                    # Interrupted: the scheduler has started this worker for one that died.
                    if record.state in (State.QUEUED, State.RUNNING):
                        self._run(path, record)
            except LockedError:
                continue

    def _run(self, path: Path, record: RunRecord) -> None:
        """Expected failures end the run, not the worker; a full disk ends all of them."""
        try:
            execute_run(path, *self._bench(record), _Watcher(self._folder, path, record.spec.epochs))
        except MachineError:
            self._end(path, State.STOPPED, "the machine could not go on")
            raise
        except SimtuiError as error:
            _log.error("%s: %s", record.run_id, error)
            self._end(path, State.FAILED, str(error).replace("\n  ", "; "))
        except Stopped:
            self._end(path, State.STOPPED, "stopped by a signal")
            raise
        except Exception as error:
            _log.exception("%s failed", record.run_id)
            self._end(path, State.FAILED, f"{type(error).__name__}: {error}; see {self._folder.log_path}")
        finally:
            (path / PROGRESS_FILE).unlink(missing_ok=True)

    def _bench(self, record: RunRecord) -> tuple[RunRecord, Bench]:
        backbone = load_reference_backbone(record.spec.backbone, self._device)
        inputs = self._preparation.inputs(self._plan, backbone.info.input_size)
        reference = self._preparation.reference(backbone, inputs)
        info, spec = backbone.info, record.spec
        provenance = replace(
            _of_inputs(inputs),
            paradigm=info.paradigm,
            input_size=info.input_size,
            layers=reference.probe.layers,
            poolings=tuple(reference.probe.pooled),
            n_features=info.n_features,
            weights_source=info.weights_source,
            weights_sha256=info.weights_sha256 or "",
            device=_device_name(self._device),
            precision=self._plan.precision,
            threads=self._plan.threads,
            learning_rate=learning_rate(spec),
            versions={package: version(package) for package in _PACKAGES} | {"python": platform.python_version()},
        )
        store = ActivationStore(self._folder.activations_path)
        bench = Bench(self._device, self._plan.precision, inputs, reference, store)
        return record.with_(provenance=provenance), bench

    def _end(self, path: Path, state: State, reason: str) -> None:
        write_record(path, read_record(path).with_(state=state, reason=reason))


def _of_inputs(inputs: Inputs) -> Provenance:
    origin = inputs.origin_manifest
    return Provenance(
        manifest_digest=inputs.manifest.digest,
        probe_digest=inputs.probe_digest,
        origin_digest=inputs.origin.digest if inputs.origin else "",
        n_train=len(inputs.splits["train"].items),
        n_val=len(inputs.splits["val"].items),
        n_test=len(inputs.splits["test"].items),
        n_probe=len(inputs.probe_rows),
        n_origin=len(inputs.origin.items) if inputs.origin else 0,
        n_classes=inputs.n_classes,
        dataset_is_synthetic=inputs.manifest.synthetic,
        origin_is_synthetic=origin.synthetic if origin else False,
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return f"cpu {platform.machine()}"


def main(arguments: list[str]) -> int:
    """One worker; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--prepare", action="store_true")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    signal.signal(signal.SIGTERM, stop)
    # cuDNN's convolutions would use TF32 by default; it must never decide a digit.
    torch.backends.cudnn.allow_tf32 = False
    folder = StudyFolder(options.study)
    try:
        if options.prepare:
            Preparation(folder, reports=True).prepare()
        Worker(folder, options.slot).run()
    except SimtuiError as error:
        _log.error("%s", error)
        Throttled(folder.stage_path).write(Stage("failed", failure=Failure.of(error)), is_last=True)
        return error.exit_code
    except Stopped:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
