"""Runs as tasks of Ray: on a running cluster, or on one that Ray starts here; parts of a GPU, retries elsewhere.

Where the nodes do not see the study folder, a run's files travel through Ray's object store: see `parcel.py`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from engine.errors import DamagedError, LockedError, MachineError, NoSpaceError
from engine.files import sha256_file
from engine.jobs.executors.command import PREPARATION, Command, Outcome
from engine.jobs.executors.executor import EXIT_PAUSED
from engine.jobs.executors.parcel import (
    Receiver,
    Update,
    as_bytes,
    common_files,
    files_of_needed,
    files_of_run,
    key_of,
)
from engine.jobs.executors.placed import Ended
from engine.jobs.executors.ray_task import Begun, Parcel, Switch, Ticket, clear, work
from engine.jobs.stage import Failure
from engine.lock import locked
from engine.runs.study_folder import StudyFolder

_AT_MOST = 1000  # tasks at a time, running or waiting
_MOST_WORDS = 20  # of a task that are heard at a time
_END_S = 60.0
_CLEAR_S = 10.0
_KNOCK_S = 10.0
_log = logging.getLogger("simtui.scheduler")


@dataclass
class _Task:
    """One task under way: Ray's generator, and what holds the run for it here where the nodes do not see the folder."""

    generator: Any
    has_begun: bool = False
    was_cancelled: bool = False
    outcome: Outcome | None = None
    receiver: Receiver | None = None
    held: ExitStack = field(default_factory=ExitStack)


class RayEngine:
    """The tasks of one study."""

    name = "Ray"
    poll_s = 0.5

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self._executor = folder.study.executor
        self._tasks: dict[str, _Task] = {}
        self._preparation: Command | None = None
        self._switch: Any = None
        self._ray: Any = None
        self._common: dict[str, Any] = {}
        self._keys: list[str] = []

    def begin(self) -> None:
        """Joins the cluster of the address, else the one of this machine, else starts one."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about a study leaves by itself
        try:
            import ray
        except ImportError as error:
            raise MachineError('executor.kind = "ray"', "Ray is not installed", 'pip install "simtui[ray]"') from error
        self._ray = ray
        address = self._executor.address
        try:
            _knock(address)
            ray.init(address=address or None, log_to_driver=False, logging_level=logging.WARNING)
        except (OSError, RuntimeError, ValueError) as error:
            where = f'executor.address = "{address}"' if address else "Ray"
            problem = f"no cluster answers there ({' '.join(str(error).split())[:200]})"
            raise MachineError(where, problem, 'see "ray status", or leave the address out') from error
        self._switch = (
            ray.remote(Switch).options(
                num_cpus=0, scheduling_strategy=self._on(ray.get_runtime_context().get_node_id())
            )
        ).remote()
        self._say_what_is_there()

    def room(self) -> int:
        """Ray keeps what it cannot place yet."""
        return _AT_MOST - len(self._tasks)

    def n_running(self) -> int:
        """Those that have said that they begin."""
        return sum(task.has_begun for task in self._tasks.values())

    def submit(self, run_ids: Sequence[str]) -> Sequence[str]:
        """One task each, which Ray does not repeat by itself: what a run has reached decides how it goes on."""
        if list(run_ids) == [PREPARATION] and not self._executor.shared:
            self._preparation = Command(self._folder.path.resolve(), PREPARATION)
            return run_ids
        wanted = self._executor
        task = self._ray.remote(work).options(
            num_cpus=wanted.cpus,
            num_gpus=wanted.gpus,
            memory=round(wanted.memory_gb * 1e9) if wanted.memory_gb else None,
            max_retries=0,
            num_returns="streaming",
        )
        for run_id in run_ids:
            self._tasks[run_id] = _Task(task.remote(self._ticket(run_id)))
        return run_ids

    def ended(self) -> Sequence[Ended]:
        """Takes in what the tasks say; those that say nothing more have ended."""
        found = []
        if self._preparation and self._preparation.has_ended():
            found.append(Ended(PREPARATION, self._preparation.wait()))
            self._preparation = None
        for _ in range(_MOST_WORDS):
            if not (news := self._with_news()):
                break
            for run_id in news:
                task = self._tasks[run_id]
                ended = self._listen(run_id, task)
                if ended is not None:
                    self._let_go(run_id, task)
                    found.append(ended)
        return found

    def withdraw(self) -> None:
        """Tasks that have not begun; the others see the request to stop in the study folder, or by the switch."""
        self._ray.get(self._switch.turn_off.remote())
        for task in self._tasks.values():
            if not task.has_begun:
                self._cancel(task)

    def end(self) -> None:
        """Interrupts the tasks: each has its command leave its run."""
        if self._preparation:
            self._preparation.stop()
        if self._ray is None or not self._ray.is_initialized():
            return
        for task in self._tasks.values():
            self._cancel(task)
        end_s = time.monotonic() + _END_S
        while self._tasks and time.monotonic() < end_s:
            self.ended()
            time.sleep(0.1)
        for run_id, task in list(self._tasks.items()):
            self._let_go(run_id, task)
        self._clear_nodes()
        self._ray.shutdown()

    def _ticket(self, run_id: str) -> Ticket:
        path = self._folder.path.resolve()
        return Ticket(
            str(path),
            sha256_file(self._folder.study_file_path),
            run_id,
            self._switch,
            None if self._executor.shared else self._parcel(run_id),
        )

    def _parcel(self, run_id: str) -> Parcel:
        """What all runs need is put into the store once, and fetched once by each node."""
        common = common_files(self._folder)
        key = key_of(common)
        if key not in self._keys:
            self._keys.append(key)
            self._common = {name: self._ray.put(as_bytes(path)) for name, path in common.items()}
        files = {
            name: self._ray.put(as_bytes(path)) for name, path in files_of_run(self._folder.run_path(run_id)).items()
        }
        needed = {name: self._ray.put(as_bytes(path)) for name, path in files_of_needed(self._folder, run_id).items()}
        return Parcel(self._folder.study, key, self._common | needed, files)

    def _with_news(self) -> list[str]:
        if not self._tasks:
            return []
        generators = [task.generator for task in self._tasks.values()]
        ready, _ = self._ray.wait(generators, num_returns=len(generators), timeout=0, fetch_local=False)
        is_ready = {id(each) for each in ready}
        return [run_id for run_id, task in self._tasks.items() if id(task.generator) in is_ready]

    def _listen(self, run_id: str, task: _Task) -> Ended | None:
        """Takes in the next word of a task; its end where there is none."""
        errors = self._ray.exceptions
        try:
            said = self._ray.get(next(task.generator))
            self._take(run_id, task, said)
        except StopIteration:
            return Ended(run_id, task.outcome, "" if task.outcome else "it ended without a word")
        except errors.TaskCancelledError:
            return Ended(run_id, None, "cancelled", was_cancelled=not task.was_cancelled)
        except errors.RayTaskError as error:  # a defect, or a node that lacks what it needs
            return Ended(run_id, Outcome(1, tail=str(error)))
        except errors.RayError as error:
            return Ended(run_id, None, f"{type(error).__name__}: {' '.join(str(error).split())[:120]}")
        except LockedError as error:
            self._cancel(task)
            _log.info("%s", error)
        except NoSpaceError as error:
            self._cancel(task)
            return Ended(run_id, Outcome(EXIT_PAUSED, failure=Failure.of(error), need_bytes=error.need_bytes))
        except DamagedError as error:
            self._cancel(task)
            return Ended(run_id, Outcome(error.exit_code, failure=Failure.of(error)))
        return None

    def _take(self, run_id: str, task: _Task, said: Begun | Update | Outcome) -> None:
        if isinstance(said, Outcome):
            task.outcome = said
        elif isinstance(said, Begun):
            task.has_begun = True
            if not self._executor.shared and run_id != PREPARATION:
                task.held.enter_context(locked(self._folder.run_lock_path(run_id)))
                task.receiver = Receiver(self._folder, run_id)
        elif task.receiver:
            task.receiver.take(said)

    def _let_go(self, run_id: str, task: _Task) -> None:
        del self._tasks[run_id]
        if task.receiver:
            task.receiver.close()
        task.held.close()

    def _cancel(self, task: _Task) -> None:
        task.was_cancelled = True
        with contextlib.suppress(self._ray.exceptions.RayError, ValueError, TypeError):
            self._ray.cancel(task.generator)

    def _clear_nodes(self) -> None:
        if not self._keys:
            return
        made = self._ray.remote(clear)
        nodes = [node["NodeID"] for node in self._ray.nodes() if node["Alive"]]
        tasks = [
            made.options(num_cpus=0, scheduling_strategy=self._on(node_id)).remote(self._keys) for node_id in nodes
        ]
        self._ray.wait(tasks, num_returns=len(tasks), timeout=_CLEAR_S)

    def _on(self, node_id: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)

    def _say_what_is_there(self) -> None:
        """A run that no node can take waits: for a node that is still to come, or for ever."""
        wanted = {"GPU": self._executor.gpus, "CPU": self._executor.cpus}
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(all(node.get(what, 0) >= n for what, n in wanted.items()) for node in nodes):
            self.name = f"a node of Ray with {self._executor.gpus:g} GPUs and {self._executor.cpus:g} CPUs"
            there = "; ".join(f"{node.get('GPU', 0):g} GPUs, {node.get('CPU', 0):g} CPUs" for node in nodes)
            _log.warning("no node of the cluster can take a run now: each needs %s; there are: %s", self.name, there)


def _knock(address: str) -> None:
    """Ray tries for minutes to reach a cluster that is not there.

    Raises:
        OSError: nobody answers.
    """
    host, colon, port = address.rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()
