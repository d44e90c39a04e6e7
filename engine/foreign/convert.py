"""Frees the tensors of a pickled checkpoint, in a child process: the parent never unpickles, and imports no torch.

The child, `engine.foreign.convert_child`, is the one place of simtui that calls `torch.load`. It runs with
`weights_only=True`, little memory, and may start no process and open no connection.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from engine.errors import MachineError, WeightsError
from engine.files import atomic_path, size_of
from engine.files import sha256_file as digest_of

FACTS = "simtui_converted"  # under which the converted file says what it was made of
_LOOK_S = 0.2
_MEMORY_EXIT, _PROBLEM_EXIT = 5, 6  # of the child
_SAVE_AGAIN = 'save it again, as torch.save({"state_dict": model.state_dict()}, "epoch-N.pth"), and give that'
_NO_SPACE = "No space left"


@dataclass(frozen=True)
class Converted:
    """A pickle's tensors as a safetensors file, by dotted name: `state_dict.blocks.0.norm1.weight`.

    Args:
        facts: plain numbers and short texts that stood beside the weights, by dotted name, such as `epoch`, `arch`.
        left_out: what of the pickle was not taken, such as `optimizer`.
    """

    path: Path
    facts: Mapping[str, int | float | str]
    left_out: tuple[str, ...]


def convert(
    files: Sequence[Path], target: Path, *, timeout_s: float = 900.0, stop: threading.Event | None = None
) -> Converted:
    """Writes the tensors of a pickled checkpoint to `target`, whole or not at all; the pickle stays as it is.

    Does nothing where `target` holds the tensors of these very files already.

    Args:
        files: the pickle, or all shards of one.
        target: ends in .safetensors; its folder is made where it is not there.
        stop: set by another thread that wants it no more.
    Raises:
        WeightsError: a file is absent, empty, cut short, no checkpoint, names what only a pickle that runs code needs,
            claims more than it stores, or holds no tensors.
        MachineError: no room, too little memory, too slow, stopped, or the child ended without a word.
    """
    n_bytes = sum(_size(path) for path in files)
    digests = [_digest(path) for path in files]
    if (known := _converted(target, digests)) is not None:
        return known
    with atomic_path(target, n_bytes) as temp_path:
        command = [sys.executable, "-m", "engine.foreign.convert_child", json.dumps(digests), str(temp_path)]
        _run([*command, *map(str, files)], files[0], timeout_s, stop)
    made = _converted(target, digests)
    if made is None:
        raise MachineError(str(files[0]), "its converted copy is not whole", f"check the disk that holds {target}")
    return made


def _size(path: Path) -> int:
    try:
        if not path.is_file():
            raise WeightsError(str(path), "no such file", "correct the path, or leave it out")
        size = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error
    if size == 0:
        raise WeightsError(str(path), "file is empty", "remove it, or copy it again from where it came")
    return size


def _digest(path: Path) -> str:
    try:
        return digest_of(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> WeightsError:
    return WeightsError(str(path), f"cannot be read ({error.strerror or error})", "make it readable, or leave it out")


def _converted(target: Path, digests: list[str]) -> Converted | None:
    """What `target` says of itself, where it was made of these files."""
    try:
        with safe_open(target, "numpy") as file:
            said: Any = json.loads((file.metadata() or {})[FACTS])
        if said["sources"] != digests:
            return None
        return Converted(target, said["facts"], tuple(said["left_out"]))
    except (OSError, SafetensorError, ValueError, LookupError, TypeError):
        return None


def _run(command: list[str], path: Path, timeout_s: float, stop: threading.Event | None) -> None:
    """Runs the child to its end.

    Raises:
        WeightsError, MachineError: what it says, or how it ended.
    """
    deadline_s = time.monotonic() + timeout_s
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCH_FORCE_")}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as child:
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    said, complained = child.communicate(timeout=_LOOK_S)
                    break
                if stop is not None and stop.is_set():
                    raise MachineError(str(path), "its conversion was not waited for", "run the same command again")
                if time.monotonic() > deadline_s:
                    problem = f"its conversion takes longer than {timeout_s:.0f} s"
                    raise MachineError(str(path), problem, "convert it on a faster disk, or leave it out")
        except BaseException:
            child.kill()
            raise
    if child.returncode != 0:
        raise _failure(path, child.returncode, said, complained)


def _failure(path: Path, code: int, said: bytes, complained: bytes) -> WeightsError | MachineError:
    lines = complained.decode("utf-8", "replace").strip().splitlines()
    last = lines[-1][:200] if lines else "without a word"
    if code == _MEMORY_EXIT:
        problem = f"needs more memory to convert than its size of {size_of(_size(path))} explains"
        return WeightsError(str(path), problem, _SAVE_AGAIN)
    if code == _PROBLEM_EXIT:
        with contextlib.suppress(ValueError, LookupError, TypeError):
            answer = json.loads(said.splitlines()[-1])
            return WeightsError(str(answer["where"]), str(answer["problem"]), str(answer["fix"]))
    if _NO_SPACE in last:
        return MachineError(str(path), f"no space for its converted copy ({last})", "make room there")
    problem = f"the process that converts it ended with code {code} ({last})"
    return MachineError(str(path), problem, _SAVE_AGAIN)
