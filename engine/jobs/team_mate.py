"""One of the other processes of a run on several devices: `python -m engine.jobs.team_mate`, started by `team_lead`.

Does what it is told by its standard input, a line each, and ends when that closes, whatever it is doing: then the
worker that leads has ended. It writes nothing of the study.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from engine.errors import DamagedError, ProcessLostError, SimtuiError
from engine.finetune.bench import memory_error
from engine.finetune.checkpoints import Checkpoints
from engine.finetune.learner import Learner, make_learner
from engine.finetune.reference import load_reference_backbone
from engine.finetune.team import Team, join, leave
from engine.jobs.plan import PLAN_FILE, read_plan
from engine.jobs.prepare import Preparation
from engine.jobs.team_files import say_failure, say_ready
from engine.jobs.team_lead import LEAVE
from engine.runs.record import read_record, remake_run
from engine.runs.study_folder import StudyFolder

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_LINGERS_S = 5.0  # the lead may have met the same error, and ends the team itself
_log = logging.getLogger("simtui.worker")


class _Mate:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._device = torch.device(options.device)
        self._folder = StudyFolder(options.study)
        self._run_path = self._folder.run_path(options.run)
        self._orders: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="simtui-orders", daemon=True).start()

    def work(self) -> None:
        """Until it is told to leave."""
        self._orders.get()  # what is prepared is there
        team = Team(self._options.rank, self._options.size)
        learner = self._learner(team)
        say_ready(self._options.folder, self._options.rank)
        join(team, self._options.folder, self._device)
        doing: dict[str, Callable[[int], object]] = {
            "train_loss": lambda epoch: learner.train_loss(),
            "train_epoch": lambda epoch: learner.train_epoch(epoch, lambda *_: None),
            "observe": lambda epoch: learner.observe(),
            "origin_embedding": lambda epoch: learner.origin_embedding(),
            "restore": lambda epoch: self._restore(learner, epoch),
        }
        while (order := self._orders.get())[0] != LEAVE:
            doing[order[0]](order[1])
        leave()

    def _listen(self) -> None:
        for line in sys.stdin.buffer:
            what, epoch = json.loads(line)
            self._orders.put((what, epoch))
        shutil.rmtree(self._options.folder, ignore_errors=True)  # of a lead that was killed
        os._exit(0)

    def _learner(self, team: Team) -> Learner:
        """As the worker makes it, from what is prepared."""
        spec = read_record(self._run_path).spec
        backbone = load_reference_backbone(spec.backbone, self._device)
        plan = read_plan(self._folder.path / PLAN_FILE)
        preparation = Preparation(self._folder, reports=False)
        inputs = preparation.inputs(plan, backbone.info.input_size)
        reference = preparation.reference(backbone, inputs)
        return make_learner(spec, backbone, reference, inputs, plan.precision, self._folder.runs_path, team)

    def _restore(self, learner: Learner, epoch: int) -> None:
        """From the same file as the lead."""
        point = Checkpoints(self._run_path).load_resume_point(up_to=epoch)
        if point is None or point.epoch != epoch:
            where = str(self._run_path / "checkpoints" / "last")
            raise DamagedError(where, f"what epoch {epoch} goes on from cannot be read", remake_run(self._run_path))
        learner.restore(point.tensors, epoch)


def _run_to_end(options: argparse.Namespace) -> str:
    """Works until it is told to leave; returns what went wrong, or nothing."""
    mate = _Mate(options)
    try:
        mate.work()
        return ""
    except ProcessLostError:
        return "it lost the others"
    except torch.OutOfMemoryError:
        batch_size = StudyFolder(options.study).study.finetune.batch_size
        return str(memory_error(options.run, torch.device(options.device), batch_size).problem)
    except SimtuiError as error:
        return f"{error.where}: {error.problem}"
    except Exception as error:
        _log.exception("process %d of %s failed", options.rank, options.run)
        return f"{type(error).__name__}: {error}"


def main(arguments: list[str]) -> int:
    """One process beside the lead; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("run")
    for name, kind in (("rank", int), ("size", int), ("device", str), ("threads", int), ("folder", Path)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    for each in _SIGNALS:  # meant for the lead, which decides what becomes of the run
        signal.signal(each, signal.SIG_IGN)
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(options.threads)
    if options.device.startswith("cuda"):
        torch.cuda.set_device(options.device)
    problem = _run_to_end(options)
    if not problem:
        return 0
    with contextlib.suppress(OSError):
        say_failure(options.folder, options.rank, problem)
    time.sleep(_LINGERS_S)
    return 1


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    logging.shutdown()
    os._exit(exit_code)  # Python would abort: the thread that listens holds the standard input
