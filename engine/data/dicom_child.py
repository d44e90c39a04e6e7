"""Decodes compressed DICOM pixels in a process of its own: damaged bytes make gdcm end the process that it runs in.

`python -m engine.data.dicom_child DESCRIPTOR`

A child has little memory, prints nothing, and is kept for the next image; there are as many as threads decode at once.
"""

from __future__ import annotations

import atexit
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from io import BytesIO
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.utils import pixel_array

_MEMORY_BYTES = 3 << 30  # address space, most of which libraries only reserve
_LIMIT_S = 15.0
_MAX_ANSWER_BYTES = 1 << 31
_PIXELS, _PROBLEM = b"+", b"-"


def pixels_in_child(content: bytes, frame: int) -> NDArray[Any]:
    """One frame of a DICOM file, as `pydicom.pixels.pixel_array` gives it.

    Raises:
        ValueError: it cannot be decoded; the message says why.
    """
    try:
        child = _idle.pop()
    except IndexError:  # asked for, not looked at first: other threads take children too
        child = _start()
    try:
        child.connection.send_bytes(str(frame).encode())
        child.connection.send_bytes(content)
        if not child.connection.poll(_LIMIT_S):
            child.end()
            raise ValueError(f"keeps its decoder busy for more than {_LIMIT_S:.0f} s")
        answer = child.connection.recv_bytes(_MAX_ANSWER_BYTES)
    except (EOFError, OSError) as error:
        raise ValueError(f"crashes its decoder (exit code {child.end()})") from error
    except BaseException:  # such as ctrl+c: what the child would answer belongs to this image
        child.end()
        raise
    _idle.append(child)
    if answer[:1] == _PROBLEM:
        raise ValueError(answer[1:].decode())
    values: NDArray[Any] = np.load(BytesIO(answer[1:]), allow_pickle=False)
    return values


@dataclass(frozen=True)
class _Child:
    process: subprocess.Popen[bytes]
    connection: Connection

    def end(self) -> int:
        self.connection.close()
        self.process.kill()
        return self.process.wait()


_idle: list[_Child] = []


@atexit.register
def _end_idle() -> None:
    while _idle:
        _idle.pop().end()


def _start() -> _Child:
    ours, its = Pipe()
    with its:
        command = [sys.executable, "-m", "engine.data.dicom_child", str(its.fileno())]
        nowhere = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, pass_fds=[its.fileno()])
    return _Child(process, ours)


def _answer(content: bytes, frame: int) -> bytes:
    try:
        values = pixel_array(pydicom.dcmread(BytesIO(content), force=True), index=frame)
        stream = BytesIO()
        np.save(stream, values, allow_pickle=False)
    except MemoryError:
        return _PROBLEM + b"needs more memory than its size explains"
    except Exception as error:  # hostile bytes make pydicom raise nearly anything
        return _PROBLEM + str(error).encode("utf-8", "replace")
    return _PIXELS + stream.getvalue()


def main(descriptor: int) -> int:
    """Answers one frame after another until the other end is closed."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    while True:
        try:
            frame, content = connection.recv_bytes(), connection.recv_bytes()
        except (EOFError, OSError):
            return 0
        connection.send_bytes(_answer(content, int(frame)))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
