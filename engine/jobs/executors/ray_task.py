"""What Ray runs on a node: one command, in the study folder or in a scratch folder, and word of it as it goes."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import MachineError, SimtuiError
from engine.files import atomic_write, sha256_file
from engine.jobs.executors.command import Command, Outcome
from engine.jobs.executors.parcel import Bytes, Sender, Update, unpack_run
from engine.jobs.stage import Failure
from engine.study import Study

_LOOK_S = 1.0
_WISH_S = 2.0
_FORGOTTEN_S = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Begun:
    """The task has begun on this host."""

    host: str


@dataclass(frozen=True)
class Parcel:
    """For a node that does not see the study folder: the common files by name, as references into Ray's store.

    `key` names the scratch folder in which they are kept from one run to the next.
    """

    study: Study
    key: str
    common: Mapping[str, Any]
    files: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ticket:
    """One run, or the preparation: where, and as what; `switch` is the actor that says whether to stop."""

    study_path: str
    study_sha256: str
    run_id: str
    switch: Any
    parcel: Parcel | None = None


class Switch:
    """An actor beside the scheduler: whether the runs that nodes have in scratch folders are to stop."""

    def __init__(self) -> None:
        self._is_off = False

    def turn_off(self) -> None:
        """They stop at their next epoch."""
        self._is_off = True

    def is_off(self) -> bool:
        """Whether they are to stop."""
        return self._is_off


def work(ticket: Ticket) -> Iterator[Begun | Update | Outcome]:
    """The task: says that it has begun, what has changed where that is wanted, and how the command ended."""
    yield Begun(socket.gethostname())
    try:
        if ticket.parcel is None:
            yield _work_in_study(ticket)
        else:
            yield from _work_in_scratch(ticket, ticket.parcel)
    except SimtuiError as error:
        yield Outcome(error.exit_code, socket.gethostname(), Failure.of(error))


def clear(keys: list[str]) -> None:
    """Another task, at the end: removes the scratch folders of a study from this node."""
    for key in keys:
        shutil.rmtree(_scratch_path(key), ignore_errors=True)


def _work_in_study(ticket: Ticket) -> Outcome:
    path = Path(ticket.study_path)
    file_path = path / "study.toml"
    if not file_path.is_file() or sha256_file(file_path) != ticket.study_sha256:
        raise MachineError(
            str(path),
            f"is not there, or another, on {socket.gethostname()}",
            "put the study where every node sees it under this path, or set executor.shared = false",
        )
    command = Command(path, ticket.run_id)
    try:
        return command.wait()
    finally:
        command.stop()


def _work_in_scratch(ticket: Ticket, parcel: Parcel) -> Iterator[Update | Outcome]:
    import ray

    scratch_path = _scratch_path(parcel.key)
    for name, reference in parcel.common.items():
        if not (scratch_path / name).exists():
            atomic_write(scratch_path / name, ray.get(reference).tobytes())
    files: dict[str, Bytes] = {name: ray.get(reference) for name, reference in parcel.files.items()}
    run_path = unpack_run(parcel.study, scratch_path, ticket.run_id, files)
    stop_path = scratch_path / "stop"
    if not ray.get(ticket.switch.is_off.remote()):
        stop_path.unlink(missing_ok=True)
    sender = Sender(scratch_path, run_path)
    command = Command(scratch_path, ticket.run_id)
    try:
        asked_s = time.monotonic()
        while not command.has_ended():
            if (update := sender.changes()) is not None:
                yield update
            if time.monotonic() - asked_s > _WISH_S:
                asked_s = time.monotonic()
                if ray.get(ticket.switch.is_off.remote()):
                    stop_path.touch()
            time.sleep(_LOOK_S)
        outcome = command.wait()
        if (update := sender.changes(is_last=True)) is not None:
            yield update
        yield outcome
    finally:
        command.stop()
        shutil.rmtree(run_path, ignore_errors=True)


def _scratch_path(key: str) -> Path:
    """This user's folder on this node, which nobody else can have put there."""
    import ray

    node_id = ray.get_runtime_context().get_node_id()
    own_path = Path(tempfile.gettempdir()) / f"simtui-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        own_path.mkdir(mode=0o700)
    status = own_path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise MachineError(str(own_path), "is not this user's own folder", f"remove it on {socket.gethostname()}")
    for old_path in own_path.iterdir():  # of a node that was lost, so that nobody could clear it
        if time.time() - old_path.stat().st_mtime > _FORGOTTEN_S:
            shutil.rmtree(old_path, ignore_errors=True)
    return own_path / f"{key}-{node_id[:12]}"
