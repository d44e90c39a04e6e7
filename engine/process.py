"""Who a process is, seen from any machine: its host, its number there, and since when; knows nothing of files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from functools import cache
from pathlib import Path

import psutil


def writer_mark() -> str:
    """Tells this process from every other that may write to the same folder: process numbers repeat on other hosts."""
    return f"{os.getpid()}-{_place()}"


def may_live(mark: str) -> bool:
    """Whether the process that a `writer_mark` names may be running: one of another host may, as far as is known."""
    pid, _, place = mark.partition("-")
    if place != _place():
        return bool(place)  # without one it is of an older simtui, which ran on one host
    return pid.isdecimal() and psutil.pid_exists(int(pid))


def started(pid: int) -> str:
    """When a process started, in ticks since the boot: unlike a time of day, setting the clock does not change it."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        return status.rpartition(")")[2].split()[19]
    except OSError:
        pass
    try:
        return f"{psutil.Process(pid).create_time():.0f}"
    except psutil.Error:
        return ""


@cache
def space() -> str:
    """This boot of this machine, and the namespace in which process numbers mean something."""
    parts = []
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _place() -> str:
    return hashlib.sha256(f"{socket.gethostname()} {space()}".encode()).hexdigest()[:8]
