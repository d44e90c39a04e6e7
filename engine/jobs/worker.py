"""Takes the runs of a study one by one on its devices: `python -m engine.jobs.worker STUDY --slot N [--prepare]`.

On a cluster one process prepares the study (`--only-prepare`), and each run is one command (`--run ID`) that an
executor places anywhere and as often as it likes: a run is claimed by its lock and goes on from its last epoch, so any
number of workers share the queue without a server. Exit code 75: no space is left on the disk; what was being done can
go on when there is. 76: another process of a run on several devices has ended; the run goes on in a new one.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import platform
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from engine.activations.store import ActivationStore
from engine.errors import (
    DamagedError,
    DeviceMemoryError,
    LockedError,
    MachineError,
    NoSpaceError,
    ProcessLostError,
    SimtuiError,
    StudyError,
)
from engine.finetune.bench import Bench, memory_error
from engine.finetune.imported import execute_import
from engine.finetune.inputs import Inputs
from engine.finetune.methods import method_of
from engine.finetune.recipes.recipe import learning_rate
from engine.finetune.reference import load_reference_backbone
from engine.finetune.run import execute_run
from engine.finetune.shared_batch import is_shared
from engine.finetune.team import ALONE, Team
from engine.jobs.device_load import DeviceMeter
from engine.jobs.ending import Stopped, end_in_order
from engine.jobs.executors.command import failure_line
from engine.jobs.executors.executor import EXIT_LOST, EXIT_PAUSED
from engine.jobs.logs import run_log
from engine.jobs.plan import PLAN_FILE, Plan, read_plan
from engine.jobs.prepare import Preparation, devices_of, refuse_other_number
from engine.jobs.stage import PROGRESS_FILE, Failure, RunProgress, Stage, Throttled
from engine.jobs.team_lead import TeamLead
from engine.lock import holder_of, locked
from engine.runs.record import Provenance, RunRecord, Session, State, command_of, read_record, write_record
from engine.runs.study_folder import StudyFolder
from engine.study import RunSpec, Study, TrainingSection, needs_run, run_specs

_PACKAGES = ("simtui", "torch", "timm", "open_clip_torch", "numpy", "h5py", "scikit-learn", "pillow")
MAX_ATTEMPTS = 3
_RETRY_AFTER_S = 60.0
_DEVICE_IS_LOST: tuple[type[Exception], ...] = (torch.AcceleratorError,) if hasattr(torch, "AcceleratorError") else ()
_log = logging.getLogger("simtui.worker")


class _Watcher:
    """Writes where a run is, and looks whether the study is asked to stop."""

    def __init__(self, folder: StudyFolder, run_path: Path, epochs: int, devices: Sequence[str], name: str) -> None:
        """`name`: that of the devices, for whoever looks at the study."""
        self._folder, self._epochs, self._name = folder, epochs, name
        self._file = Throttled(run_path / PROGRESS_FILE)
        self._meter = DeviceMeter([torch.device(each) for each in devices])

    def step(
        self, epoch: int, step: int, n_steps: int, images_per_s: float, loss: float | None, waited_share: float
    ) -> None:
        if step < n_steps and not self._file.is_due:
            return
        load = self._meter.read()
        progress = RunProgress(
            epoch, self._epochs, step, n_steps, images_per_s, loss, waited_share,
            self._name, load.memory_used_mb, load.memory_total_mb, load.utilisation,
        )  # fmt: skip
        self._file.write(progress, is_last=True)

    def should_stop(self) -> bool:
        return self._folder.stop_path.exists()


class Worker:
    """One process on one device, or the one that leads those of several.

    With `is_job` it is one of a cluster, which may end it to start it elsewhere.
    """

    def __init__(self, folder: StudyFolder, slot: int, *, is_job: bool = False) -> None:
        self._folder, self._is_job = folder, is_job
        self._plan: Plan = read_plan(folder.path / PLAN_FILE)
        if is_job:
            self._plan = _plan_of_job(folder.study, self._plan)
        self._devices = self._plan.devices_of_worker(slot)
        self._device = torch.device(self._devices[0])
        self._preparation = Preparation(folder, reports=False)
        torch.set_num_threads(self._plan.threads)
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)

    def run(self) -> None:
        """Takes every run that nobody has taken, in the order of the study; what failed but may pass comes again."""
        while True:
            if self._take_runs():
                self._wait(_RETRY_AFTER_S)
            elif not self._can_any_begin():
                return

    def run_one(self, run_id: str) -> None:
        """Takes this run, unless it is done, or another process works on it."""
        if not self._folder.stop_path.exists():
            self._take(run_id)

    def _take_runs(self) -> bool:
        """Goes through the runs once; returns whether one of them is to be tried again."""
        comes_again = False
        for spec in run_specs(self._folder.study):
            if self._folder.stop_path.exists():
                return False
            comes_again |= self._take(spec.run_id) is State.QUEUED
        return comes_again

    def _take(self, run_id: str) -> State | None:
        """Runs it, and returns how it ended; None where there is nothing to do for this process."""
        path = self._folder.run_path(run_id)
        try:
            if not _is_open(read_record(path)):  # before the lock: a study has thousands that are done
                return None
            with locked(path / "run.lock"):
                record = read_record(path)
                if record.state is State.QUEUED and not self._can_begin(path, record.spec):
                    return None
                return self._run(path, record) if _is_open(record) else None
        except LockedError as error:
            _log.info("%s", error)
        except DamagedError as error:
            _log.error("%s", error)  # its folder stays as it is, for the user to look at; the others go on
        return None

    def _can_begin(self, path: Path, spec: RunSpec) -> bool:
        """Whether what a run is made from is done; where that has failed, so has the run."""
        needed = needs_run(spec)
        if needed is None:
            return True
        found = _state_of(self._folder.run_path(needed))
        if found is State.FAILED:
            reason = f"it is made from {needed}, which has failed or cannot be read"
            _log.error("%s: %s", spec.run_id, reason)
            self._end(path, State.FAILED, reason)
        return found is State.DONE

    def _can_any_begin(self) -> bool:
        """Whether a run has come to wait for nobody since it was passed over.

        One that still waits is left to the worker that has what it waits for: it looks here when that is done.
        """
        if self._folder.stop_path.exists():
            return False
        waiting = ((spec.run_id, needed) for spec in run_specs(self._folder.study) if (needed := needs_run(spec)))
        return any(
            _state_of(self._folder.run_path(run_id)) is State.QUEUED
            and _state_of(self._folder.run_path(needed)) in (State.DONE, State.FAILED)
            and holder_of(self._folder.run_lock_path(run_id)) is None  # else another worker is beginning it
            for run_id, needed in waiting
        )

    def _wait(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s and not self._folder.stop_path.exists():
            time.sleep(0.2)

    def _run(self, path: Path, record: RunRecord) -> State:
        """What the run logs stands in its own log too."""
        with run_log(path, record.run_id):
            return self._run_logged(path, record)

    def _run_logged(self, path: Path, record: RunRecord) -> State:
        """Expected failures end the run, not the worker; a full disk or a broken machine ends this process."""
        try:
            return self._execute(path, record)
        except NoSpaceError as error:
            self._end(path, State.QUEUED, f"paused: {error.problem}")
            raise
        except MachineError as error:
            self._end(path, *self._left(f"the machine could not go on: {error.problem}"))
            raise
        except ProcessLostError as error:
            # Seen as interrupted: who started this process starts another, and counts. What a device waits for in this
            # one may never come.
            _log.error("%s: %s", record.run_id, error.problem)
            self._end(path, State.RUNNING, error.problem)
            raise
        except DeviceMemoryError as error:
            return self._try_again(path, error)
        except torch.OutOfMemoryError:  # before training: as the backbone is loaded or looked at
            return self._try_again(path, memory_error(record.run_id, self._device, record.spec.finetune.batch_size))
        except SimtuiError as error:
            _log.error("%s: %s", record.run_id, error)
            return self._end(path, State.FAILED, one_line(error))
        except Stopped:
            self._end(path, *self._left("stopped by a signal"))
            raise
        except _DEVICE_IS_LOST:
            raise  # the device's state in this process is lost: the scheduler starts another, and counts
        except Exception as error:
            _log.exception("%s failed", record.run_id)
            return self._end(path, State.FAILED, f"{type(error).__name__}: {error}; see {self._folder.log_path}")
        finally:
            (path / PROGRESS_FILE).unlink(missing_ok=True)

    def _execute(self, path: Path, record: RunRecord) -> State:
        """On all devices of this worker where that is worth it."""
        is_team = is_shared(record.spec) and not record.is_imported
        devices = self._devices if is_team else self._devices[:1]
        name = names_of(devices)
        name = f"{socket.gethostname()} {name}" if self._is_job else name
        watcher = _Watcher(self._folder, path, record.spec.epochs, devices, name)
        if len(devices) == 1:
            bench = self._bench(record, ALONE)
            if record.is_imported:
                return execute_import(path, *bench, watcher, training_of(self._folder.study, record)).state
            return execute_run(path, *bench, watcher).state
        with TeamLead(self._folder.path.resolve(), record.run_id, devices, self._plan.threads) as lead:
            ready = self._bench(record, lead.team)
            lead.begin()
            return execute_run(path, *ready, watcher).state

    def _left(self, reason: str) -> tuple[State, str]:
        """What becomes of a run that this process leaves: a job of a cluster is placed again unless all is to stop."""
        goes_on = self._is_job and not self._folder.stop_path.exists()
        return (State.QUEUED, f"goes on later: {reason}") if goes_on else (State.STOPPED, reason)

    def _try_again(self, path: Path, error: SimtuiError) -> State:
        attempts = read_record(path).attempts + 1
        _log.warning("%s, attempt %d of %d", error, attempts, MAX_ATTEMPTS)
        if attempts < MAX_ATTEMPTS:
            return self._end(path, State.QUEUED, f"is tried again: {one_line(error)}", attempts=attempts)
        return self._end(path, State.FAILED, f"{attempts} times: {one_line(error)}", attempts=attempts)

    def _bench(self, record: RunRecord, team: Team) -> tuple[RunRecord, Bench]:
        backbone = load_reference_backbone(record.spec.backbone, self._device)
        inputs = self._preparation.inputs(self._plan, backbone.info.input_size)
        reference = self._preparation.reference(backbone, inputs)
        info, spec = backbone.info, record.spec
        provenance = replace(
            _of_inputs(inputs, has_labels=record.spec.settings.get("labels", True) is True),
            dataset_path=self._folder.study.data.path,
            origin_path=self._folder.study.origin.path if self._folder.study.origin else "",
            command=command_of(self._folder.study_file_path),
            paradigm=info.paradigm,
            input_size=info.input_size,
            layers=reference.probe.layers,
            layer_kind=info.layer_kind,
            poolings=tuple(reference.probe.pooled),
            n_features=max(info.widths),
            attention_reference=reference.attention_key,
            weights_source=info.weights_source,
            weights_sha256=info.weights_sha256 or "",
            learning_rate=learning_rate(spec),
        )
        session = self._session(spec, self._devices[: team.size])
        refuse_other_settings(record, provenance, session)
        store = ActivationStore(self._folder.activations_path)
        bench = Bench(self._device, self._plan.precision, inputs, reference, store, session, team)
        return record.with_(provenance=provenance), bench

    def _session(self, spec: RunSpec, devices: Sequence[str]) -> Session:
        packages = [*_PACKAGES, *filter(None, [method_of(spec.method).package])]
        return Session(
            first_epoch=0,
            host=socket.gethostname(),
            device=_description_of(devices),
            precision=self._plan.precision,
            threads=self._plan.threads,
            versions={package: version(package) for package in packages} | {"python": platform.python_version()},
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _end(self, path: Path, state: State, reason: str, **changes: object) -> State:
        """Where even this cannot be written, the run shows as interrupted, and continues like one that was stopped."""
        with contextlib.suppress(MachineError):
            write_record(path, read_record(path).with_(state=state, reason=reason, **changes))
        return state


def training_of(study: Study, record: RunRecord) -> TrainingSection:
    """Where the checkpoints of an imported run lie.

    Raises:
        StudyError: the study no longer names its training.
    """
    name = record.spec.settings.get("training")
    for training in study.imported.training if study.imported else ():
        if training.name == name:
            return training
    raise StudyError(record.run_id, f"its training {name!r} is not in the study any more", "import its folder again")


def _state_of(path: Path) -> State:
    """As a run's record says; one that cannot be read has failed."""
    try:
        return read_record(path).state
    except DamagedError:
        return State.FAILED


def _is_open(record: RunRecord) -> bool:
    """Whether there is something to do. Seen as running without its lock: a process died, and this one is for it."""
    return record.state in (State.QUEUED, State.RUNNING)


def _plan_of_job(study: Study, plan: Plan) -> Plan:
    """A job goes by what the cluster gives it: its node is not the one that prepared.

    Raises:
        MachineError: the job was to have a GPU, and sees none.
    """
    refuse_missing_gpu(study)
    n = study.machine.devices_per_run
    devices = devices_of(study.machine.device)
    refuse_other_number(devices[:n], n)  # it may see more than it was given
    threads = max(1, int(study.executor.cpus) // n)
    return replace(plan, devices=devices[:n], threads=threads, devices_per_run=n)


def refuse_missing_gpu(study: Study) -> None:
    """Training for days on a CPU is not what was asked for.

    Raises:
        MachineError: the executor gives each run a GPU, and this process sees none.
    """
    if study.machine.device == "auto" and study.executor.gpus > 0 and devices_of("auto") == ("cpu",):
        raise MachineError(
            f"executor.gpus = {study.executor.gpus:g}",
            f"torch {torch.__version__} sees no GPU on {socket.gethostname()}, where {study.executor.kind} placed it",
            'see "simtui doctor" there; for a cluster without GPUs set executor.gpus = 0',
        )


def refuse_other_settings(record: RunRecord, now: Provenance, session: Session) -> None:
    """What a run is made of must stay what it was when its first epochs were computed.

    Raises:
        StudyError: names the first thing that differs.
    """
    if record.epochs_done < 0 or not record.sessions:
        return
    was, last = record.provenance, record.sessions[-1]
    for what, before, after in (
        ("the weights of the backbone", was.weights_sha256, now.weights_sha256),
        ("the training, validation and test images", was.manifest_digest, now.manifest_digest),
        ("the probe images", was.probe_digest, now.probe_digest),
        ("the origin images", was.origin_digest, now.origin_digest),
        ("the input size", was.input_size, now.input_size),
        ("the precision of training", last.precision, session.precision),
    ):
        if before != after:
            raise StudyError(
                record.run_id,
                f"{what} differ from those of its first {record.epochs_done} epochs (were {str(before)[:16]}, are "
                f"{str(after)[:16]})",
                "put them back, or remove the run's folder to compute it anew",
            )


def one_line(error: SimtuiError) -> str:
    """An error with its fix, for where there is one line."""
    return f"{error.where}: {error.problem}; fix: {error.fix}"


def _of_inputs(inputs: Inputs, *, has_labels: bool) -> Provenance:
    origin = inputs.origin_manifest
    return Provenance(
        manifest_digest=inputs.manifest.digest,
        probe_digest=inputs.probe_digest,
        origin_digest=inputs.origin.digest if inputs.origin else "",
        n_train=len(inputs.splits["train"].items) if "train" in inputs.splits else 0,
        n_val=len(inputs.splits["val"].items) if "val" in inputs.splits else 0,
        n_test=len(inputs.splits["test"].items),
        n_probe=len(inputs.probe_rows),
        n_origin=len(inputs.origin.items) if inputs.origin else 0,
        n_origin_probe=len(inputs.origin_probe.items) if inputs.origin_probe else 0,
        n_classes=inputs.n_classes if has_labels else 0,
        task=inputs.manifest.task,
        dataset_is_synthetic=inputs.manifest.synthetic,
        origin_is_synthetic=origin.synthetic if origin else False,
    )


def names_of(devices: Sequence[str]) -> str:
    """The devices of a run in few words: `cuda:0`, `cuda:0+1`, `cpu`, `cpu ×2`."""
    first, *others = devices
    if first == "cpu":
        return f"cpu ×{len(devices)}" if others else "cpu"
    return "+".join([first, *(each.removeprefix("cuda:") for each in others)])


def _description_of(devices: Sequence[str]) -> str:
    """The same with what they are; one name where they are of one kind."""
    kinds = [torch.cuda.get_device_name(each) if each.startswith("cuda") else platform.machine() for each in devices]
    return f"{names_of(devices)} {', '.join(dict.fromkeys(kinds))}"


def main(arguments: list[str]) -> int:
    """One worker; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("--slot", type=int, default=0)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--only-prepare", action="store_true")
    parser.add_argument("--run")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    is_job = options.only_prepare or options.run is not None
    end_in_order(is_job=is_job)
    # cuDNN's convolutions would use TF32 by default; it must never decide a digit.
    torch.backends.cudnn.allow_tf32 = False
    folder = StudyFolder(options.study)
    try:
        if options.only_prepare and folder.study.executor.shared:  # else it is no job: the nodes do not see the folder
            refuse_missing_gpu(folder.study)
        if options.prepare or options.only_prepare:
            Preparation(folder, reports=True).prepare()
        if options.run is not None:
            Worker(folder, 0, is_job=True).run_one(options.run)
        elif not options.only_prepare:
            Worker(folder, options.slot).run()
    except ProcessLostError:
        return EXIT_LOST
    except SimtuiError as error:
        _log.error("%s", error)
        if is_job:
            print(failure_line(error), flush=True)  # the scheduler alone writes how the study is
        else:
            _say(folder, error)
        return EXIT_PAUSED if isinstance(error, NoSpaceError) else error.exit_code
    except Stopped:
        return 0
    return 0


def _say(folder: StudyFolder, error: SimtuiError) -> None:
    stage = Stage("failed", failure=Failure.of(error))
    if isinstance(error, NoSpaceError):
        stage = Stage(f"paused: {error.problem}", need_bytes=error.need_bytes)
    Throttled(folder.stage_path).write(stage, is_last=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
