"""Starts the other processes of a run on several devices, tells them what to do, and notices when one has ended.

The worker leads: it claims and writes the run. The others, one a device, hear by their standard input what to compute;
it closes when the worker ends, however it ends, and they end with it. Not torchrun: its agent would stand between the
scheduler and the worker, whose exit codes and signals mean something, and its processes outlive it when it is killed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch

from engine.errors import ProcessLostError
from engine.finetune.team import Team, join, leave
from engine.jobs.executors.executor import EXIT_LOST, cause_of
from engine.jobs.team_files import failure_of, is_ready

BEGIN = "begin"
LEAVE = "leave"
_LOOK_S = 0.1
_READY_S = 600.0  # to load torch, the backbone and the images
_TAKES_S = 5.0  # for an error of the connection and the end of the process that caused it to be seen as one
_STUCK_S = 30.0
_END_S = 10.0
_log = logging.getLogger("simtui.worker")


class TeamLead:
    """The processes beside this one for one run; started when the block is entered, gone when it is left.

    Where one of them ends, `ProcessLostError` is raised in this process's main thread, wherever it is; where that
    cannot be, as when a device waits for the lost one for ever, this process ends with `EXIT_LOST`.
    """

    def __init__(self, study_path: Path, run_id: str, devices: Sequence[str], threads: int) -> None:
        self._study_path, self._run_id, self._devices, self._threads = study_path, run_id, devices, threads
        self.team = Team(0, len(devices), self._tell)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._guard = threading.Lock()
        self._lost: ProcessLostError | None = None
        self._is_taken = self._is_closing = False
        self._seen = threading.Event()
        self._handler_before: Any = None

    def __enter__(self) -> TeamLead:
        self._folder = Path(tempfile.mkdtemp(prefix="simtui-team-"))  # this user's alone
        try:
            for rank, device in list(enumerate(self._devices))[1:]:
                self._processes.append(self._start(rank, device))
        except BaseException:
            self._close()
            raise
        self._handler_before = signal.signal(signal.SIGUSR1, self._raise_lost)
        threading.Thread(target=self._watch, name="simtui-team", daemon=True).start()
        return self

    def begin(self) -> None:
        """Has the others load what is prepared, waits for them, and connects.

        Raises:
            ProcessLostError: one has ended.
        """
        self._tell(BEGIN, 0)
        end_s = time.monotonic() + _READY_S
        ranks = range(1, len(self._devices))
        while not all(is_ready(self._folder, rank) for rank in ranks):
            if time.monotonic() > end_s:
                raise self._error(f"its processes were not ready after {_READY_S:.0f} s")
            time.sleep(_LOOK_S)
        join(self.team, self._folder, torch.device(self._devices[0]))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the others. An error of the connection becomes the loss that caused it, where there was one."""
        lost = self._caused(error) if isinstance(error, ProcessLostError) else None
        with self._guard:
            self._is_closing = True
        if kind is None:
            with contextlib.suppress(ProcessLostError):
                self._tell(LEAVE, 0)
        self._close()
        if lost is not None and lost is not error:
            raise lost from error

    def _start(self, rank: int, device: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "engine.jobs.team_mate", str(self._study_path), self._run_id]
        options = {"rank": rank, "size": len(self._devices), "device": device, "threads": self._threads}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        return subprocess.Popen(
            [*command, *arguments, f"--folder={self._folder}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # the worker's own may be read by who started it
        )

    def _tell(self, what: str, epoch: int) -> None:
        line = json.dumps([what, epoch]).encode() + b"\n"
        for process in self._processes:
            assert process.stdin is not None
            try:
                process.stdin.write(line)
                process.stdin.flush()
            except OSError as error:
                raise self._error("one of its processes has ended") from error

    def _watch(self) -> None:
        """In a thread of its own, until the team ends."""
        while not self._is_closing and self._lost is None:
            for rank, process in enumerate(self._processes, 1):
                if process.poll() is not None:
                    self._lost = self._loss(rank, process.returncode)
                    self._seen.set()
                    break
            time.sleep(_LOOK_S)
        if self._lost is None:
            return
        time.sleep(_LOOK_S)  # the connection may say so first
        with self._guard:
            if self._is_closing or self._is_taken:
                return
            self._is_taken = True
            os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(_STUCK_S)
        if not self._is_closing:
            _log.error("%s: %s, and this process waits for it: ending", self._run_id, self._lost.problem)
            os._exit(EXIT_LOST)

    def _raise_lost(self, number: int, frame: FrameType | None) -> None:
        if self._lost is not None and not self._is_closing:
            raise self._lost

    def _caused(self, error: ProcessLostError) -> ProcessLostError:
        """The process that has ended, of which the connection knows only that it is gone."""
        with self._guard:
            self._is_taken = True
        self._seen.wait(_TAKES_S)
        return self._lost or self._error(error.problem)

    def _loss(self, rank: int, returncode: int) -> ProcessLostError:
        said = failure_of(self._folder, rank)
        cause = cause_of(returncode) + (f": {said}" if said else "")
        return self._error(f"process {rank} of {len(self._devices)} ({self._devices[rank]}) {cause}")

    def _error(self, problem: str) -> ProcessLostError:
        fix = f"see {self._study_path / 'log.txt'}; it goes on from its last epoch"
        return ProcessLostError(self._run_id, problem, fix)

    def _close(self) -> None:
        for process in self._processes:
            with contextlib.suppress(OSError):
                assert process.stdin is not None
                process.stdin.close()
        end_s = time.monotonic() + _END_S
        for process in self._processes:
            try:
                process.wait(max(0.0, end_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        leave()
        if self._handler_before is not None:
            signal.signal(signal.SIGUSR1, self._handler_before)
        shutil.rmtree(self._folder, ignore_errors=True)
