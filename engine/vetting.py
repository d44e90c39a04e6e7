"""Owns what happens before an HDF5 file of somebody else is opened here: a child process with little memory reads it.

A file can be made so that it crashes the HDF5 library or fills the memory. It then does so in the child, whose end is
the answer. What has passed is remembered by its content in the user's cache.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_cache_path

from engine.errors import DamagedError

_MEMORY_BYTES = 3 << 30  # address space, most of which libraries only reserve
_BASE_S = 15.0
_BYTES_PER_S = 20e6


# What did not pass, for as long as this process lives: it is not read again each time that somebody asks.
_refused: dict[str, str] = {}


def is_known(content_sha256: str) -> bool:
    """Whether a file of this content has passed."""
    return _mark_path(content_sha256).exists()


def is_refused(content_sha256: str) -> bool:
    """Whether a file of this content has been found wanting by this process."""
    return content_sha256 in _refused


def vet(files: Sequence[tuple[Path, str]], remake: str) -> None:
    """Reads files in a child process: every object that simtui could come to read, whole.

    Args:
        files: each with the SHA-256 that stands for its content. The first is the one that is wanted; the others
            pass, or do not, without a word.
        remake: what the user does if the first is refused, for the error.
    Raises:
        DamagedError: the first did not pass.
    """
    path, sha256 = files[0]
    if sha256 not in _refused:
        found = _in_child([path for path, _ in files])
        for each, each_sha256 in files:
            if found.get(str(each)) == "":
                _remember(each_sha256)
            elif str(each) in found:
                _refused[each_sha256] = found[str(each)]
        if found.get(str(path)) == "":
            return
    problem = _refused.get(sha256, "was refused: it could not be read in a process of its own")
    raise DamagedError(str(path), problem, remake)


def _in_child(paths: Sequence[Path]) -> dict[str, str]:
    """Problem (empty: none) by path; what the child did not come to is not there."""
    n_bytes = sum(path.stat().st_size for path in paths)
    largest = max(path.stat().st_size for path in paths)
    limit_s = _BASE_S + n_bytes / _BYTES_PER_S

    memory = _MEMORY_BYTES + 2 * largest
    command = [sys.executable, "-m", "engine.hdf5_check", str(memory), str(int(limit_s)), *map(str, paths)]
    found: dict[str, str] = {}
    try:
        done = subprocess.run(command, capture_output=True, timeout=limit_s, check=False)
        output, end = done.stdout, f"crashes its reader (exit code {done.returncode})" if done.returncode else ""
    except subprocess.TimeoutExpired as error:
        output, end = error.stdout or b"", f"keeps its reader busy for more than {limit_s:.0f} s"
    for line in output.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            answer = json.loads(line)
            found[answer["path"]] = str(answer["problem"])
    # The child names a file before it opens it: the one without an answer is the one at which it ended.
    begun = [path for path, problem in found.items() if problem == "begun"]
    return {**found, **{path: f"{end or 'was not read to its end'}: refused" for path in begun}}


def _remember(content_sha256: str) -> None:
    with contextlib.suppress(OSError):  # a cache that cannot be written only costs the time of the next check
        path = _mark_path(content_sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _mark_path(content_sha256: str) -> Path:
    return user_cache_path("simtui") / "checked" / content_sha256[:2] / content_sha256
