"""Runs as jobs of Slurm, through submitit: one array, continued after preemption and timeout from the last epoch."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.errors import MachineError, SimtuiError
from engine.files import digest, write_hint
from engine.jobs.executors.command import PREPARATION, Command, Outcome, outcome_of
from engine.jobs.executors.placed import Ended
from engine.runs.record import State, read_record, write_record
from engine.runs.study_folder import StudyFolder

_JOBS_FOLDER = "jobs"  # in the study folder: every node sees it
_POLL_S = 5.0  # a cluster's controller is asked for all jobs at once, and has others to answer
_LOCAL_POLL_S = 0.5
_COMMAND_S = 60.0
_AT_MOST = 1000  # in the queue at a time; Slurm's default limit of an array is 1001
_SHOWS_AFTER_S = 30.0
_FULL_S = 60.0
_SIGNAL_BEFORE_S = 90  # the end of its time, a job hears of it; less where its time is short
_PATIENCE_S = 25.0  # of it for a step of training to end, and the record to be written
_N_TIMEOUTS = 10_000  # submitit's own limit: ours is that an epoch must be done
_MAX_FRUITLESS = 3
_TERMINAL = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
}  # fmt: skip
_log = logging.getLogger("simtui.scheduler")


class Job:
    """What submitit starts on a node: one command, which is left and placed again when Slurm wants the node back."""

    def __init__(self, study_path: Path, run_id: str, n_fruitless: int = 0) -> None:
        self._study_path, self._run_id = study_path, run_id
        self._n_fruitless = n_fruitless
        self._epochs_before = -1
        self._command: Command | None = None

    def __call__(self) -> None:
        """Runs the command; its outcome is a file, so that nobody has to unpickle what a node has written."""
        self._epochs_before = self._epochs_done()
        self._command = Command(self._study_path, self._run_id)
        try:
            outcome = self._command.wait()
        except BaseException:
            self._command.stop()
            raise
        write_hint(_outcome_path(self._study_path, self._run_id), outcome.as_json())

    def checkpoint(self) -> Any:
        """Called by submitit before the node is taken away; the same job, to be queued again, or None."""
        from submitit.helpers import DelayedSubmission

        if self._command:
            self._command.stop(_PATIENCE_S)
        is_fruitless = self._epochs_done() <= self._epochs_before
        n_fruitless = self._n_fruitless + 1 if is_fruitless else 0
        if n_fruitless >= _MAX_FRUITLESS and self._run_id != PREPARATION:
            self._fail(n_fruitless)
            return None
        return DelayedSubmission(Job(self._study_path, self._run_id, n_fruitless))

    def _epochs_done(self) -> int:
        try:
            return read_record(self._run_path).epochs_done if self._run_id != PREPARATION else -1
        except SimtuiError:
            return -1

    def _fail(self, n_times: int) -> None:
        minutes = StudyFolder(self._study_path).study.executor.time
        reason = f"its job was ended {n_times} times before an epoch was done (executor.time = {minutes} minutes)"
        write_record(self._run_path, read_record(self._run_path).with_(state=State.FAILED, reason=reason))

    @property
    def _run_path(self) -> Path:
        return self._study_path / "runs" / self._run_id


class SlurmEngine:
    """The jobs of one study in a Slurm queue, found again by their name; or processes here, for `cluster = "local"`."""

    name = "Slurm"

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self._path = folder.path.resolve()
        self._executor = folder.study.executor
        self._is_local = self._executor.cluster == "local"
        self.poll_s = _LOCAL_POLL_S if self._is_local else _POLL_S
        self.job_name = f"simtui-{digest(str(self._path))[:12]}"
        self._jobs: dict[str, Any] = {}  # submitit's, by the run
        self._since_s: dict[str, float] = {}
        self._states: dict[str, str] = {}
        self._full_until_s = 0.0

    def begin(self) -> None:
        """Jobs of an earlier scheduler that have not begun are taken back; those that run end by themselves."""
        try:
            import submitit
        except ImportError as error:
            raise MachineError(
                'executor.kind = "slurm"', "submitit is not installed", 'pip install "simtui[slurm]"'
            ) from error
        if not self._is_local and (shutil.which("sbatch") is None or shutil.which("srun") is None):
            raise MachineError(
                'executor.kind = "slurm"', "there is no sbatch on this machine", "start the study on a login node"
            )
        if re.search(r"%[jtaA]", str(self._path)) or not str(self._path).isprintable():
            raise MachineError(str(self._path), "has a name that sbatch would read otherwise", "rename the folder")
        shutil.rmtree(self._jobs_path, ignore_errors=True)
        self._jobs_path.mkdir(mode=0o700)
        self._submitit = submitit
        self.withdraw()

    def room(self) -> int:
        """Slurm queues what it is given; processes of this machine are as many as may run at a time."""
        if self._is_local:
            return self._executor.array_parallelism - len(self._jobs)
        free = _AT_MOST - len(self._jobs)
        # Arrays, not crumbs: Slurm's own limit of array_parallelism is one of each array.
        is_worth_it = free >= _AT_MOST // 2 and time.monotonic() >= self._full_until_s
        return free if is_worth_it else 0

    def n_running(self) -> int:
        """As Slurm said last."""
        if self._is_local:
            return len(self._jobs)
        return sum(self._states.get(job.job_id) in ("RUNNING", "COMPLETING") for job in self._jobs.values())

    def submit(self, run_ids: Sequence[str]) -> Sequence[str]:
        """One array for all; where that is more than this user may queue, a part, and the rest later."""
        for run_id in run_ids:
            _outcome_path(self._path, run_id).unlink(missing_ok=True)
        while True:
            try:
                jobs = self._submitter().submit_array([Job(self._path, run_id) for run_id in run_ids])
                break
            except (self._submitit.core.utils.FailedJobError, self._submitit.core.utils.FailedSubmissionError) as error:
                said = " ".join(str(error).split())[-300:]
                if len(run_ids) > 1:
                    run_ids = run_ids[: len(run_ids) // 2]
                elif self._jobs:
                    _log.info("Slurm queues no more now: %s", said)
                    self._full_until_s = time.monotonic() + _FULL_S
                    return ()
                else:
                    raise MachineError(
                        "sbatch", f"refuses the jobs of this study: {said}", "correct [executor] in the study file"
                    ) from error
        now_s = time.monotonic()
        for run_id, job in zip(run_ids, jobs, strict=True):
            self._jobs[run_id], self._since_s[run_id] = job, now_s
        return run_ids

    def ended(self) -> Sequence[Ended]:
        """Those that have an outcome, or that Slurm knows as ended, or knows no more."""
        if not self._is_local and self._jobs and not self._ask():
            return ()
        found = [each for run_id, job in self._jobs.items() if (each := self._end_of(run_id, job)) is not None]
        for each in found:
            self._forget(each.run_id)
        return found

    def withdraw(self) -> None:
        """Pending ones only."""
        if not self._is_local:
            self._cancel("--state=PENDING")

    def end(self) -> None:
        """Slurm has each command leave its run, and kills what does not."""
        if self._is_local:
            for job in self._jobs.values():
                job.cancel()
            while not all(job.done() for job in self._jobs.values()):
                time.sleep(0.1)
        elif self._jobs:
            self._cancel()
            end_s = time.monotonic() + _COMMAND_S
            while time.monotonic() < end_s and self._ask() and not set(self._states.values()) <= _TERMINAL:
                time.sleep(1.0)
        shutil.rmtree(self._jobs_path, ignore_errors=True)

    @property
    def _jobs_path(self) -> Path:
        return self._path / _JOBS_FOLDER

    def _submitter(self) -> Any:
        wanted = self._executor
        if self._is_local:
            local = self._submitit.LocalExecutor(self._jobs_path, max_num_timeout=_N_TIMEOUTS)
            local.update_parameters(
                timeout_min=wanted.time, gpus_per_node=int(wanted.gpus), signal_delay_s=_lead_s(wanted.time)
            )
            return local
        slurm = self._submitit.SlurmExecutor(self._jobs_path, max_num_timeout=_N_TIMEOUTS)
        optional = {
            "gpus_per_node": int(wanted.gpus) or None,
            "mem": f"{round(wanted.memory_gb * 1024)}M" if wanted.memory_gb else None,
            "partition": wanted.partition or None,
            "account": wanted.account or None,
            "qos": wanted.qos or None,
        }
        slurm.update_parameters(
            job_name=self.job_name,
            time=wanted.time,
            nodes=1,
            ntasks_per_node=1,
            cpus_per_task=int(wanted.cpus),
            array_parallelism=wanted.array_parallelism,
            signal_delay_s=_lead_s(wanted.time),
            stderr_to_stdout=True,
            additional_parameters={"requeue": True, **wanted.extra},
            **{name: value for name, value in optional.items() if value is not None},
        )
        return slurm

    def _ask(self) -> bool:
        """The states of all jobs at once; False where the controller does not answer, as when it is started anew."""
        wanted = ["--noheader", "--array", "--states=all", "--format=%i|%T", f"--name={self.job_name}"]
        try:
            done = subprocess.run(
                ["squeue", *wanted], capture_output=True, text=True, timeout=_COMMAND_S, check=True, env=_plain_words()
            )
        except (OSError, subprocess.SubprocessError) as error:
            _log.warning("Slurm does not answer: %s", getattr(error, "stderr", None) or error)
            return False
        self._states = dict(line.strip().split("|", 1) for line in done.stdout.splitlines() if "|" in line)
        return True

    def _end_of(self, run_id: str, job: Any) -> Ended | None:
        if self._is_local:
            if not job.done():
                return None
            outcome = self._outcome(run_id)
            return Ended(run_id, outcome, "" if outcome else "its process has ended without an answer")
        state = self._states.get(job.job_id)
        if state is None and time.monotonic() - self._since_s[run_id] < _SHOWS_AFTER_S:
            return None
        if state is not None and state not in _TERMINAL:
            return None
        why = f"{state} in Slurm" if state else "no longer known to Slurm"
        return Ended(run_id, self._outcome(run_id), why, was_cancelled=state == "CANCELLED")

    def _outcome(self, run_id: str) -> Outcome | None:
        try:
            return outcome_of(_outcome_path(self._path, run_id).read_text("utf-8"))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _forget(self, run_id: str) -> None:
        """Ten thousand runs must not leave forty thousand files."""
        job = self._jobs.pop(run_id)
        self._since_s.pop(run_id)
        paths = job.paths
        for path in (paths.submitted_pickle, paths.result_pickle, paths.stdout, paths.stderr):
            path.unlink(missing_ok=True)
        _outcome_path(self._path, run_id).unlink(missing_ok=True)

    def _cancel(self, *options: str) -> None:
        command = ["scancel", f"--name={self.job_name}", f"--user={os.getuid()}", *options]
        try:
            subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            _log.warning("scancel: %s", getattr(error, "stderr", None) or error)


def _lead_s(minutes: int) -> int:
    """How long before the end of its time a job is told."""
    return min(_SIGNAL_BEFORE_S, 15 * minutes)


def _outcome_path(study_path: Path, run_id: str) -> Path:
    return study_path / _JOBS_FOLDER / f"{run_id or 'preparation'}.json"


def _plain_words() -> dict[str, str]:
    """Without what a user's environment makes of the output."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
